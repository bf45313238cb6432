"""What is true in a simulated world, whatever the cores believe: every task, every value, every holder."""

from __future__ import annotations

import msgspec

from hpcfut.core.effects import RunTask
from hpcfut.core.effects import Value as Outcome
from hpcfut.model.failure import CANCELLED, ENDED, FULL, UNRECOVERABLE, UNSCHEDULABLE, Failure
from hpcfut.model.ids import RANK_SHIFT, is_again
from hpcfut.model.place import Place
from hpcfut.model.told import Argument
from hpcfut.sim.ops import Body


class Value(msgspec.Struct, gc=False):
    """What an object must be."""

    payload: bytes
    contained: tuple[int, ...]
    is_stored: bool
    #: The task whose result it is, 0 for a put; and which of its results, or items.
    task_id: int = 0
    index: int = -1


class Spec(msgspec.Struct, eq=False):
    """A task that user code submitted."""

    task_id: int
    template_id: int
    body: Body
    parent: Spec | None
    depth: int
    payload: bytes
    return_ids: tuple[int, ...]
    arguments: tuple[int, ...]
    nested: tuple[int, ...]
    n_returns: int
    n_attempts_max: int
    resources: tuple[tuple[str, int], ...]
    #: What was made before this may be taken from global variables; see ``Truth.n_made``.
    horizon: int
    is_unschedulable: bool = False
    n_attempts: int = 0
    #: The rank that runs it now, -1 for none.
    running_on: int = -1
    has_succeeded: bool = False
    #: What its attempts raised.
    failures: list[Failure] = []
    #: Whether somebody asked to cancel it, and also what it submits.
    is_cancelled: bool = False
    is_cancelled_below: bool = False
    #: The task that the core runs again by this one; and those by which it runs this one again.
    first: Spec | None = None
    repeats: list[Spec] = []

    @property
    def may_be_cancelled(self) -> bool:
        """Whether a cancellation is a legal end of it."""
        if self.is_cancelled:
            return True
        above = self.parent
        while above is not None:
            if above.is_cancelled_below:
                return True
            above = above.parent
        return False


class Truth:
    """The omniscient model."""

    def __init__(self, n_ranks: int, *, is_tight: bool) -> None:
        #: Whether the stores are so small that a read may find no room.
        self.is_tight = is_tight
        #: How often there was no room for a value.
        self.n_denied = 0
        self.specs: dict[int, Spec] = {}
        #: Object → the task that makes it.
        self.makers: dict[int, Spec] = {}
        self.values: dict[int, Value] = {}
        #: Task, as user code has submitted it, and which of its results → under which ids that has been made.
        self.versions: dict[tuple[int, int], list[int]] = {}
        self._by_payload: dict[bytes, Spec] = {}
        #: Failures that the fabric, not a program, has caused: any task or wait may see them.
        self.injected: list[Failure] = []
        #: Bytes that may be said to be where they are no more, because they were lost.
        self.lost: dict[int, None] = {}
        #: Tasks that were given up, because those that hold what they need wait for them.
        self.given_up: dict[int, None] = {}
        #: Object → how many objects and tasks were made before it. A task that found its own result, or what waits for
        #: it, in a global variable would wait for itself; so a task finds only what is older than the oldest of its
        #: ancestors.
        self.age: dict[int, int] = {}
        #: Owner → object → how many refs user code anywhere has to it.
        self.held: list[dict[int, int]] = [{} for _ in range(n_ranks)]

    def spec_of(self, effect: RunTask) -> Spec:
        """The task that is about to run; the core may run one again under another id, which its payload tells."""
        spec = self.specs.get(effect.task_id)
        if spec is not None:
            return spec
        first = self._by_payload.get(effect.payload)
        if first is None:
            self._by_payload = {spec.payload: spec for spec in self.specs.values() if spec.first is None}
            first = self._by_payload[effect.payload]
        spec = msgspec.structs.replace(
            first,
            task_id=effect.task_id,
            return_ids=effect.return_ids,
            n_attempts=0,
            running_on=-1,
            has_succeeded=False,
            failures=[],
            first=first,
            repeats=[],
        )
        first.repeats = [*first.repeats, spec]
        self.specs[effect.task_id] = spec
        return spec

    def add(self, object_id: int, value: Value) -> None:
        """A task has made a value."""
        spec = self.specs[value.task_id]
        ids = self.versions.setdefault(((spec.first or spec).task_id, value.index), [])
        if object_id not in ids:
            ids.append(object_id)
        self.values[object_id] = value

    def find(self, object_id: int, outcome: Outcome) -> Value | None:
        """What somebody was given as the value of an object, if that is right: it may have been made again."""
        value = self.values.get(object_id)
        if value is None:
            return None
        ids = self._versions_of(object_id)
        if isinstance(outcome, Place):
            return self.values[outcome.object_id] if outcome.object_id in ids else None
        return next((self.values[other] for other in ids if self.values[other].payload == outcome), None)

    def contents_of(self, argument: Argument) -> tuple[int, ...]:
        """The refs inside the value that a task is given."""
        if argument.payload is None:
            return self.values[argument.object_id].contained
        value = self.find(argument.object_id, argument.payload)
        return value.contained if value is not None else ()

    def _versions_of(self, object_id: int) -> list[int]:
        value = self.values[object_id]
        if value.index < 0:
            return [object_id]
        spec = self.specs[value.task_id]
        return self.versions[(spec.first or spec).task_id, value.index]

    def is_version(self, made_id: int, object_id: int) -> bool:
        """Whether something has been made as the value of an object."""
        return made_id == object_id or (made_id in self.values and made_id in self._versions_of(object_id))

    def hold(self, object_id: int) -> None:
        """User code somewhere got a ref."""
        held = self.held[object_id >> RANK_SHIFT]
        held[object_id] = held.get(object_id, 0) + 1

    def release(self, object_id: int) -> None:
        """User code somewhere dropped a ref."""
        held = self.held[object_id >> RANK_SHIFT]
        held[object_id] -= 1
        if not held[object_id]:
            del held[object_id]

    def may_fail(self, object_id: int, failure: Failure) -> bool:
        """Whether this failure can be what becomes of the object."""
        if failure in self.injected or (self.is_tight and failure.kind == FULL):
            return True
        if failure.kind == UNRECOVERABLE:
            return "ended earlier" in failure.text or any(failure.text.startswith(it.text) for it in self.injected)
        spec = self.makers.get(object_id)
        return spec is not None and self._may_end(spec, failure, {})

    def _may_end(self, spec: Spec, failure: Failure, seen: dict[int, None]) -> bool:
        if spec.task_id in seen:
            return False
        seen[spec.task_id] = None
        if any(failure in each.failures for each in (spec, *spec.repeats)):
            return True
        if failure.kind == CANCELLED and spec.may_be_cancelled:
            return True
        # An attempt to make something again that never began is nobody's here.
        is_given_up = spec.task_id in self.given_up or any(map(is_again, self.given_up))
        if failure.kind == UNSCHEDULABLE and (spec.is_unschedulable or is_given_up):
            return True
        if failure.kind == ENDED and spec.n_returns < 0:
            return True
        makers = self.makers
        return any(
            object_id in makers and self._may_end(makers[object_id], failure, seen) for object_id in spec.arguments
        )

    def may_fail_at_all(self, spec: Spec) -> bool:
        """Whether there is any reason why a task may have no result."""
        if spec.failures or spec.may_be_cancelled or spec.is_unschedulable or spec.task_id in self.given_up:
            return True
        if any(map(self.may_fail_at_all, spec.repeats)) or any(map(is_again, self.given_up)):
            return True
        if self.injected or self.is_tight or spec.n_returns < 0:
            return True
        makers = [self.makers[object_id] for object_id in spec.arguments if object_id in self.makers]
        # A task has arguments that were made before it only, so this ends.
        return any(self.may_fail_at_all(maker) for maker in makers)
