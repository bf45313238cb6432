"""One owner: every object is in the table of the rank that its id names; and what owners say of places is so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.copy import LENT
from hpcfut.core.ownership import SOURCE, STORED, OwnedObject
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
        for object_id, record in rank.core.ownership.objects.items():
            if owner_of(object_id) != rank.rank:
                raise SimulationError(
                    f"Rank {rank.rank} owns {name_of(object_id)}, which it did not make.", [object_id]
                )
            if record.state == STORED and record.rank != SOURCE and not self._is_there(rank, record):
                raise SimulationError(
                    f"The owner of {name_of(object_id)} says that it is stored on rank {record.rank}.", [object_id]
                )
        for object_id in rank.core.borrowing.objects:
            if owner_of(object_id) == rank.rank:
                raise SimulationError(f"Rank {rank.rank} borrows {name_of(object_id)} from itself.", [object_id])

    def _is_there(self, rank: SimRank, record: OwnedObject) -> bool:
        """Whether a place is right; what died with a rank is somewhere else by now, if it can be."""
        if record.rank not in rank.has_lost:
            return self._world.ranks[record.rank].keeps(record.bytes_id)
        copy = rank.core.copies.copies.get(record.bytes_id)
        is_readable = copy is not None and copy.state == LENT
        return is_readable or not self._world.truth.reasons.can_be_made(record.object_id)
