"""One owner: every object is in the table of the rank that its id names; and what owners say of places is so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.ownership import SOURCE, STORED
from hpcfut.model.ids import name_of, owner_of
from hpcfut.sim.trace import SimulationError

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Owners:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def after_turn(self, rank: SimRank) -> None:
        """Look through the tables of the rank."""
        ranks = self._world.ranks
        for object_id, record in rank.core.ownership.objects.items():
            if owner_of(object_id) != rank.rank:
                raise SimulationError(
                    f"Rank {rank.rank} owns {name_of(object_id)}, which it did not make.", [object_id]
                )
            if record.state == STORED and record.rank != SOURCE and not ranks[record.rank].keeps(record.bytes_id):
                raise SimulationError(
                    f"The owner of {name_of(object_id)} says that it is stored on rank {record.rank}.", [object_id]
                )
        for object_id in rank.core.borrowing.objects:
            if owner_of(object_id) == rank.rank:
                raise SimulationError(f"Rank {rank.rank} borrows {name_of(object_id)} from itself.", [object_id])
