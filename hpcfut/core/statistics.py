"""How much a core holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from hpcfut.core.rank import RankCore


class Statistics(msgspec.Struct, frozen=True):
    """How many entries each table has; all zero means that nothing is left."""

    n_owned: int
    n_borrowed: int
    n_tasks: int
    n_queued: int
    n_leases: int
    n_runs: int
    n_grants: int
    n_copies: int
    n_waits: int
    n_watches: int
    #: Specs, and what is being made again or has been.
    n_lineage: int
    n_templates: int
    #: Actors that this rank owns, has addresses of, or is home to, and names.
    n_actors: int
    #: Deaths that not all ranks have noted yet.
    n_deaths: int
    stale: dict[str, int]

    @classmethod
    def of(cls, core: RankCore) -> Statistics:
        """Those of one rank's core."""
        return cls(
            n_owned=len(core.ownership.objects),
            n_borrowed=len(core.borrowing.objects),
            n_tasks=len(core.tasks.tasks),
            n_queued=sum(queue.n_queued for queue in core.leases.queues.values()),
            n_leases=len(core.leases.leases),
            n_runs=len(core.runs.runs),
            n_grants=len(core.scheduler.grants),
            n_copies=len(core.copies.copies),
            n_waits=len(core.waits.waits) + len(core.waits.covered),
            n_watches=len(core.watches.watches),
            n_lineage=len(core.lineage.specs) + len(core.lineage.needed) + len(core.references.names),
            n_templates=len(core.templates.own) + len(core.templates.here),
            n_actors=len(core.actors.actors)
            + len(core.addresses.addresses)
            + len(core.residents.residents)
            + len(core.residents.leaving)
            + len(core.names.names)
            + len(core.names.queries),
            n_deaths=len(core.deaths.burials.unburied | core.deaths.burials.noted),
            stale=dict(core.context.stale),
        )

    @property
    def is_empty(self) -> bool:
        """Whether every table of tasks and objects is empty (templates live as long as their functions)."""
        return not (
            self.n_owned
            or self.n_borrowed
            or self.n_tasks
            or self.n_queued
            or self.n_actors
            or self.n_leases
            or self.n_runs
            or self.n_grants
            or self.n_copies
            or self.n_waits
            or self.n_watches
            or self.n_lineage
            or self.n_deaths
        )
