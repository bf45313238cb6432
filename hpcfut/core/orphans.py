"""Orphans: runs on this rank whose owner is dead. They share its fate, because nobody waits for them any more.

What has not started never will. What runs is cancelled, with all that it has submitted; until it ends it keeps its
slot, what it is covered for, and its function. Its end is told to the dead, from whom it comes back (``deaths.py``);
what it has stored for its owner goes then.
"""

from __future__ import annotations

from hpcfut.core.cancellations import Cancellations
from hpcfut.core.cancelled_runs import CancelledRuns
from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.membership import Membership
from hpcfut.core.run import BLOCKED, FETCHING, READY, RUNNING
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.templates import Templates
from hpcfut.model.errors import InvariantError
from hpcfut.model.ids import name_of, owner_of
from hpcfut.wire.messages import ItemYielded, Result, TaskDone, TaskRaised, TaskReturned, TasksHandedBack

#: What this rank tells the owner of a run about it.
Told = ItemYielded | TaskDone | TaskRaised | TaskReturned | TasksHandedBack


class Orphans:
    """Ends them, and forgets what their owner had here for them."""

    def __init__(
        self,
        context: Context,
        templates: Templates,
        copies: Copies,
        membership: Membership,
        cancellations: Cancellations,
        scheduler: Scheduler,
        runs: Runs,
        cancelled: CancelledRuns,
    ) -> None:
        self._context = context
        self._templates = templates
        self._copies = copies
        self._membership = membership
        self._cancellations = cancellations
        self._scheduler = scheduler
        self._runs = runs
        self._cancelled = cancelled

    def forget_owner(self, rank: int) -> None:
        """A rank is dead: nothing that it has called starts, or is waited for, and its leases here are no more."""
        runs = [run for run in self._runs.runs.values() if run.owner == rank]
        dropped = [run for run in runs if run.state in (FETCHING, READY)]
        for run in dropped:
            if run.state == READY:
                run.room.remove_ready(run)
        self._runs.hand_back(dropped)
        for run in runs:
            if run.task_id in self._runs.runs:
                self._cancelled.cancel(run.task_id, is_recursive=True)
        self._scheduler.forget_owner(rank)
        self._withdraw(rank)
        self._forget_templates(rank)

    def covered(self, owner: int) -> list[int]:
        """What those of a dead rank that have not ended are covered for."""
        return [object_id for run in self._runs.runs.values() if run.owner == owner for object_id in run.covered]

    def on_undelivered(self, rank: int, message: Told) -> None:
        """What a run was to tell its owner, which is dead: this rank does what the owner would have had it do."""
        if isinstance(message, TasksHandedBack):
            return
        results: tuple[Result, ...] = (message.result,) if isinstance(message, ItemYielded) else ()
        if isinstance(message, TaskReturned):
            results = message.results
        if any(result.payload is None for result in results):
            self._withdraw(rank)
        if not isinstance(message, ItemYielded):
            self._cancellations.cancel_children(message.task_id)
            self._forget_templates(rank)

    def _withdraw(self, rank: int) -> None:
        """What is stored here for a dead owner nobody will free."""
        for copy in list(self._copies.copies.values()):
            if copy.is_primary and copy.is_held and owner_of(copy.object_id) == rank:
                self._copies.withdraw(copy.object_id)

    def _forget_templates(self, rank: int) -> None:
        in_use = {run.template.template_id: None for run in self._runs.runs.values() if run.owner == rank}
        self._templates.forget_owner(rank, in_use)

    def check(self) -> None:
        """Assert what must hold between turns."""
        dead = self._membership.deaths
        for task_id, run in self._runs.runs.items():
            if run.owner in dead and not (run.is_cancelled and run.state in (RUNNING, BLOCKED)):
                raise InvariantError(
                    f"Run {name_of(task_id)} is {run.state}, and was not cancelled; its owner is dead."
                )
        if any(owner in dead for owner, _ in self._scheduler.grants):
            raise InvariantError(f"The dead have leases on rank {self._context.rank}: {list(self._scheduler.grants)}.")
