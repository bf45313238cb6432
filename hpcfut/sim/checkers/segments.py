"""Sealed means flushed: no place is announced before the object is sealed there, in memory or in a file (law 8).

That no segment is freed under a transfer, read before it is sealed or stored twice is seen to by ``SimWindow``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.model.ids import name_of
from hpcfut.sim.trace import SimulationError
from hpcfut.wire.messages import ArgumentsFollow, ItemYielded, Message, ObjectLocated, TaskPushed, TaskReturned

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Segments:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def on_message(self, rank: SimRank, destination: int, message: Message) -> None:
        """A message is about to leave."""
        if isinstance(message, TaskPushed | ArgumentsFollow):
            for argument in message.arguments:
                if argument.payload is None:
                    self._check(argument.object_id, argument.rank)
        elif isinstance(message, TaskReturned):
            return_ids = self._world.truth.specs[message.task_id].return_ids
            for object_id, result in zip(return_ids, message.results, strict=False):
                if result.payload is None:
                    self._check(object_id, rank.rank)
        elif isinstance(message, ItemYielded):
            if message.result.payload is None:
                self._check(message.object_id, rank.rank)
        elif isinstance(message, ObjectLocated):
            self._check(message.bytes_id or message.object_id, message.rank)

    def _check(self, object_id: int, rank: int) -> None:
        truth = self._world.truth
        if object_id in truth.lost or rank in truth.dead:
            return  # A borrower has not heard of it, or the disk may tell them all the same.
        if not self._world.ranks[rank].keeps(object_id):
            raise SimulationError(
                f"Object {name_of(object_id)} is announced as stored on rank {rank}, where it is not sealed.",
                [object_id],
            )
