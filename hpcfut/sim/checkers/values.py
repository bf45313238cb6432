"""Every value is the one that was made, and every failure has a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.effects import AnswerQuery, RunTask, TellWatcher, WakeWaiter
from hpcfut.core.effects import Value as Outcome
from hpcfut.model.failure import FULL, Failure
from hpcfut.model.ids import name_of
from hpcfut.model.place import Place
from hpcfut.model.segment import nbytes_of_segment
from hpcfut.sim.trace import SimulationError
from hpcfut.sim.window import NBYTES_STORED

if TYPE_CHECKING:
    from hpcfut.sim.frame import Frame, Watched
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Values:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def on_run(self, rank: SimRank, effect: RunTask) -> None:
        """A task gets the payload and the arguments that its caller gave."""
        spec = self._world.truth.specs[effect.task_id]
        truth = self._world.truth
        ids = [argument.object_id for argument in effect.arguments]
        is_right = len(ids) == len(spec.arguments) and all(map(truth.is_version, ids, spec.arguments))
        if effect.payload != spec.payload or not is_right:
            raise SimulationError(f"Task {name_of(spec.task_id)} starts with the wrong arguments.", [spec.task_id])
        places = iter(effect.places)
        for argument in effect.arguments:
            value = next(places, None) if argument.payload is None else argument.payload
            self._check(argument.object_id, value)
            made = truth.find(argument.object_id, value)
            if made is None or any(object_id not in argument.contained for object_id in made.contained):
                raise SimulationError(
                    f"Task {name_of(spec.task_id)} is told the wrong contents of {name_of(argument.object_id)}.",
                    [spec.task_id, argument.object_id],
                )

    def on_wake(self, rank: SimRank, frame: Frame, effect: WakeWaiter) -> None:
        """A waiting thread gets what it wanted, or a failure that can be explained."""
        wait = frame.wait
        assert wait is not None
        wanted = [object_id for object_id in wait.object_ids if object_id in effect.object_ids]
        # What can never be in memory together is refused at once, whether the rest is ready or not.
        n_refused = sum(isinstance(value, Failure) and value.kind == FULL for value in effect.values)
        is_refused = n_refused * nbytes_of_segment(NBYTES_STORED) > self._world.scenario.nbytes_store
        is_enough = len(wanted) == wait.n_wanted or not wait.n_wanted or is_refused
        if wanted != effect.object_ids or not is_enough or len(effect.values) != len(wanted):
            raise SimulationError(f"Waiter {effect.waiter_id} on rank {rank.rank} is given something else.", wanted)
        self._check_all(effect, is_fetching=wait.has_values)

    def on_tell(self, rank: SimRank, watched: Watched, effect: TellWatcher) -> None:
        """Who watches is told of each object once, and of the last as such."""
        ids = effect.object_ids
        is_known = len(dict.fromkeys(ids)) == len(ids) and all(object_id in watched.left for object_id in ids)
        if not ids or not is_known or effect.is_last != (len(ids) == len(watched.left)):
            raise SimulationError(f"Watch {effect.watch_id} on rank {rank.rank} is told of something else.", ids)
        self._check_all(effect, is_fetching=watched.is_fetching)

    def _check_all(self, effect: WakeWaiter | TellWatcher, *, is_fetching: bool) -> None:
        truth = self._world.truth
        for object_id, value in zip(effect.object_ids, effect.values, strict=True):
            if isinstance(value, Failure):
                if not truth.reasons.may_fail(object_id, value):
                    raise SimulationError(f"Object {name_of(object_id)} has no reason to fail: {value}.", [object_id])
            elif is_fetching:
                self._check(object_id, value)
            elif object_id not in truth.values:
                raise SimulationError(f"Object {name_of(object_id)} is ready before it was made.", [object_id])

    def _check(self, object_id: int, payload: Outcome) -> None:
        value = self._world.truth.find(object_id, payload)
        if isinstance(payload, Place):
            payload = self._world.ranks[payload.rank].window.view(payload, "uses")
        if value is None or value.payload != payload:
            value = value or self._world.truth.values.get(object_id)
            raise SimulationError(
                f"Object {name_of(object_id)} is {payload!r} and should be {value}.",
                [object_id],
            )

    def on_answer(self, rank: SimRank, effect: AnswerQuery) -> None:
        """A query is answered for every rank."""
        # Who has died meanwhile may have answered before; who came later was not asked.
        answered, asked = list(effect.answers), rank.asked.pop(effect.query_id)
        if answered != [each for each in asked if each in effect.answers or each not in rank.has_lost]:
            raise SimulationError(f"Rank {rank.rank} was told the answers of {list(effect.answers)} only.")
