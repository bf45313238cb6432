"""Lineage in scope, as in the authors' TLA+ model: what is stored can be made again, and so can all that takes.

Looked at anew from the tasks that user code has submitted: an object that is stored, or retired, whose task may be run
again has a spec; and each argument of that, and each ref inside it, is either known here with its value, or has a spec
in turn. And nothing is kept for nobody: a spec has a result in scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.lineage import Spec
from hpcfut.core.ownership import RETIRED, STORED
from hpcfut.model.config import NBYTES_LINEAGE_MAX
from hpcfut.model.ids import name_of
from hpcfut.sim.trace import SimulationError

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class LineageInScope:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        #: Whether lineage may be dropped before its time.
        self._is_capped = world.scenario.config.nbytes_lineage_max < NBYTES_LINEAGE_MAX

    def after_turn(self, rank: SimRank) -> None:
        """Only what the rank itself owns can have changed."""
        owned, specs = rank.core.ownership.objects, rank.core.lineage.specs
        truth = self._world.truth
        for object_id, record in owned.items():
            task = truth.makers.get(object_id)
            if task is None or record.state not in (STORED, RETIRED):
                continue
            spec = specs.get(record.task_id)
            if spec is None:
                raise SimulationError(f"Object {name_of(object_id)} is {record.state} without its spec.", [object_id])
            if spec.is_settled and not spec.why_not:
                self._check_arguments(rank, spec, (*task.arguments, *task.nested))
            elif record.state == RETIRED or (spec.is_settled and not self._is_barred(rank, spec)):
                raise SimulationError(
                    f"Object {name_of(object_id)} is {record.state}, and cannot be made again: {spec.why_not}.",
                    [object_id],
                )
        for task_id, spec in specs.items():
            if not any(object_id in owned for object_id in spec.result_ids):
                raise SimulationError(f"The spec of task {name_of(task_id)} is kept for nothing.", [task_id])

    def _is_barred(self, rank: SimRank, spec: Spec) -> bool:
        """Whether there is a reason for not running a task again that is known to be true."""
        task, reasons = self._world.truth.specs[spec.task_id], self._world.truth.reasons
        is_barred = reasons.may_be_cancelled(task) or reasons.has_had_all(task)
        return is_barred or self._is_capped or rank.core.lineage.has_given_way

    def _check_arguments(self, rank: SimRank, spec: Spec, arguments: tuple[int, ...]) -> None:
        owned = rank.core.ownership.objects
        for object_id in arguments:
            found = rank.core.references.find(object_id)
            is_retired = object_id in owned and owned[object_id].state == RETIRED
            has_none = found is None or (is_retired and owned[object_id].task_id not in rank.core.lineage.specs)
            if has_none and not (self._is_capped or rank.core.lineage.has_given_way):
                raise SimulationError(
                    f"Task {name_of(spec.task_id)} may have to be run again, and there is no lineage of its argument "
                    f"{name_of(object_id)}.",
                    [spec.task_id, object_id],
                )
