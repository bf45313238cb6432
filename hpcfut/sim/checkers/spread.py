"""One host, one read: nothing is sent to a host from where it was stored while another rank there has read it.

But where a rank was said not to have it by another one, which may have asked it before it read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.effects import SendObject
from hpcfut.model.ids import name_of
from hpcfut.sim.trace import SimulationError
from hpcfut.wire.messages import CopyGone, Message

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Spread:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        #: (object, rank) of which somebody else has said that it has gone.
        self._denied: dict[tuple[int, int], None] = {}

    def on_message(self, rank: SimRank, destination: int, message: Message) -> None:
        """A message is about to leave."""
        if isinstance(message, CopyGone) and message.rank != rank.rank:
            self._denied[message.object_id, message.rank] = None

    def on_send(self, rank: SimRank, effect: SendObject) -> None:
        """Bulk data are about to leave."""
        object_id = effect.object_id
        copy = rank.core.copies.copies.get(object_id)
        if copy is None or not copy.is_primary:
            return  # What is sent and not there the window complains of.
        host = self._world.roster[effect.rank].host_key
        for other in self._world.survivors():
            if other.rank in (rank.rank, effect.rank) or self._world.roster[other.rank].host_key != host:
                continue
            segment = other.window.segments.get(object_id)
            if segment is not None and segment.is_sealed and (object_id, other.rank) not in self._denied:
                raise SimulationError(
                    f"Object {name_of(object_id)} is sent to rank {effect.rank}, though rank {other.rank} of the same "
                    f"host has read it.",
                    [object_id],
                )
