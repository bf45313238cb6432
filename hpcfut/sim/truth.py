"""What is true in a simulated world, whatever the cores believe: every task, every value, every holder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from hpcfut.core.effects import RunTask
from hpcfut.core.effects import Value as Outcome
from hpcfut.core.events import TaskSubmitted
from hpcfut.core.rank import RankCore
from hpcfut.core.task import TaskRecord
from hpcfut.model.config import NBYTES_LINEAGE_MAX
from hpcfut.model.failure import Failure
from hpcfut.model.ids import RANK_SHIFT, owner_of
from hpcfut.model.place import Place
from hpcfut.model.told import Argument
from hpcfut.sim.ops import Body
from hpcfut.sim.reasons import Reasons
from hpcfut.wire.messages import Message, TaskDone, TaskPushed, TaskRaised, TaskReturned, TasksHandedBack


class Value(msgspec.Struct, gc=False):
    """What an object must be."""

    payload: bytes
    contained: tuple[int, ...]
    is_stored: bool
    #: The task whose result it is, 0 for a put; and which of its results, or items.
    task_id: int = 0
    index: int = -1
    #: Where it was made.
    rank: int = -1


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
    #: The rank that has run it last; whether it returned, and whether its owner has been told.
    ran_on: int = -1
    has_succeeded: bool = False
    is_told: bool = False
    #: What its attempts raised, and which of that may be tried again.
    failures: list[Failure] = []
    retriable: list[Failure] = []
    #: How often a rank died that it had been pushed to; and how often it was called once more, to make what was lost.
    n_crashes: int = 0
    n_repeats: int = 0
    #: Whether somebody asked to cancel it, and also what it submits.
    is_cancelled: bool = False
    is_cancelled_below: bool = False
    #: The task that the core runs again by this one; and those by which it runs this one again.
    first: Spec | None = None
    repeats: list[Spec] = []

    @property
    def original(self) -> Spec:
        """The task as user code has submitted it."""
        return self.first or self

    @property
    def family(self) -> list[Spec]:
        """That, and all by which the core has run it again."""
        original = self.original
        return [original, *original.repeats]


class Truth:
    """The omniscient model."""

    def __init__(self, n_ranks: int, *, is_tight: bool, nbytes_lineage_max: int) -> None:
        self.reasons = Reasons(self)
        #: Ranks that have died.
        self.dead: dict[int, None] = {}
        #: Tasks of which nothing has been heard since they were sent to another rank: where, and their payload.
        self._pushed: dict[int, tuple[int, bytes]] = {}
        #: Owners that may have dropped lineage before its time.
        self._capped: list[Callable[[], bool]] = []
        self._is_capped = nbytes_lineage_max < NBYTES_LINEAGE_MAX
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
        #: Failures that the fabric, not a program, has caused → the bytes that it was about.
        self.injected: dict[Failure, int] = {}
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
        first = self._original_of(effect.payload)
        spec = msgspec.structs.replace(
            first,
            task_id=effect.task_id,
            return_ids=effect.return_ids,
            n_attempts=0,
            running_on=-1,
            ran_on=-1,
            has_succeeded=False,
            is_told=False,
            failures=[],
            retriable=[],
            first=first,
            repeats=[],
        )
        first.repeats = [*first.repeats, spec]
        self.specs[effect.task_id] = spec
        return spec

    def _original_of(self, payload: bytes) -> Spec:
        first = self._by_payload.get(payload)
        if first is None:
            self._by_payload = {spec.payload: spec for spec in self.specs.values() if spec.first is None}
            first = self._by_payload[payload]
        return first

    def watch(self, core: RankCore) -> None:
        """Note which tasks a core calls once more, and whether it has had to let go of lineage."""
        right = core.tasks.repeat

        def repeat(event: TaskSubmitted, n_retries: int, n_items: int) -> TaskRecord:
            self._original_of(event.payload).n_repeats += 1
            return right(event, n_retries, n_items)

        core.tasks.repeat = repeat  # type: ignore[method-assign]
        self._capped.append(lambda: core.lineage.has_given_way)

    def is_capped(self, rank: int) -> bool:
        """Whether a rank may have dropped lineage before its time."""
        return self._is_capped or self._capped[rank]()

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

    def is_version_of(self, bytes_id: int, object_id: int) -> bool:
        """Whether these are, or were, the bytes of an object."""
        if not bytes_id or object_id not in self.values:
            return bytes_id == object_id != 0
        return bytes_id in self._versions_of(object_id)

    def is_lost(self, object_id: int) -> bool:
        """Whether bytes of an object were lost, by whatever cause."""
        return object_id in self.values and any(bytes_id in self.lost for bytes_id in self._versions_of(object_id))

    def note_injected(self, failure: Failure, bytes_id: int) -> None:
        """The fabric causes a failure."""
        self.injected[failure] = bytes_id

    # -- deaths ------------------------------------------------------------------------------------------------------

    def note_pushed(self, message: TaskPushed, rank: int, *, is_lost: bool) -> None:
        """The owner of a task sends it to a rank, of whose death it may have heard in this very turn."""
        if is_lost:
            self._original_of(message.payload).n_crashes += 1
        else:
            self._pushed[message.task_id] = (rank, message.payload)

    def note_replies(self, messages: Sequence[Message]) -> None:
        """A rank is about to hear this."""
        for message in messages:
            if isinstance(message, TaskDone | TaskReturned | TaskRaised):
                self._pushed.pop(message.task_id, None)
                if not isinstance(message, TaskRaised):
                    spec = self.specs[message.task_id]
                    spec.is_told = spec.has_succeeded = True
            elif isinstance(message, TasksHandedBack):
                for task_id in message.task_ids:
                    self._pushed.pop(task_id, None)

    def note_death(self, rank: int) -> None:
        """A rank has died: what it has done and not told is undone, and what it stored is lost."""
        self.dead[rank] = None
        for spec in self.specs.values():
            if spec.ran_on == rank and not spec.is_told:
                spec.has_succeeded = False
        for object_id, value in self.values.items():
            if value.rank == rank and value.is_stored:
                self.lost[object_id] = None

    def note_lost(self, survivor: int, dead: int) -> None:
        """A rank is about to hear of a death, which is a failed attempt of its tasks that are there."""
        for task_id, (rank, payload) in list(self._pushed.items()):
            if rank == dead and owner_of(task_id) == survivor:
                del self._pushed[task_id]
                self._original_of(payload).n_crashes += 1

    # -- refs --------------------------------------------------------------------------------------------------------

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
