"""How much a core holds."""

from __future__ import annotations

import msgspec


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
    n_templates: int
    stale: dict[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether every table of tasks and objects is empty (templates live as long as their functions)."""
        return not (
            self.n_owned
            or self.n_borrowed
            or self.n_tasks
            or self.n_queued
            or self.n_leases
            or self.n_runs
            or self.n_grants
            or self.n_copies
            or self.n_waits
            or self.n_watches
        )
