"""Cancelled runs: what this rank does about a run that is to end before its time, and about what that has submitted."""

from __future__ import annotations

from hpcfut.core.cancellations import Cancellations
from hpcfut.core.context import Context
from hpcfut.core.effects import InterruptTask
from hpcfut.core.run import FETCHING, READY, Run
from hpcfut.core.runs import Runs
from hpcfut.model.failure import CANCELLED, Failure
from hpcfut.model.ids import name_of
from hpcfut.wire.messages import TaskCancelled


class CancelledRuns:
    """Drops them, or interrupts them."""

    def __init__(self, context: Context, cancellations: Cancellations, runs: Runs) -> None:
        self._context = context
        self._cancellations = cancellations
        self._runs = runs

    def on_cancelled(self, source: int, message: TaskCancelled) -> None:
        """The owner of a run wants it to end."""
        self.cancel(message.task_id, is_recursive=message.recursive, is_forced=message.forced)

    def cancel(self, task_id: int, *, is_recursive: bool, is_forced: bool = False) -> None:
        """Have a run end: drop it if it has not started, interrupt it if it has.

        ``is_recursive``: what it has submitted, and submits until it ends, is cancelled, too. ``is_forced``: end its
        process.
        """
        run = self._runs.runs.get(task_id)
        if run is None:
            self._context.count_stale("cancellation of an ended run")
        else:
            run.is_cancelled_below |= is_recursive
            if not run.is_cancelled or is_forced:
                run.is_cancelled = True
                self._end(run, is_forced=is_forced)
        if is_recursive:
            self._cancellations.cancel_children(task_id)

    def _end(self, run: Run, *, is_forced: bool) -> None:
        if run.state not in (FETCHING, READY):
            self._context.effects.append(InterruptTask(run.task_id, is_forced))
            return
        if run.state == READY:
            run.room.remove_ready(run)
        name = f"{name_of(run.task_id)} ({run.template.name})"
        self._runs.drop(run, Failure(CANCELLED, f"Task {name} was cancelled before it started."))
