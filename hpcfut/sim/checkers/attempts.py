"""A task runs where it may, one attempt at a time, never after it has succeeded, and on no thread but its waiter's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.effects import RunTask
from hpcfut.model.ids import name_of, owner_of
from hpcfut.sim.trace import SimulationError

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Attempts:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def on_run(self, rank: SimRank, effect: RunTask) -> None:
        """An attempt is about to start."""
        world = self._world
        spec = world.truth.specs[effect.task_id]
        first, wrong = spec.first or spec, ""
        # Items of a generator that were lost one after the other are made again side by side.
        others = [first, *first.repeats] if spec.n_returns >= 0 else [spec]
        n_attempts = sum(other.n_attempts for other in others)
        if spec.running_on >= 0:
            wrong = f"runs on rank {spec.running_on} already"
        elif spec.has_succeeded:
            wrong = "has succeeded already"
        elif n_attempts >= spec.n_attempts_max:
            wrong = f"has had all its {spec.n_attempts_max} attempts"
        elif any(other.running_on >= 0 for other in others):
            wrong = "is being run already, to make the same"
        elif not world.may_run(world.templates[spec.template_id], owner_of(spec.task_id), rank.rank):
            wrong = "may not run there"
        elif effect.waiter_id and effect.waiter_id in rank.threads.waiters:
            waiter = rank.threads.waiters[effect.waiter_id]
            assert waiter.wait is not None
            if waiter.thread.stack[-1] is not waiter:
                wrong = f"shall run on the stack of waiter {effect.waiter_id}, who runs something else"
            elif not any(object_id in first.return_ids for object_id in waiter.wait.object_ids):
                wrong = f"shall run on the stack of waiter {effect.waiter_id}, who does not wait for it"
            elif spec.n_returns < 0:
                wrong = "is a generator: held back, it would never give the waiter's stack back"
        if wrong:
            raise SimulationError(
                f"Task {name_of(spec.task_id)} is started on rank {rank.rank}, but {wrong}.", [spec.task_id]
            )
