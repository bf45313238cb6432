"""Tasks: what this rank submitted, from the call to the last reply.

A task waits until its arguments are ready somewhere, is queued under its scheduling key (``leases.py``), is pushed to a
rank, and ends there; or comes back, because the rank had no room, or because it raised something that is retried. The
arguments and everything nested in them are held from submission to the final end, which covers the executor.
"""

from __future__ import annotations

from collections import deque

from hpcfut.core.context import Context
from hpcfut.core.events import StreamAdvanced, StreamEndWanted, TaskSubmitted
from hpcfut.core.footprints import Footprints
from hpcfut.core.lease import KeyQueue
from hpcfut.core.leases import Leases
from hpcfut.core.membership import Membership
from hpcfut.core.ownership import FAILED as OBJECT_FAILED
from hpcfut.core.ownership import INLINE, PENDING, STORED, OwnedObject
from hpcfut.core.references import Record, References
from hpcfut.core.task import PUSHED, QUEUED, TRANSITIONS, WAITING, TaskRecord
from hpcfut.core.templates import Templates
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import CANCELLED, ENDED, FULL, LOST, UNSCHEDULABLE, Failure
from hpcfut.model.ids import name_of, owner_of
from hpcfut.model.template import STREAMING
from hpcfut.wire.messages import (
    CancelAsked,
    ItemYielded,
    Result,
    StreamCredit,
    TaskCancelled,
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
        membership: Membership,
    ) -> None:
        self.footprints = Footprints(references, membership)
        self._context = context
        self._next = context.make_table("task", TRANSITIONS)
        self._on_queue, self._on_return = self._next.on("queue"), self._next.on("return")
        self._references = references
        self._owned = references.ownership.objects
        self._templates = templates
        self._leases = leases
        self._membership = membership
        self.tasks: dict[int, TaskRecord] = {}
        #: Generator → objects that are ready when it has ended, with their values.
        self._ends: dict[int, list[tuple[int, Result]]] = {}
        #: Parent → its children that have not ended.
        self._children: dict[int, dict[int, None]] = {}

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
            self._children.setdefault(event.parent, {})[task_id] = None
        failure = self._hold_arguments(task) if event.arguments or event.nested else None
        if not queue.candidates:
            sentence = self._membership.why_unschedulable(template.template.name, queue.key)
            failure = failure or Failure(UNSCHEDULABLE, sentence)
        if failure is not None:
            self._fail(task, failure, "fail")
        elif task.n_missing:
            task.state = self._next[task.state, "wait"]
        elif task.arguments:
            self._enqueue_near(task, queue)
        else:
            self._enqueue(task, queue)

    def _hold_arguments(self, task: TaskRecord) -> Failure | None:
        references, owned = self._references, self._owned
        if task.nested:
            references.hold_all(task.nested)
        failure = None
        for object_id in task.arguments:
            record: Record = owned.get(object_id) or references.ensure(object_id)
            record.n_uses += 1
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
        if len(task.arguments) > 1 and (failure := self._misfit(task, queue)) is not None:
            self._fail(task, failure, "fail")
            return
        task.state = self._on_queue[task.state]
        self._leases.enqueue_near(task, queue)
        if task.state == QUEUED:
            self._context.runnable.append(task.task_id)

    def _misfit(self, task: TaskRecord, queue: KeyQueue) -> Failure | None:
        """Why the arguments can never be in memory together, wherever the task runs."""
        sentence = self.footprints.misfit(task.arguments, queue.candidates)
        if not sentence:
            return None
        name = f"{name_of(task.task_id)} ({task.template.template.name})"
        return Failure(FULL, f"The arguments of task {name} do not fit: {sentence}")

    def on_argument_ready(self, task_id: int, object_id: int) -> None:
        """An object that this task has as argument is ready, or has failed."""
        task = self.tasks[task_id]
        record = self._references.find(object_id)
        assert record is not None
        if record.failure is not None:
            self._fail(task, record.failure, "fail")
            return
        task.n_missing -= 1
        if not task.n_missing:
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
        for object_id, result in zip(task.return_ids, message.results, strict=True):
            self._references.resolve(object_id, result, source)
        self._end_stream(task, None)
        self._finish(task)

    def on_raised(self, source: int, message: TaskRaised) -> None:
        """The task failed; it is tried again if its template says so."""
        task = self.tasks[message.task_id]
        self._references.report_all(message.borrowed, source)
        failure = message.failure
        if message.retriable and task.n_retries < task.template.template.n_retries_max and not task.is_cancelled:
            task.n_retries += 1
            task.state = self._next[task.state, "retry"]
            self._leave_lease(task)
            queue = task.template.queue
            assert queue is not None
            self._leases.requeue(task, queue)
            self._leases.pump(queue)
            if task.state == QUEUED:
                self._context.runnable.append(task.task_id)
            return
        self._fail(task, failure, "cancel" if failure.kind == CANCELLED else "fail")

    def on_handed_back(self, source: int, message: TasksHandedBack) -> None:
        """A rank had no room for these tasks."""
        queue: KeyQueue | None = None
        for task_id in reversed(message.task_ids):
            task = self.tasks[task_id]
            if task.is_cancelled:
                self._cancel_here(task)
                continue
            task.state = self._next[task.state, "hand back"]
            queue = task.template.queue
            assert queue is not None
            self._leases.requeue(task, queue)
            self._leave_lease(task, came_back=True)
        if queue is not None:
            self._leases.pump(queue)
            self._context.runnable.extend(message.task_ids)

    def _leave_lease(self, task: TaskRecord, *, came_back: bool = False) -> None:
        if task.lease_id:
            lease_id, task.lease_id = task.lease_id, 0
            self._leases.task_left(lease_id, came_back=came_back)

    def _finish(self, task: TaskRecord) -> None:
        """Forget a task for good."""
        del self.tasks[task.task_id]
        self._settle(task)

    def _settle(self, task: TaskRecord) -> None:
        """Give back what an ended task held."""
        if task.parent:
            children = self._children[task.parent]
            del children[task.task_id]
            if not children:
                del self._children[task.parent]
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

    def _fail(self, task: TaskRecord, failure: Failure, how: str) -> None:
        """The task's results will never exist."""
        if task.n_missing:
            for object_id in task.arguments:
                record = self._references.find(object_id)
                if record is not None and record.watchers is not None:
                    record.watchers.pop(task.task_id, None)
        task.state = self._next[task.state, how]
        for object_id in task.return_ids:
            self._references.fail(object_id, failure)
        self._end_stream(task, failure)
        self._finish(task)

    # -- cancellation ------------------------------------------------------------------------------------------------

    def cancel_maker(self, object_id: int, is_recursive: bool, is_forced: bool) -> None:
        """Cancel the task that makes this object (for a generator: the task of this id), wherever it is owned."""
        owner = owner_of(object_id)
        if owner != self._context.rank:
            self._context.demand_rank(owner)
            self._context.send(owner, CancelAsked(object_id, is_recursive, is_forced))
            return
        record = self._owned.get(object_id)
        task = self.tasks.get(record.task_id if record is not None else object_id)
        if task is None:
            self._context.count_stale("cancellation of an ended task")
        else:
            self._cancel(task, is_recursive=is_recursive, is_forced=is_forced)

    def cancel_children(self, parent: int) -> None:
        """Cancel what a task of this rank submitted, and what that submitted."""
        for task_id in list(self._children.get(parent, ())):
            task = self.tasks.get(task_id)
            if task is not None:
                self._cancel(task, is_recursive=True)

    def _cancel(self, task: TaskRecord, *, is_recursive: bool, is_forced: bool = False) -> None:
        if task.state == PUSHED:
            if not task.is_cancelled or is_recursive or is_forced:
                task.is_cancelled = True
                self._context.send(task.rank, TaskCancelled(task.task_id, is_recursive, is_forced))
            return
        if task.state == QUEUED:
            self._leases.take(task)
        self._cancel_here(task)

    def give_up(self, task_id: int, sentence: str) -> None:
        """A queued task can never start, because those that hold what it needs wait for it."""
        task = self.tasks.get(task_id)
        if task is None or task.state != QUEUED:
            self._context.count_stale("standstill that was over")
            return
        self._leases.take(task)
        self._fail(task, Failure(UNSCHEDULABLE, sentence), "give up")

    def _cancel_here(self, task: TaskRecord) -> None:
        name = task.template.template.name
        failure = Failure(CANCELLED, f"Task {name_of(task.task_id)} ({name}) was cancelled before it started.")
        self._fail(task, failure, "cancel")

    # -- generators --------------------------------------------------------------------------------------------------

    def on_item(self, source: int, message: ItemYielded) -> None:
        """A generator made its next item."""
        task = self.tasks[message.task_id]
        assert task.items is not None
        task.items.popleft()
        task.n_items += 1
        self._references.resolve(message.object_id, message.result, source)

    def advance(self, event: StreamAdvanced) -> None:
        """The consumer allows further items; the last name stays here for telling the end."""
        for object_id in event.item_ids:
            self._owned[object_id] = OwnedObject(object_id, PENDING, 1, 0, event.task_id)
        task = self.tasks.get(event.task_id)
        if task is None:
            for object_id in event.item_ids:
                self._references.fail(object_id, Failure(ENDED))
            return
        assert task.items is not None
        reserve = task.items[-1]
        task.items.extend(event.item_ids)
        if task.state == PUSHED:
            self._context.send(task.rank, StreamCredit(task.task_id, (reserve, *event.item_ids[:-1])))

    def _end_stream(self, task: TaskRecord, failure: Failure | None) -> None:
        """Names that were given out, but not used, tell the end: first the failure, if there is one, as a last item."""
        if task.items is None:
            return
        items, task.items = task.items, deque()
        ends = self._ends.pop(task.task_id, ())
        for object_id, result in ends:
            self._end_with(object_id, result, failure)
        for object_id in items:
            self._references.fail(object_id, failure or Failure(ENDED))
            failure = None

    def want_end(self, event: StreamEndWanted) -> None:
        """The consumer of a generator wants an object that tells how the task ends."""
        self._owned[event.object_id] = OwnedObject(event.object_id, PENDING, 1, 0, event.task_id)
        if event.task_id in self.tasks:
            self._ends.setdefault(event.task_id, []).append((event.object_id, event.result))
            return
        told = (self._owned[object_id].failure for object_id in event.item_ids)
        last = (failure for failure in told if failure is not None and failure.kind not in (ENDED, LOST))
        self._end_with(event.object_id, event.result, event.failure or next(last, None))

    def _end_with(self, object_id: int, result: Result, failure: Failure | None) -> None:
        if failure is not None:
            self._references.fail(object_id, failure)
        else:
            self._references.resolve(object_id, result, self._context.rank)

    # -- running on the spot -----------------------------------------------------------------------------------------

    def maker_to_run(self, record: OwnedObject) -> TaskRecord | None:
        """The task that makes a pending object, if it waits in the queue and this rank could run it."""
        task = self.tasks.get(record.task_id)
        if task is None or task.state != QUEUED:
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
