"""A lease and the queue of its scheduling key, as their holder keeps them."""

from __future__ import annotations

from collections import deque

import msgspec

from hpcfut.core.task import TaskRecord
from hpcfut.model.template import SchedulingKey


class Lease(msgspec.Struct, gc=False, eq=False):
    """The right to run tasks of one key on one rank."""

    lease_id: int
    rank: int
    queue: KeyQueue
    #: Tasks of the lease that may be on the rank at a time; 0 while the rank has no room.
    depth: int = 0
    #: Tasks of the lease that are on the rank.
    n_there: int = 0
    #: With so few there, it is filled up again.
    n_low: int = 0
    idle_since: float = 0.0
    #: Whether it is closed and the last of our tasks there came back, so that the rank has no room for long.
    is_shut: bool = False
    #: Tasks that wait for this lease, because their arguments are near its rank.
    line: deque[TaskRecord] = msgspec.field(default_factory=deque)
    #: Since when it has a line.
    lined_since: float = 0.0
    #: The task whose arguments its rank fetches meanwhile, unless it has gone elsewhere (``ahead.py``).
    ahead: TaskRecord | None = None


class KeyQueue(msgspec.Struct, gc=False, eq=False):
    """The tasks of one scheduling key that wait for a lease, and the leases of the key."""

    key: SchedulingKey
    #: Ranks that can ever run a task of the key.
    candidates: tuple[int, ...]
    tasks: deque[TaskRecord]
    #: Cancelled or inlined tasks leave the queue lazily; this is the number of those that really wait.
    n_queued: int = 0
    leases: dict[int, Lease] = {}
    #: Leases with room, in the order in which they were last used.
    open: dict[int, Lease] = {}
    #: Leases that may open soon: closed, with none of our tasks there. One that was closed because our tasks there take
    #: long, or that is shut, is not one of them.
    n_asking: int = 0
    last: Lease | None = None
    #: Leases that have a line.
    lines: dict[int, Lease] = {}
    #: Tasks that stand ahead under one of the leases.
    ahead: dict[int, Lease] = {}
    #: Leases that were full when no task could stand ahead under them.
    unnamed: dict[int, Lease] = {}
    #: Whether tasks may have arguments on other hosts than their rank's.
    is_far: bool = False
    #: Host → the candidates that are on it, as far as anybody asked.
    near: dict[str, tuple[int, ...]] = {}

    @property
    def is_spread(self) -> bool:
        """Whether the calls shall spread over the ranks."""
        return self.key[3]
