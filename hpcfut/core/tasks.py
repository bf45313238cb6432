"""Tasks: what this rank submitted, from the call to the last reply.

A task waits until its arguments are ready somewhere, is queued under its scheduling key (``leases.py``), is pushed to a
rank, and ends there; or comes back, because the rank had no room, or because it raised something that is retried. The
arguments and everything nested in them are held from submission to the final end, which covers the executor. If an
argument is lost before the task begins, it waits once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container

from hpcfut.core.addresses import Addresses
from hpcfut.core.context import Context
from hpcfut.core.events import MethodCalled, TaskSubmitted
from hpcfut.core.footprints import Footprints
from hpcfut.core.items import Items
from hpcfut.core.lease import KeyQueue
from hpcfut.core.leases import Leases
from hpcfut.core.lineage import Lineage
from hpcfut.core.membership import Membership
from hpcfut.core.ownership import FAILED as OBJECT_FAILED
from hpcfut.core.ownership import INLINE, PENDING, STORED, OwnedObject
from hpcfut.core.references import Record, References
from hpcfut.core.task import QUEUED, TRANSITIONS, WAITING, TaskRecord
from hpcfut.core.templates import Templates
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import CANCELLED, UNSCHEDULABLE, Failure
from hpcfut.model.ids import name_of
from hpcfut.model.template import STREAMING
from hpcfut.wire.messages import (
    TaskDone,
    TaskPushed,
    TaskRaised,
    TaskReturned,
    TasksHandedBack,
)

READY_STATES = (INLINE, STORED)


class Tasks:
    """The table of tasks that this rank submitted."""

    def __init__(
        self,
        context: Context,
        references: References,
        templates: Templates,
        leases: Leases,
        addresses: Addresses,
        membership: Membership,
        lineage: Lineage,
    ) -> None:
        self.footprints = Footprints(references, membership)
        self._context = context
        self._next = context.make_table("task", TRANSITIONS)
        self._on_queue, self._on_return = self._next.on("queue"), self._next.on("return")
        self._references = references
        self._owned = references.ownership.objects
        self._templates = templates
        self._leases = leases
        self._addresses = addresses
        addresses.fail = lambda task, failure: self.fail(task, failure, "give up" if task.state == QUEUED else "fail")
        self._membership = membership
        self._lineage = lineage
        self.tasks: dict[int, TaskRecord] = {}
        self.items = Items(context, references, lineage, self.tasks)
        #: Told of an argument that is lost; gives why it cannot be made again, if so. Bound in ``recovery.py``.
        self.on_lost: Callable[[Record, Failure], Failure | None] = lambda record, failure: failure
        #: Told how a constructor has ended: on which rank, or why it has failed. Bound in ``actors.py``.
        self.on_constructed: Callable[[int, int | Failure], None]
        #: Parent → its children that have not ended.
        self.children: dict[int, dict[int, None]] = {}

    # -- submission --------------------------------------------------------------------------------------------------

    def submit(self, event: TaskSubmitted) -> None:
        """User code called a remote function."""
        template = self._templates.own[event.template_id]
        template.n_tasks += 1
        queue = template.queue
        if queue is None:
            queue = template.queue = self._leases.queue_of(template.template.key)
        task_id = event.task_id
        task = TaskRecord(
            task_id, template, event.payload, event.return_ids, event.arguments, event.nested, event.parent
        )
        owned = self._owned
        for object_id in event.return_ids:
            owned[object_id] = OwnedObject(object_id, PENDING, 1, 0, task_id)
        if template.template.n_returns == STREAMING:
            task.items = deque(event.return_ids)
            task.return_ids = ()
        self.tasks[task_id] = task
        if event.parent:
            self.children.setdefault(event.parent, {})[task_id] = None
        if event.arguments or event.nested or not queue.candidates:
            self._begin(task, queue)
        else:
            self._enqueue(task, queue)

    def make(self, event: TaskSubmitted | MethodCalled) -> TaskRecord:
        """The record of a call; its results are for the caller to note."""
        template = self._templates.own[event.template_id]
        template.n_tasks += 1
        task = TaskRecord(
            event.task_id, template, event.payload, event.return_ids, event.arguments, event.nested, event.parent
        )
        if template.template.n_returns == STREAMING:
            task.items, task.return_ids = deque(event.return_ids), ()
        self.tasks[event.task_id] = task
        return task

    def repeat(self, event: TaskSubmitted, n_retries: int, n_items: int) -> TaskRecord:
        """A call is made once more, to make results that are lost; of a generator, not the first ``n_items``."""
        task = self.make(event)
        task.n_retries, task.n_items = n_retries, n_items
        for object_id in event.return_ids:
            if object_id:  # An item that is not wanted has none.
                self._owned[object_id] = OwnedObject(object_id, PENDING, 1, 0, event.task_id)
        assert task.template.queue is not None
        self._begin(task, task.template.queue)
        return task

    def _begin(self, task: TaskRecord, queue: KeyQueue) -> None:
        self._references.hold_all(task.nested)
        failure = self.look_at_arguments(task, 1)
        if not queue.candidates and not self._membership.is_awaited(queue.key):
            sentence = self._membership.why_unschedulable(task.template.template.name, queue.key)
            failure = failure or Failure(UNSCHEDULABLE, sentence)
        if failure is not None:
            self.fail(task, failure, "fail")
        elif task.n_missing:
            task.state = self._next[task.state, "wait"]
        elif task.arguments:
            self._enqueue_near(task, queue)
        else:
            self._enqueue(task, queue)

    def look_at_arguments(self, task: TaskRecord, n_holds: int) -> Failure | None:
        """Hold the arguments so many times more, and wait for those that are not ready; gives why one will never be."""
        references, owned = self._references, self._owned
        failure = None
        for object_id in task.arguments:
            record: Record = owned.get(object_id) or references.ensure(object_id)
            record.n_uses += n_holds
            if record.state in READY_STATES:
                continue
            if record.state == OBJECT_FAILED:
                failure = failure or record.failure
                continue
            references.ask(record)
            if record.watchers is None:
                record.watchers = {}
            if task.task_id not in record.watchers:
                record.watchers[task.task_id] = None
                task.n_missing += 1
        return failure

    def _enqueue(self, task: TaskRecord, queue: KeyQueue) -> None:
        task.state = self._on_queue[task.state]
        self._leases.enqueue(task, queue)
        if task.state == QUEUED:
            self._context.runnable.append(task.task_id)

    def _enqueue_near(self, task: TaskRecord, queue: KeyQueue) -> None:
        if len(task.arguments) > 1 and (failure := self.footprints.misfit_of(task, queue.candidates)) is not None:
            self.fail(task, failure, "fail")
            return
        task.state = self._on_queue[task.state]
        self._leases.enqueue_near(task, queue)
        if task.state == QUEUED:
            self._context.runnable.append(task.task_id)

    def on_argument_ready(self, task_id: int, object_id: int) -> None:
        """An object that this task has as argument is ready, or has failed."""
        task = self.tasks[task_id]
        record = self._references.find(object_id)
        assert record is not None
        if record.failure is not None:
            self.fail(task, record.failure, "fail")
            return
        task.n_missing -= 1
        if not task.n_missing and task.address is not None:
            task.state = self._on_queue[task.state]
            self._addresses.flush(task.address)
        elif not task.n_missing:
            assert task.template.queue is not None
            self._enqueue_near(task, task.template.queue)

    # -- the end -----------------------------------------------------------------------------------------------------

    def on_done(self, source: int, message: TaskDone) -> None:
        """The common end: one small value without refs."""
        task_id = message.task_id
        task = self.tasks.pop(task_id)
        task.state = self._on_return[task.state]
        record = self._owned[task_id]
        self._references.ownership.set_inline(record, message.payload, ())
        if record.askers is not None or not record.n_local:
            self._references.after_resolving(record)
        if record.watchers:
            # Whoever waits for this result goes on first.
            self._context.put_off.append((self._settle, task))
        else:
            self._settle(task)

    def on_returned(self, source: int, message: TaskReturned) -> None:
        """The task returned."""
        task = self.tasks[message.task_id]
        self._references.report_all(message.borrowed, source)
        task.state = self._next[task.state, "return"]
        has_stored = False
        for object_id, result in zip(task.return_ids, message.results, strict=True):
            self._references.resolve(object_id, result, source)
            has_stored |= result.payload is None
        if has_stored:
            self._lineage.keep(task)
        if task.items is not None:
            self.items.end(task, None)
        self._finish(task)
        if task.template.template.actor is not None:
            self.on_constructed(task.task_id, source)

    def on_raised(self, source: int, message: TaskRaised) -> None:
        """The task failed; it is tried again if its template says so."""
        task = self.tasks[message.task_id]
        self._references.report_all(message.borrowed, source)
        failure = message.failure
        if message.lost:
            if task.is_cancelled:
                self.cancel_here(task)
                return
            reason = self._lose_argument(task, message.lost, failure)
            if reason is None:
                self.come_back(task, "hand back")
                return
            failure = reason
        if message.retriable and task.n_retries < task.template.template.n_retries_max and not task.is_cancelled:
            task.n_retries += 1
            self.come_back(task, "retry")
            return
        self.fail(task, failure, "cancel" if failure.kind == CANCELLED else "fail")

    def _lose_argument(self, task: TaskRecord, bytes_id: int, failure: Failure) -> Failure | None:
        """The rank that was to run a task cannot have these bytes; by now there may be others."""
        for object_id in dict.fromkeys(task.arguments):
            record = self._references.find(object_id)
            if record is not None and record.state == STORED and record.bytes_id == bytes_id:
                return self.on_lost(record, failure)
        return None

    def come_back(self, task: TaskRecord, how: str) -> None:
        """A task that was pushed is to be tried again."""
        if task.address is not None:
            self.put_back(task, how)
            self._addresses.flush(task.address)
            return
        queue = task.template.queue
        assert queue is not None
        if task.lease_id:  # First, because the task may still stand in the queue, from where it was pushed.
            lease_id, task.lease_id = task.lease_id, 0
            self._leases.task_left(lease_id)
        self.put_back(task, how)
        self._leases.pump(queue)
        if task.state == QUEUED:
            self._context.runnable.append(task.task_id)

    def put_back(self, task: TaskRecord, how: str) -> None:
        """A task that was pushed, and has no lease any more, is queued again, or waits for its arguments once more."""
        task.state = self._next[task.state, how]
        if task.address is not None:
            self._addresses.requeue(task, task.address)
        else:
            assert task.template.queue is not None
            self._leases.requeue(task, task.template.queue)
        if task.arguments:
            self._wait_again(task)

    def _wait_again(self, task: TaskRecord) -> None:
        """Arguments of a task that has not begun may not be ready any more."""
        failure = self.look_at_arguments(task, 0)
        if task.state == QUEUED and (failure is not None or task.n_missing):
            self.take(task)
            task.awaits = -1
            task.state = self._next[task.state, "lose argument"]
        if failure is not None:
            self.fail(task, failure, "fail")

    def wait_again(self, lost: Container[int]) -> None:
        """These objects are not ready any more, because they were lost: what is to be given one has to wait."""
        for task in list(self.tasks.values()):
            if task.arguments and task.state in (QUEUED, WAITING) and any(ref in lost for ref in task.arguments):
                self._wait_again(task)

    def on_handed_back(self, source: int, message: TasksHandedBack) -> None:
        """A rank had no room for these tasks."""
        queue: KeyQueue | None = None
        for task_id in reversed(message.task_ids):
            task = self.tasks[task_id]
            if task.is_cancelled:
                self.cancel_here(task)
                continue
            queue = task.template.queue
            assert queue is not None
            lease_id, task.lease_id = task.lease_id, 0
            self.put_back(task, "hand back")
            if lease_id:
                self._leases.task_left(lease_id, came_back=True)
        if queue is not None:
            self._leases.pump(queue)
            self._context.runnable.extend(message.task_ids)

    def _finish(self, task: TaskRecord) -> None:
        """Forget a task for good."""
        del self.tasks[task.task_id]
        self._settle(task)

    def _settle(self, task: TaskRecord) -> None:
        """Give back what an ended task held."""
        if task.parent:
            children = self.children[task.parent]
            del children[task.task_id]
            if not children:
                del self.children[task.parent]
        if task.arguments:
            self._references.drop_all(task.arguments)
        if task.nested:
            self._references.drop_all(task.nested)
        template = task.template
        template.n_tasks -= 1
        if template.is_dropped:
            self._templates.forget_if_unused(template)
        if task.lease_id:
            self._leases.task_left(task.lease_id)
        elif task.address is not None:
            self._addresses.call_ended(task, task.address)

    def fail(self, task: TaskRecord, failure: Failure, how: str) -> None:
        """The task's results will never exist."""
        if task.n_missing:
            for object_id in task.arguments:
                record = self._references.find(object_id)
                if record is not None and record.watchers is not None:
                    record.watchers.pop(task.task_id, None)
        task.state = self._next[task.state, how]
        for object_id in task.return_ids:
            self._references.fail(object_id, failure)
        if task.items is not None:
            self.items.end(task, failure)
        self._finish(task)
        if task.template.template.actor is not None:
            self.on_constructed(task.task_id, failure)

    def take(self, task: TaskRecord) -> None:
        """Take a task out of its queue; a call leaves that by itself."""
        if task.address is None:
            self._leases.take(task)

    def cancel_here(self, task: TaskRecord) -> None:
        """A task that has not been pushed is cancelled."""
        name = task.template.template.name
        failure = Failure(CANCELLED, f"Task {name_of(task.task_id)} ({name}) was cancelled before it started.")
        self.fail(task, failure, "cancel")

    # -- running on the spot -----------------------------------------------------------------------------------------

    def maker_to_run(self, record: OwnedObject) -> TaskRecord | None:
        """The task that makes a pending object, if it waits in the queue and this rank could run it."""
        task = self.tasks.get(record.task_id)
        if task is None or task.state != QUEUED or task.address is not None:
            return None
        queue = task.template.queue
        assert queue is not None
        own = self._context.rank
        # What waits for another rank does so for a moment, and would here have its arguments moved.
        return task if own in queue.candidates and task.awaits in (-1, own) else None

    def take_to_run(self, task: TaskRecord) -> TaskPushed:
        """Take a task out of the queue, to run it here without a lease."""
        self._leases.take(task)
        task.state = self._next[task.state, "push"]
        task.rank = self._context.rank
        task.lease_id = 0
        return self._leases.message_of(task)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for task_id, task in self.tasks.items():
            if (task.state == WAITING) != bool(task.n_missing):
                raise InvariantError(f"Task {name_of(task_id)} is {task.state}, and misses {task.n_missing} arguments.")
            for object_id in task.return_ids:
                record = self._owned.get(object_id)
                if record is None or record.state != PENDING:
                    raise InvariantError(
                        f"Task {name_of(task_id)} runs; its result {name_of(object_id)} does not wait."
                    )
