"""A task is given up only if all that it needs is in the hands of tasks that wait for good.

Looked at only for the first one of a world: when it has failed, those that held something go on, while others are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.model.ids import is_again, name_of, owner_of
from hpcfut.sim.trace import SimulationError

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Standstills:
    """Stands between the cores and the tasks that they give up, because a rank tells itself so without a message."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        for rank in world.ranks:
            self.on_start(rank)

    def on_start(self, rank: SimRank) -> None:
        """There is a rank."""
        cancellations, tasks = rank.core.cancellations, rank.core.tasks
        give_up, given_up = cancellations.give_up, self._world.truth.given_up

        def check_first(task_id: int, sentence: str) -> None:
            n_tasks = len(tasks.tasks)
            if task_id in tasks.tasks and not given_up and not is_again(task_id):
                self._check(task_id)
            give_up(task_id, sentence)
            if len(tasks.tasks) < n_tasks:
                given_up[task_id] = None

        cancellations.give_up = check_first  # type: ignore[method-assign]

    def _check(self, task_id: int) -> None:
        world = self._world
        spec = world.truth.specs[task_id]
        news = [*world.ranks[owner_of(task_id)].news, *((dead, False) for dead in world.truth.dead)]
        for rank in world.candidates(world.templates[spec.template_id], news):
            free = dict(world.roster[rank].resources)
            for holder, frame in world.ranks[rank].threads.runs.items():
                if frame.wait is not None and frame.wait.timeout_s is None and frame.n_waiting:
                    for name, amount in world.truth.specs[holder].resources:
                        free[name] -= amount if name != "CPU" else 0
            if all(free.get(name, 0) >= amount for name, amount in spec.resources):
                raise SimulationError(
                    f"Task {name_of(task_id)} was given up, but could start on rank {rank}.", [task_id]
                )
