"""Cancellations: tasks of this rank that are to end before their time, and what they have submitted.

A task that has not been pushed ends at once. Of any other the executor is told, and its reply is the end.
"""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.references import References
from hpcfut.core.task import PUSHED, QUEUED, TaskRecord
from hpcfut.core.tasks import Tasks
from hpcfut.model.failure import UNSCHEDULABLE, Failure
from hpcfut.model.ids import owner_of
from hpcfut.wire.actors import MethodGivenUp
from hpcfut.wire.messages import CancelAsked, TaskCancelled


class Cancellations:
    """See the module's docstring."""

    def __init__(self, context: Context, references: References, tasks: Tasks) -> None:
        self._context = context
        self._owned = references.ownership.objects
        self._tasks = tasks

    def cancel_maker(self, object_id: int, is_recursive: bool, is_forced: bool) -> None:
        """Cancel the task that makes this object (for a generator: the task of this id), wherever it is owned."""
        owner = owner_of(object_id)
        if owner != self._context.rank:
            self._context.demand_rank(owner)
            self._context.send(owner, CancelAsked(object_id, is_recursive, is_forced))
            return
        record = self._owned.get(object_id)
        task = self._tasks.tasks.get(record.task_id if record is not None else object_id)
        if task is None:
            self._context.count_stale("cancellation of an ended task")
        else:
            self.cancel(task, is_recursive=is_recursive, is_forced=is_forced)

    def cancel_children(self, parent: int) -> None:
        """Cancel what a task of this rank submitted, and what that submitted."""
        for task_id in list(self._tasks.children.get(parent, ())):
            task = self._tasks.tasks.get(task_id)
            if task is not None:
                self.cancel(task, is_recursive=True)

    def cancel(self, task: TaskRecord, *, is_recursive: bool, is_forced: bool = False) -> None:
        """Cancel a task, wherever it is."""
        if task.state == PUSHED:
            if not task.is_cancelled or is_recursive or is_forced:
                task.is_cancelled = True
                self._context.send(task.rank, TaskCancelled(task.task_id, is_recursive, is_forced))
            return
        if task.state == QUEUED:
            self._tasks.take(task)
        self._tasks.cancel_here(task)

    def give_up(self, task_id: int, sentence: str) -> None:
        """A queued task can never start, because those that hold what it needs wait for it."""
        task = self._tasks.tasks.get(task_id)
        if task is not None and task.state == PUSHED and task.address is not None:
            self._context.send(task.rank, MethodGivenUp(task_id, Failure(UNSCHEDULABLE, sentence)))
            return
        if task is None or task.state != QUEUED:
            self._context.count_stale("standstill that was over")
            return
        self._tasks.take(task)
        self._tasks.fail(task, Failure(UNSCHEDULABLE, sentence), "give up")
