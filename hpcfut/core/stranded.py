"""Stranded tasks: those of this rank that were on another one when it died.

Nobody knows which of them had begun, so each of them counts as an attempt that has failed: it is tried again if it may,
and fails if it may not. That a rank runs only so many at a time bounds nothing: replies of those that had ended, any
number up to the depth of the lease, may have died with it, and with something blocked there the newest start first.
What a generator had told until then stays, and another attempt makes it for nobody. Whatever they were sent, the dead
rank may have handed on; so the owners are told of it as a borrower before the tasks let go.
"""

from __future__ import annotations

from hpcfut.core.addresses import Addresses
from hpcfut.core.context import Context
from hpcfut.core.leases import Leases
from hpcfut.core.membership import Membership
from hpcfut.core.task import PUSHED, QUEUED, WAITING, TaskRecord
from hpcfut.core.tasks import Tasks
from hpcfut.core.templates import Templates
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import ACTOR_DIED, ACTOR_UNAVAILABLE, CANCELLED, CRASHED, UNSCHEDULABLE, Failure
from hpcfut.model.ids import NO_ID, name_of


class Stranded:
    """What becomes of them, and of the leases and templates that took them there."""

    def __init__(
        self,
        context: Context,
        templates: Templates,
        membership: Membership,
        leases: Leases,
        addresses: Addresses,
        tasks: Tasks,
    ) -> None:
        self._context = context
        self._templates = templates
        self._membership = membership
        self._leases = leases
        self._addresses = addresses
        self._tasks = tasks

    def leave(self, rank: int) -> list[TaskRecord]:
        """A rank is dead: no task is under a lease there, and none will go there; gives those that are there."""
        self._templates.forget_knower(rank)
        self._leases.forget_rank(rank)
        self._addresses.on_rank_lost(rank)
        tasks = [task for task in self._tasks.tasks.values() if task.state == PUSHED and task.rank == rank]
        for task in tasks:
            task.lease_id = 0
        return tasks

    def come_back(self, tasks: list[TaskRecord]) -> None:
        """The tasks that were there are tried again, or end; what they need and was stored there is pending by now."""
        for task in reversed(tasks):  # Each goes to the front of its queue.
            template = task.template.template
            if task.is_cancelled:
                self._tasks.fail(task, Failure(CANCELLED, f"{self._story_of(task)} It had been cancelled."), "cancel")
            elif task.n_retries < template.n_retries_max:
                task.n_retries += 1
                self._tasks.put_back(task, "retry")
            else:
                kind = CRASHED
                if task.address is not None:
                    kind = ACTOR_UNAVAILABLE if task.address.is_lasting else ACTOR_DIED
                self._tasks.fail(task, Failure(kind, f"{self._story_of(task)} {_why_not_again(task)}"), "fail")
        for task in tasks:
            if task.address is not None:
                self._addresses.flush(task.address)
        self.look_again()
        # Threads that wait may run what has come back, and what waited for a lease of the dead rank.
        self._context.runnable.append(NO_ID)

    def look_again(self) -> None:
        """Ranks have died, or come, or come no more: what waits may find room, or never will."""
        self._leases.look_again()
        for task in list(self._tasks.tasks.values()):
            template, queue = task.template.template, task.template.queue
            if queue is None:
                continue  # A call of a method goes where its actor is.
            if queue.candidates or task.state not in (QUEUED, WAITING) or self._membership.is_awaited(queue.key):
                continue
            if task.state == QUEUED:
                self._leases.take(task)
            failure = Failure(UNSCHEDULABLE, self._membership.why_unschedulable(template.name, queue.key))
            self._tasks.fail(task, failure, "give up" if task.state == QUEUED else "fail")

    def _story_of(self, task: TaskRecord) -> str:
        name = f"{name_of(task.task_id)} ({task.template.template.name})"
        return f"Task {name} was on rank {task.rank} when that died. {self._membership.obituary(task.rank)}."

    def check(self) -> None:
        """Assert what must hold between turns."""
        for task_id, task in self._tasks.tasks.items():
            if task.state == PUSHED and task.rank in self._membership.deaths:
                raise InvariantError(f"Task {name_of(task_id)} is on rank {task.rank}, which is dead.")
        for template_id, record in self._templates.own.items():
            if any(rank in self._membership.deaths for rank in record.known):
                raise InvariantError(f"Template {template_id} is known to the dead: {record.known}.")


def _why_not_again(task: TaskRecord) -> str:
    if task.address is not None:
        option = "the actor's class may have max_task_retries=N, and max_restarts=N"
        return f"It may have begun, and is called at most once unless told otherwise: {option}."
    has_had = f"It has had its {task.n_retries} retries." if task.n_retries else "It may not be tried again."
    return f"{has_had} Allow more: @remote(max_retries=N), or options(max_retries=N)."
