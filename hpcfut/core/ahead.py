"""Arguments that are fetched ahead: for tasks that are not there yet, while the ones before them run.

Theory of operation

Short tasks queue on their executor, and those behind are fetched for while the first runs. A task that takes long
stands there alone, so that the next one can still go to whichever rank is free first; and a rank that got it only then
would wait for its bytes with an empty slot. So the owner names, for each lease under which a task runs, the one that
stands *ahead*: the next that the lease would take, if arguments of it are on another host. It tells the rank of these
arguments, and no more. When the lease has room, it takes that task; other leases take others as long as there are any,
and then this one, too, for an idle rank is worse than bytes that were fetched in vain.

The rank that was told begins to read what it does not have, as if a task that wanted it had just gone: such a read
comes to its end, and what it brings is a cached copy (``copies.py``), which the task finds or anybody else. It takes
room that is free, or that other cached copies have; it makes nobody wait, and nothing is spilled for it. Where it
cannot be done, nothing is lost: the task comes, and fetches then.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import LOCAL
from hpcfut.core.lease import KeyQueue, Lease
from hpcfut.core.membership import Membership
from hpcfut.core.ownership import SOURCE, STORED
from hpcfut.core.pressure import Pressure
from hpcfut.core.references import References
from hpcfut.core.task import QUEUED, TaskRecord
from hpcfut.core.transfers import Transfers
from hpcfut.model.errors import InvariantError
from hpcfut.model.ids import name_of
from hpcfut.model.segment import NBYTES_HEADER
from hpcfut.wire.messages import Argument, ArgumentsFollow

#: Tasks that have left the queue stand in it for a while; so many of them are passed on the way to the next.
_N_PASSED_MAX: Final = 16
#: Watches a read for a moment; neither a run (positive) nor a waiter (negative).
_PASSING: Final = 0


class Ahead:
    """The owner's part: which task stands ahead under each lease."""

    def __init__(self, context: Context, references: References, membership: Membership) -> None:
        self._context = context
        self._references = references
        self._membership = membership

    def look(self, queue: KeyQueue) -> None:
        """A task has come, which may stand ahead under the lease that has waited longest for one."""
        lease = queue.unnamed.pop(next(iter(queue.unnamed)))
        if lease.n_there and lease.lease_id not in queue.open:
            self.name_for(lease)

    def name_for(self, lease: Lease) -> None:
        """A lease is full: tell its rank what it needs for the next task."""
        queue = lease.queue
        if lease.ahead is not None:
            return
        task = self._next_under(lease)
        arguments = self._arguments_from_afar(task, lease.rank) if task is not None else ()
        if task is None or not arguments:
            queue.unnamed[lease.lease_id] = lease
            return
        lease.ahead = task
        queue.ahead[task.task_id] = lease
        self._context.send(lease.rank, ArgumentsFollow(arguments))

    def _next_under(self, lease: Lease) -> TaskRecord | None:
        queue = lease.queue
        for task in islice(lease.line or queue.tasks, len(queue.ahead) + _N_PASSED_MAX):
            if task.state == QUEUED and task.task_id not in queue.ahead:
                return task
        return None

    def _arguments_from_afar(self, task: TaskRecord, rank: int) -> tuple[Argument, ...]:
        host_of, arguments = self._membership.host_of, []
        for object_id in dict.fromkeys(task.arguments):
            record = self._references.find(object_id)
            assert record is not None
            if record.state == STORED and record.rank != SOURCE and host_of[record.rank] != host_of[rank]:
                arguments.append(Argument(record.bytes_id, None, record.rank, record.nbytes))
        return tuple(arguments)

    def take(self, lease: Lease) -> TaskRecord | None:
        """The task that stands ahead under a lease that has room, if there is one."""
        task, lease.ahead = lease.ahead, None
        if task is not None:
            del lease.queue.ahead[task.task_id]
        return task

    def clear(self, queue: KeyQueue) -> None:
        """No task waits any more."""
        for lease in queue.ahead.values():
            lease.ahead = None
        queue.ahead.clear()

    def forget(self, queue: KeyQueue, task: TaskRecord) -> None:
        """A task that may stand ahead goes to another rank, or does not wait any more."""
        lease = queue.ahead.pop(task.task_id, None)
        if lease is not None:
            lease.ahead = None

    def check(self, queue: KeyQueue) -> None:
        """Assert what must hold between turns."""
        ahead = {lease.ahead.task_id: lease for lease in queue.leases.values() if lease.ahead is not None}
        if ahead != queue.ahead:
            raise InvariantError(f"Queue {queue.key} counts {queue.ahead} ahead, and its leases name {ahead}.")
        for lease in ahead.values():
            assert lease.ahead is not None
            if lease.ahead.state != QUEUED:
                raise InvariantError(f"Task {name_of(lease.ahead.task_id)} is {lease.ahead.state}, and stands ahead.")


class ReadsAhead:
    """The executor's part: reads for tasks that are about to come."""

    def __init__(self, context: Context, copies: Copies, pressure: Pressure, transfers: Transfers) -> None:
        self._context = context
        self._copies = copies
        self._pressure = pressure
        self._transfers = transfers

    def on_follow(self, _: int, message: ArgumentsFollow) -> None:
        """An owner is going to send a task with these arguments."""
        for argument in message.arguments:
            self._context.demand_rank(argument.rank)
            # What is at hand may be in use by what happens beside this; memory is looked for when all is settled.
            self._context.put_off.append((self._read, argument))

    def _read(self, argument: Argument) -> None:
        rank, nbytes = argument.rank, argument.nbytes
        is_here = argument.object_id in self._copies.copies or rank in self._transfers.neighbours
        if is_here or rank == self._context.rank or self._pressure.is_felt or not self._find_room(nbytes):
            return
        self._transfers.need(argument.object_id, rank, nbytes, _PASSING, is_held=False)
        self._copies.unwatch(argument.object_id, _PASSING)
        self._copies.let_go(self._copies.copies[argument.object_id])

    def _find_room(self, nbytes: int) -> bool:
        """Whether there is room, which only copies that were read from others make."""
        copies, needed = self._copies, nbytes + NBYTES_HEADER
        if copies.arena.nbytes_hole_max >= needed:
            return True
        cached = [
            copy
            for copy in copies.movable.values()
            if copy.state == LOCAL and copy.is_movable and not (copy.is_primary or copy.lent or copy.file_id)
        ]
        if sum(copy.nbytes + NBYTES_HEADER for copy in cached) < needed:
            return False
        for copy in cached:
            copies.evict(copy)
            if copies.arena.nbytes_hole_max >= needed:
                return True
        return False
