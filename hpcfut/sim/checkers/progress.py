"""Every wait ends, and so does every task and every script. Livelock is caught by the step cap of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.model.ids import name_of
from hpcfut.sim.trace import SimulationError

if TYPE_CHECKING:
    from hpcfut.sim.world import SimWorld


class Progress:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def at_rest(self) -> None:
        """Nothing moves any more: nobody may be left waiting."""
        for rank in self._world.survivors():
            for waiter_id, frame in rank.threads.waiters.items():
                assert frame.wait is not None
                missing = [name_of(object_id) for object_id in frame.wait.object_ids]
                raise SimulationError(
                    f"Waiter {waiter_id} on rank {rank.rank} was never woken; it waits for {missing}.",
                    frame.wait.object_ids[:3],
                )
            for task_id in rank.threads.runs:
                raise SimulationError(f"Task {name_of(task_id)} never ended on rank {rank.rank}.", [task_id])
            for task_id, task in rank.core.tasks.tasks.items():
                raise SimulationError(f"Task {name_of(task_id)} is {task.state} for ever.", [task_id])
            if rank.threads.drivers:
                raise SimulationError(f"The script of rank {rank.rank} never ended.")

    def at_end(self) -> None:
        """The session was ended: every rank must know."""
        for rank in self._world.survivors():
            if rank.ended is None:
                raise SimulationError(f"Rank {rank.rank} was not told that the session is over.")
            dies = self._world.scenario.dies if self._world.is_cut else -1
            if dies >= 0 and f"Rank {dies} " not in rank.ended.failure:
                raise SimulationError(f"Rank {rank.rank} was not told who died: {rank.ended}.")
