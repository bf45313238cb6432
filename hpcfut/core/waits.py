"""Waits: threads of this rank that wait for objects, and the tasks that they run meanwhile.

A waiting thread may run, on its own stack, a task that makes one of the objects it waits for, if that task has not
started: it is either in this rank's queue (``tasks.py``) or ready here (``scheduler.py``). So a ``get`` on one rank
needs no other thread, and nested ``get``s end even when no thread is left.

For who is given the values, those that are here already stay in memory until all are (``pinned``). Who only wants to
know has none kept: there may be more of them than fit into the store.

A wait that is over while its thread runs such a task is *covered*: the thread cannot go on before that task has ended,
and until then its own task does not hold a slot, and its driver does not claim the rank.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpcfut.core.borrowing import ASKED, UNKNOWN
from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import LENT, LOCAL
from hpcfut.core.effects import Value, WakeWaiter
from hpcfut.core.events import WaitStarted
from hpcfut.core.leases import Leases
from hpcfut.core.ownership import INLINE, PENDING, STORED, OwnedObject
from hpcfut.core.references import Record, References
from hpcfut.core.run import READY, Run
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.tasks import Tasks
from hpcfut.core.transfers import Transfers
from hpcfut.core.wait import COVERED, TRANSITIONS, WAITING, Wait
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import Failure
from hpcfut.model.place import Place
from hpcfut.model.template import STREAMING

NOT_READY = (PENDING, UNKNOWN, ASKED)


class Waits:
    """The table of waiting threads."""

    def __init__(
        self,
        context: Context,
        references: References,
        copies: Copies,
        transfers: Transfers,
        leases: Leases,
        tasks: Tasks,
        runs: Runs,
        scheduler: Scheduler,
    ) -> None:
        self._footprints = tasks.footprints
        self._context = context
        self._next = context.make_table("waits", TRANSITIONS)
        self._on_ready = self._next.on("ready")
        self._references = references
        self._owned = references.ownership.objects
        self.copies = copies
        self._transfers = transfers
        self._leases = leases
        self._tasks = tasks
        self._runs = runs
        self._scheduler = scheduler
        self.waits: dict[int, Wait] = {}
        #: Waits that are over, while their threads still run a task.
        self.covered: dict[int, Wait] = {}

    def start(self, event: WaitStarted) -> None:
        """A thread waits."""
        waiter_id, object_ids, n_wanted, is_fetching = (
            event.waiter_id,
            event.object_ids,
            event.n_wanted,
            event.is_fetching,
        )
        missing = []
        counted: list[Record] = []
        n_ready = 0
        is_taking_all = is_fetching and event.is_taking and 1 < n_wanted == len(object_ids)
        needs: dict[int, int] | None = {} if is_taking_all else None
        is_too_much = False
        owned, ensure = self._owned, self._references.ensure
        for object_id in object_ids:
            record = owned.get(object_id) or ensure(object_id)
            if record.state == STORED:
                self.copies.retry(record.bytes_id)
                is_too_much |= needs is not None and self._footprints.add(needs, record, self._context.rank)
            if record.state == PENDING or record.state in NOT_READY or not self.is_ready(record, is_fetching):
                missing.append(record)
                continue
            if is_fetching and record.state == STORED:
                counted.append(record)
            n_ready += 1
            if n_ready >= n_wanted:
                break
        wait = Wait(
            waiter_id, object_ids, n_wanted, n_ready, is_fetching, event.may_run, event.task_id, event.is_for_good
        )
        wait.is_taking, wait.needs = event.is_taking, needs
        for record in counted:
            self._count(wait, record)
        if is_too_much and (failure := self._footprints.refuse_values(object_ids, self._context.rank)) is not None:
            self._wake(wait, failure)
            return
        if n_ready >= n_wanted:
            self._wake(wait)
            return
        self.waits[waiter_id] = wait
        for record in missing:
            if record.state == PENDING and record.watchers is None:
                record.watchers = {-waiter_id: None}
            else:
                self.watch(record, wait.waiter_id, is_fetching=wait.is_fetching)
        if wait.task_id:
            wait.run = self._runs.block(wait.task_id)
        else:
            self._scheduler.driver_waits()
        if wait.may_run and (self._scheduler.ready or self._leases.n_queued):
            self._run_one(wait)
        self._runs.dispatch()

    def is_ready(self, record: Record, is_fetching: bool) -> bool:
        """Whether an object is ready for who waits for it or watches it."""
        if record.state != STORED or not is_fetching:
            return record.state not in NOT_READY
        copy = self.copies.find(record.bytes_id)
        if copy is None:
            return False
        # It may be here for a run only; the thread that waited wants it for as long as it holds a ref.
        copy.is_held = True
        return True

    def watch(self, record: Record, waiter_id: int, *, is_fetching: bool) -> None:
        """See to it that a waiter, or a watch, is told when an object that is not ready takes its next step."""
        if record.state in NOT_READY:
            if record.watchers is None:
                record.watchers = {}
            record.watchers[-waiter_id] = None
            self._references.ask(record)
        else:
            assert is_fetching
            self._transfers.need(record.bytes_id, record.rank, record.nbytes, -waiter_id, is_held=True)

    def on_ready(self, waiter_id: int, record: Record) -> None:
        """An object that the thread waits for is ready; a stored one may still have to be read."""
        wait = self.waits[waiter_id]
        if record.state == STORED and wait.needs is not None:
            own, footprints = self._context.rank, self._footprints
            is_too_much = footprints.add(wait.needs, record, own)
            if is_too_much and (failure := footprints.refuse_values(wait.object_ids, own)) is not None:
                self._end(wait, failure)
                return
        if record.state == STORED and not self.is_ready(record, wait.is_fetching):
            self.watch(record, waiter_id, is_fetching=wait.is_fetching)
            return
        if wait.is_fetching and record.state == STORED:
            self._count(wait, record)
        wait.n_ready += 1
        if wait.n_ready >= wait.n_wanted:
            self._end(wait)

    def on_arrived(self, waiter_id: int, record: Record) -> None:
        """The bytes of an object that the thread waits for are here (or will never be)."""
        wait = self.waits[waiter_id]
        self._count(wait, record)
        wait.n_ready += 1
        if wait.n_ready >= wait.n_wanted:
            self._end(wait)

    def watch_again(self, record: Record, bytes_id: int, waiters: list[int]) -> None:
        """A stored object was lost: who waited for its bytes, or has counted it as ready, waits for it anew."""
        object_id = record.object_id
        for wait in self.waits.values():
            if wait.pinned and bytes_id in wait.pinned:
                wait.pinned.remove(bytes_id)
                self.copies.unpin(self.copies.copies[bytes_id])
            elif wait.is_fetching or object_id not in wait.object_ids or -wait.waiter_id in (record.watchers or ()):
                continue
            wait.n_ready -= 1
            waiters.append(wait.waiter_id)
        for waiter_id in waiters:
            self.watch(record, waiter_id, is_fetching=True)

    def _count(self, wait: Wait, record: Record) -> None:
        """The bytes of an object that the thread waits for are here."""
        if not wait.is_taking:
            if wait.seen is None:
                wait.seen = {}
            wait.seen[record.object_id] = None
            self.copies.note_use(self.copies.copies[record.bytes_id])
            return
        self.copies.pin(record.bytes_id)
        if wait.pinned is None:
            wait.pinned = []
        wait.pinned.append(record.bytes_id)

    def _unpin(self, wait: Wait) -> None:
        pinned, wait.pinned = wait.pinned, None
        copies = self.copies
        for object_id in pinned or ():
            copies.unpin(copies.copies[object_id])

    def _end(self, wait: Wait, failure: Failure | None = None) -> None:
        """All that the thread waits for is there, or never will be."""
        del self.waits[wait.waiter_id]
        if wait.n_ready < len(wait.object_ids):
            self.unwatch(wait.object_ids, wait.waiter_id)
        self._wake(wait, failure)
        wait.state = self._on_ready[wait.state]
        if wait.state == COVERED:
            self.covered[wait.waiter_id] = wait
        else:
            self.go_on(wait.task_id, wait.run)

    def abandon(self, waiter_id: int) -> None:
        """The thread stopped waiting."""
        wait = self.waits.get(waiter_id)
        if wait is not None:
            del self.waits[waiter_id]
            self.unwatch(wait.object_ids, wait.waiter_id)
            if wait.is_taking:
                self._unpin(wait)
            else:
                self._wake(wait)
        else:
            wait = self.covered.pop(waiter_id, None)
        if wait is None:
            self._context.count_stale("abandoned wait that was over")
        else:
            # A task that was given to this thread in the same moment goes to another one.
            self.go_on(wait.task_id, wait.run)

    def unwatch(self, object_ids: Iterable[int], waiter_id: int) -> None:
        """A waiter, or a watch, is not to be told of these objects any more."""
        for object_id in object_ids:
            record = self._references.find(object_id)
            if record is None:
                continue
            if record.watchers is not None:
                record.watchers.pop(-waiter_id, None)
            self.copies.unwatch(record.bytes_id, -waiter_id)

    def go_on(self, task_id: int, run: Run | None) -> None:
        """A task, or a driver (as 0), does not wait any more."""
        if task_id:
            if run is not None:
                self._runs.unblock(run)
        elif self._scheduler.driver_goes_on() and self._scheduler.grants:
            self._runs.hand_back_all()

    def _wake(self, wait: Wait, failure: Failure | None = None) -> None:
        object_ids: list[int] = []
        values: list[Value] = []
        owned, find, n_wanted, has_places = self._owned, self._references.find, wait.n_wanted, False
        for object_id in wait.object_ids:
            record = owned.get(object_id) or find(object_id)
            assert record is not None
            if failure is not None and record.state == STORED:
                value: Value = failure
            elif record.state == INLINE:
                value = record.payload
            elif wait.seen is not None and object_id in wait.seen:
                value = None
            elif self.is_ready(record, wait.is_fetching):
                value = self.value_of(record, is_fetching=wait.is_fetching and wait.is_taking)
                has_places |= type(value) is Place
            else:
                continue
            object_ids.append(object_id)
            values.append(value)
            if len(values) == n_wanted:
                break
        self._context.effects.append(WakeWaiter(wait.waiter_id, object_ids, values, has_places))
        if wait.pinned:
            self._unpin(wait)

    def value_of(self, record: Record, *, is_fetching: bool) -> Value:
        """What a waiter, or a watch, is told of an object that is ready."""
        if record.payload is not None:
            return record.payload
        if record.failure is None and is_fetching:
            copy = self.copies.find(record.bytes_id)
            assert copy is not None
            return copy.failure or self.copies.open_view(copy)
        return record.failure

    def open_at_hand(self, object_id: int) -> Place | None:
        """What a wait does for a stored object alone that is held here, if its bytes are at hand.

        A view of what it gives is to be opened.
        """
        record = self._references.find(object_id)
        if record is None or record.state != STORED:
            return None
        copy = self.copies.copies.get(record.bytes_id)
        if copy is None or copy.state not in (LENT, LOCAL):
            return None
        copy.is_held = True
        return self.copies.open_view(copy)

    # -- running what is waited for ----------------------------------------------------------------------------------

    def _run_one(self, wait: Wait) -> None:
        """Let the thread run the next task that it waits for, if there is one."""
        object_ids, find = wait.object_ids, self._references.find
        while wait.cursor < len(object_ids):
            record = find(object_ids[wait.cursor])
            if isinstance(record, OwnedObject) and record.state == PENDING:
                if self._scheduler.n_slots_free <= 0:
                    return
                if self._try(wait, record):
                    return
            wait.cursor += 1

    def _try(self, wait: Wait, record: OwnedObject) -> bool:
        """Run the task that makes the object, if that can be now; gives whether the thread runs it."""
        runs, tasks = self._runs, self._tasks
        run = runs.runs.get(record.task_id)
        task = tasks.maker_to_run(record) if run is None else None
        if run is not None and run.state == READY and run.room is self._scheduler:
            template = run.template
        elif task is not None:
            template = task.template.template
        else:
            return False
        if not self._scheduler.fits_resources(template.resources):
            return False
        waiter_id = wait.waiter_id
        if template.n_returns == STREAMING:
            # Held back, a generator would keep the stack of its own consumer. A lease finds it a thread of its own;
            # where there are too many threads for leases, it is the lesser evil to start one more.
            if not self._scheduler.is_full or not self._scheduler.lends_to(self._context.rank):
                return False
            waiter_id = 0
        if task is not None:
            has_started = runs.start_inline(tasks.take_to_run(task), waiter_id)
        else:
            assert run is not None
            has_started = runs.start_ready(run, waiter_id)
        if not has_started or not waiter_id:
            return False
        wait.state = self._next[wait.state, "run"]
        return True

    def on_run_ended(self, waiter_id: int) -> None:
        """The thread has run a task to its end, so it goes on if its wait is over."""
        wait = self.waits.get(waiter_id)
        if wait is not None:
            wait.state = self._next[wait.state, "run ended"]
            return
        wait = self.covered.pop(waiter_id, None)
        if wait is None:
            self._context.count_stale("end of a task of an abandoned wait")
        else:
            wait.state = self._next[wait.state, "run ended"]
            self.go_on(wait.task_id, wait.run)

    def run_next(self, waiter_id: int) -> None:
        """The thread has run a task, whose end has been told; if it still waits, it may run the next."""
        wait = self.waits.get(waiter_id)
        if wait is not None and wait.may_run and wait.state == WAITING:
            self._run_one(wait)

    def offer(self, task_id: int) -> bool:
        """A task found no room: if a thread here waits for it and does nothing else, it may run it.

        Without a task (0), any waiting thread may run what it waits for. Gives whether a thread runs the task.
        """
        if not task_id:
            for idle in list(self.waits.values()):
                if idle.may_run and idle.state == WAITING:
                    idle.cursor = 0
                    self._run_one(idle)
            return False
        task = self._tasks.tasks.get(task_id)
        if task is None:
            return False
        names = self._references.names
        for object_id in task.return_ids:
            record = self._references.find(names.get(object_id, object_id))
            if not isinstance(record, OwnedObject) or record.state != PENDING or not record.watchers:
                continue
            for watcher in record.watchers:
                wait = self.waits.get(-watcher)
                if wait is None or not wait.may_run or wait.state != WAITING or self._scheduler.n_slots_free <= 0:
                    continue
                return self._try(wait, record)
        return False

    def check(self) -> None:
        """Assert what must hold between turns."""
        for wait in self.waits.values():
            if wait.n_ready >= wait.n_wanted:
                raise InvariantError(f"Waiter {wait.waiter_id} has all that it wants and was not woken.")
            if not all(self.copies.copies[object_id].is_at_hand for object_id in wait.pinned or ()):
                raise InvariantError(f"Waiter {wait.waiter_id} has counted what is not here: {wait.pinned}.")
