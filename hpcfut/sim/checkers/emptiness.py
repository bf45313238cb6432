"""In the end nothing is left: no entry in any table of any rank, no segment, no ref, no resource in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.sim.trace import SimulationError

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld

#: Late inputs that no order of messages can explain: if they are counted, a count was wrong before.
NEVER_STALE = ("ref to a collected object", "release of an unknown ref")


class Emptiness:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def at_rest(self) -> None:
        """All programs have ended and all refs are dropped."""
        for rank in self._world.survivors():
            self._check(rank)

    def _check(self, rank: SimRank) -> None:
        core = rank.core
        where = f"At rest, rank {rank.rank}"
        statistics = core.statistics()
        tables = (core.ownership.objects, core.borrowing.objects, rank.window.segments, core.copies.copies)
        ids = [object_id for table in tables for object_id in table][:3]
        if not statistics.is_empty:
            raise SimulationError(f"{where} still has {statistics}.", ids)
        if statistics.n_templates:
            raise SimulationError(f"{where} still has templates: {core.templates.own} {core.templates.here}.")
        kept = (rank.window.segments, rank.disk.files, rank.held, rank.functions, rank.arguments.by_object)
        if any(kept):
            raise SimulationError(f"{where} still has {kept}.", ids)
        if core.scheduler.free != self._world.roster[rank.rank].resources:
            raise SimulationError(f"{where} has {core.scheduler.free} free.")
        for name in NEVER_STALE:
            if name in statistics.stale:
                raise SimulationError(f"Rank {rank.rank} has counted {name!r}: {statistics.stale}.")
