"""Why something may fail in a simulated world: whatever else a core says of an object or a task is wrong.

Each failure belongs to somebody: to the task that raised it, was cancelled, or had too many deaths; to the object whose
bytes were lost and which nobody can make again; to the rank that died with all that it owned. It may be told of that,
and of what depends on it, and of nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.model.failure import CANCELLED, CRASHED, ENDED, FULL, OWNER_DIED, UNRECOVERABLE, UNSCHEDULABLE, Failure
from hpcfut.model.ids import is_again, name_of, owner_of

if TYPE_CHECKING:
    from hpcfut.sim.truth import Spec, Truth

Seen = dict[int, None]


class Reasons:
    """See the module's docstring."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    # -- this failure ------------------------------------------------------------------------------------------------

    def may_fail(self, object_id: int, failure: Failure) -> bool:
        """Whether this failure can be what becomes of the object."""
        return self._may_fail(object_id, failure, {})

    def _may_fail(self, object_id: int, failure: Failure, seen: Seen) -> bool:
        truth, kind = self._truth, failure.kind
        if object_id in seen:
            return False
        seen[object_id] = None
        if kind == FULL:
            return truth.is_tight
        if kind == OWNER_DIED and owner_of(object_id) in truth.dead:
            return f"ank {owner_of(object_id)} " in failure.text
        if truth.is_version_of(truth.injected.get(failure, 0), object_id):
            return True
        if kind == UNRECOVERABLE and self._is_lost_for_good(object_id, failure):
            return True
        maker = truth.makers.get(object_id)
        if maker is not None and maker.n_returns < 0 and self._is_told_of_end(maker, failure):
            return True
        return maker is not None and self._may_end(maker, failure, seen)

    def _is_told_of_end(self, generator: Spec, failure: Failure) -> bool:
        """Whether the consumer may have taken the failure of an item, which could not be read, for the generator's."""
        item = self._truth.values.get(self._truth.injected.get(failure, 0))
        if item is not None and item.task_id in [each.task_id for each in generator.family]:
            return True
        made = [object_id for object_id, maker in self._truth.makers.items() if maker is generator]
        return failure.kind == UNRECOVERABLE and any(self._is_lost_for_good(object_id, failure) for object_id in made)

    def _may_end(self, spec: Spec, failure: Failure, seen: Seen) -> bool:
        kind = failure.kind
        if any(failure in each.failures for each in spec.family):
            is_final = not any(failure in each.retriable for each in spec.family)
            return is_final or self.has_had_all(spec) or self.may_be_cancelled(spec)
        if kind == CANCELLED and self.may_be_cancelled(spec):
            return True
        if kind == UNSCHEDULABLE and (spec.is_unschedulable or self._is_given_up(spec)):
            return True
        if kind == CRASHED and spec.original.n_crashes and self.has_had_all(spec):
            return True
        if kind == ENDED and spec.n_returns < 0:
            return True
        return any(self._may_fail(object_id, failure, seen) for object_id in spec.arguments)

    def _is_given_up(self, spec: Spec) -> bool:
        # An attempt to make something again that never began is nobody's here.
        given_up = self._truth.given_up
        return spec.task_id in given_up or any(map(is_again, given_up))

    def may_be_cancelled(self, spec: Spec) -> bool:
        """Whether a cancellation is a legal end of a task: somebody asked for it, or who had called it has died."""
        if spec.is_cancelled:
            return True
        above = spec.parent
        while above is not None:
            if above.is_cancelled_below or owner_of(above.task_id) in self._truth.dead:
                return True
            above = above.parent
        return False

    def has_had_all(self, spec: Spec) -> bool:
        """Whether a task has had all its attempts, as far as anybody can know."""
        first = spec.original
        n_raised = sum(len(each.retriable) for each in first.family)
        return n_raised + first.n_crashes + first.n_repeats >= first.n_attempts_max - 1

    def _is_lost_for_good(self, object_id: int, failure: Failure) -> bool:
        truth = self._truth
        maker = truth.makers.get(object_id)
        if "ended earlier" in failure.text:
            first = maker.original if maker is not None and maker.n_returns < 0 else None
            return first is not None and (bool(first.repeats) or first.n_attempts > 1)
        if f"Object {name_of(object_id)} is lost for good" not in failure.text or not truth.is_lost(object_id):
            return False
        return not self.can_be_made(object_id)

    def can_be_made(self, object_id: int) -> bool:
        """Whether an object must be made again if it is lost."""
        return self._can_be_made(object_id, {})

    def _can_be_made(self, object_id: int, seen: Seen) -> bool:
        truth = self._truth
        maker = truth.makers.get(object_id)
        if maker is None:
            return False
        if object_id in seen:
            return True
        seen[object_id] = None
        if self.may_be_cancelled(maker) or self.has_had_all(maker) or truth.is_capped(owner_of(object_id)):
            return False
        # What is needed to make it was given up, because it could be made as well.
        needed = (each for each in maker.arguments + maker.nested if owner_of(each) == owner_of(object_id))
        return all(each not in truth.makers or self._can_be_made(each, seen) for each in needed)

    # -- any failure -------------------------------------------------------------------------------------------------

    def may_fail_at_all(self, spec: Spec) -> bool:
        """Whether there is any reason why a task may have no result."""
        truth = self._truth
        if any(each.failures or each.is_unschedulable or self._is_given_up(each) for each in spec.family):
            return True
        if truth.is_tight or spec.n_returns < 0 or self.may_be_cancelled(spec):
            return True
        if spec.original.n_crashes and self.has_had_all(spec):
            return True
        # A task has arguments that were made before it only, so this ends.
        return any(map(self._may_fail_in_some_way, spec.arguments))

    def _may_fail_in_some_way(self, object_id: int) -> bool:
        truth = self._truth
        if owner_of(object_id) in truth.dead or truth.is_lost(object_id):
            return True
        if any(truth.is_version_of(bytes_id, object_id) for bytes_id in truth.injected.values()):
            return True
        maker = truth.makers.get(object_id)
        return maker is not None and self.may_fail_at_all(maker)
