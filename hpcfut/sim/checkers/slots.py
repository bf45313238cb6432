"""Nothing starts without a free slot and free resources, nor on a driver's rank while its driver works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.effects import RunTask
from hpcfut.model.ids import name_of
from hpcfut.sim.trace import SimulationError

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Slots:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def on_run(self, rank: SimRank, effect: RunTask) -> None:
        """A task is about to start: count what those that run have taken."""
        world = self._world
        specs = world.truth.specs
        taken = dict(specs[effect.task_id].resources)
        n_running = 1
        for task_id, frame in rank.threads.runs.items():
            n_running += not frame.n_waiting
            for name, amount in specs[task_id].resources:
                # A task that waits gives back its CPU only.
                if not frame.n_waiting or name != "CPU":
                    taken[name] = taken.get(name, 0) + amount
        task = f"Task {name_of(effect.task_id)}"
        if n_running > world.scenario.config.n_slots:
            raise SimulationError(f"{task} is number {n_running} to run on rank {rank.rank}.", [effect.task_id])
        total = world.roster[rank.rank].resources
        for name, amount in taken.items():
            if amount > total.get(name, 0):
                raise SimulationError(f"{task} takes too much {name} on rank {rank.rank}: {taken}.", [effect.task_id])
        has_driver = rank.rank < world.scenario.n_drivers
        if has_driver and not effect.waiter_id and not rank.threads.n_drivers_waiting:
            raise SimulationError(f"{task} is started on rank {rank.rank}, whose driver works.", [effect.task_id])
