"""Every future is fulfilled: no task is forgotten, whether anybody waits for it or not.

This is the liveness property of the authors' TLA+ model of ownership (``OwnershipV3``), together with ``Emptiness``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.model.ids import name_of, owner_of
from hpcfut.sim.trace import SimulationError

if TYPE_CHECKING:
    from hpcfut.sim.world import SimWorld


class Futures:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def at_rest(self) -> None:
        """Each task that was ever submitted has succeeded, or there is a reason why not."""
        truth = self._world.truth
        for spec in truth.specs.values():
            if owner_of(spec.task_id) in truth.dead:
                continue
            if not spec.has_succeeded and not truth.reasons.may_fail_at_all(spec):
                raise SimulationError(
                    f"Task {name_of(spec.task_id)} was submitted, and nothing has become of it.", [spec.task_id]
                )
