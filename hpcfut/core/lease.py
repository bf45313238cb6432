"""A lease and the queue of its scheduling key, as their holder keeps them."""

from __future__ import annotations

from collections import deque

import msgspec

from hpcfut.core.task import QUEUED, TaskRecord
from hpcfut.model.errors import InvariantError
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

    def remove(self, lease: Lease) -> None:
        """A lease ends."""
        del self.leases[lease.rank]
        self.open.pop(lease.lease_id, None)
        self.lines.pop(lease.lease_id, None)
        self.unnamed.pop(lease.lease_id, None)
        if not (lease.depth or lease.n_there or lease.is_shut):
            self.n_asking -= 1
        if self.last is lease:
            self.last = None

    def check(self) -> None:
        """Assert what must hold between turns."""
        lines = [lease.line for lease in self.leases.values() if lease.line]
        waiting = [task for line in (self.tasks, *lines) for task in line if task.state == QUEUED]
        n_queued = len({task.task_id for task in waiting})
        if n_queued != self.n_queued:
            raise InvariantError(f"Queue {self.key} counts {self.n_queued} tasks and holds {n_queued}.")
        if self.n_asking != sum(not (lease.depth or lease.n_there or lease.is_shut) for lease in self.leases.values()):
            raise InvariantError(f"Queue {self.key} counts {self.n_asking} leases that may open soon.")
        lease_ids = [lease.lease_id for lease in self.leases.values()]
        for lease_id in (*self.open, *self.lines, *self.unnamed):
            if lease_id not in lease_ids:
                raise InvariantError(f"Lease {lease_id} of queue {self.key} has gone, and is in a list.")
        for rank, lease in self.leases.items():
            where = f"Lease {lease.lease_id} on rank {rank}"
            has_room = lease.n_there < lease.depth
            if (lease.lease_id in self.open and not has_room) or (
                lease.lease_id not in self.open and has_room and lease.n_there <= lease.n_low
            ):
                raise InvariantError(f"{where} is in the wrong list.")
            if has_room and lease.n_there <= lease.n_low:
                waiting = [task for line in (self.tasks, lease.line) for task in line if task.state == QUEUED]
                if waiting:
                    raise InvariantError(f"{where} has room while tasks wait.")
            if (lease.lease_id in self.lines) != bool(lease.line):
                raise InvariantError(f"The line of lease {lease.lease_id} on rank {rank} is in no list.")
            if rank not in self.candidates:
                raise InvariantError(f"{where} is of no use: tasks of {self.key} can run on {self.candidates} only.")
