"""Disowned runs: methods that run when their actor is dismissed, or could never end.

They are interrupted, and fail, whatever they return. The caller of one that may not be tried again is answered at once,
because its code may take long to end; what it is covered for is reported then, and its template stays until it has
ended. One that may be tried again is answered when it has ended: it would else come back, under the same id, to a rank
where it runs still.
"""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.effects import InterruptTask
from hpcfut.core.references import References
from hpcfut.core.run import Run
from hpcfut.core.runs import Runs
from hpcfut.core.templates import Templates
from hpcfut.model.failure import Failure
from hpcfut.model.ids import owner_of
from hpcfut.wire.messages import Result, TaskRaised


class DisownedRuns:
    """See the module's docstring."""

    def __init__(
        self, context: Context, references: References, copies: Copies, templates: Templates, runs: Runs
    ) -> None:
        self._context = context
        self._references = references
        self._copies = copies
        self._templates = templates
        self._runs = runs
        runs.on_disowned_end = self._end

    def disown(self, run: Run, failure: Failure, *, is_final: bool = False) -> None:
        """The actor of a running method is dismissed; or (final) the method could never end."""
        if self._is_orphan(run):
            return  # It has been cancelled, and nobody waits for it.
        if run.template.n_retries_max and not is_final:
            run.farewell = failure
        else:
            self._answer(run, failure)
        run.is_disowned = True
        if not run.is_cancelled:
            run.is_cancelled = True
            self._context.effects.append(InterruptTask(run.task_id, False))

    def _is_orphan(self, run: Run) -> bool:
        return run.owner != self._context.rank and run.owner in self._context.apart

    def _answer(self, run: Run, failure: Failure) -> None:
        own, borrowed = self._context.rank, []
        for object_id in run.covered:
            if own not in (run.owner, owner_of(object_id)):
                self._references.accept(object_id, run.owner)
                borrowed.append(object_id)
        self._templates.keep(run.template.template_id)
        self._context.send(run.owner, TaskRaised(run.task_id, failure, False, tuple(borrowed)))

    def _end(self, run: Run, results: tuple[Result, ...]) -> Run:
        for object_id, result in zip(run.return_ids, results, strict=False):
            if result.payload is None:
                self._copies.discard(object_id)
        if run.farewell is not None:
            self._context.send(run.owner, TaskRaised(run.task_id, run.farewell, True, self._runs.end(run)))
        else:
            self._runs.end(run, is_reported=False)
            self._templates.release(run.template.template_id)
            if self._is_orphan(run):
                # What its owner had here for it goes when this comes back.
                self._context.send(run.owner, TaskRaised(run.task_id, Failure(""), False))
        self._runs.go_on_after(run)
        return run
