"""Virtual threads, and the tasks and drivers on their stacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from hpcfut.core.effects import WakeWaiter
from hpcfut.core.events import CancelRequested, ObjectPut, SourcePut, StreamAdvanced, StreamEndWanted, TaskSubmitted
from hpcfut.model.failure import Failure
from hpcfut.model.ids import name_of
from hpcfut.model.place import Place
from hpcfut.model.template import STREAMING
from hpcfut.sim.ops import Body, Program, Wait
from hpcfut.sim.truth import Spec, Value
from hpcfut.wire.messages import Result

if TYPE_CHECKING:
    from hpcfut.sim.arguments import OpenArgument
    from hpcfut.sim.rank import SimRank


class Watched:
    """What a frame is told of one by one; ``left`` is what it has not been told of."""

    __slots__ = ("is_fetching", "is_waiting", "left", "waits_as", "watch_id")

    def __init__(self, watch_id: int, object_ids: list[int], *, is_fetching: bool, is_waiting: bool) -> None:
        self.watch_id = watch_id
        self.left = dict.fromkeys(object_ids)
        self.is_fetching = is_fetching
        self.is_waiting = is_waiting
        self.waits_as = 0


class Thread:
    """A virtual thread: the topmost frame runs, those below wait."""

    __slots__ = ("is_scheduled", "stack")

    def __init__(self) -> None:
        self.stack: list[Frame] = []
        self.is_scheduled = False


class Frame:
    """One run of user code: a driver's script, or one attempt of a task. Programs get it as ``me``."""

    __slots__ = (
        "arguments",
        "attempt",
        "depth",
        "has_begun",
        "horizon",
        "is_covered",
        "is_held_back",
        "is_interrupted",
        "is_writing",
        "item_ids",
        "main",
        "n_made",
        "n_names",
        "n_waiting",
        "open_arguments",
        "program",
        "refs",
        "result",
        "return_ids",
        "rng",
        "spec",
        "task_id",
        "thread",
        "views",
        "wait",
        "waiter_id",
        "waits_as",
        "world_rank",
    )

    def __init__(self, world_rank: SimRank, thread: Thread, spec: Spec | None, rng: Random) -> None:
        self.world_rank = world_rank
        self.thread = thread
        #: The task whose attempt this is; drivers and threads have none.
        self.spec = spec
        #: What may be taken from global variables; see ``Truth.age``.
        self.horizon = spec.horizon if spec is not None else -1
        self.rng = rng
        self.task_id = spec.task_id if spec is not None else 0
        self.depth = spec.depth if spec is not None else 0
        self.attempt = 0
        self.program: Program | None = None
        #: The refs that the code holds, one entry for each ref object.
        self.refs: list[int] = []
        #: The stored values that the code has, as it was given them.
        self.views: list[Place] = []
        #: The views that its arguments are built over.
        self.open_arguments: list[OpenArgument] = []
        #: Top-level arguments, resolved.
        self.arguments: tuple[int, ...] = ()
        self.return_ids: tuple[int, ...] = ()
        self.waiter_id = 0
        #: The task that the latest wait belongs to, as the core has been told; 0 for a driver's.
        self.waits_as = 0
        #: The latest wait.
        self.wait: Wait | None = None
        self.result: WakeWaiter | None = None
        #: The frame whose slot it shares: its own, unless it runs on a thread that a task started.
        self.main = self
        #: How many of its threads wait or are held back, as far as the core has been told.
        self.n_waiting = 0
        #: Whether its wait is over, while another frame stands on it.
        self.is_covered = False
        self.is_interrupted = False
        #: Whether it stores a value, for which it may have to wait for room.
        self.is_writing = False
        self.is_held_back = False
        self.item_ids: deque[int] = deque()
        #: Names that it has been told, those used included.
        self.n_names = 0
        #: Items that it has made.
        self.n_made = 0
        self.has_begun = False

    # -- what user code can do without waiting --------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """The rank that it runs on."""
        return self.world_rank.rank

    def define(
        self,
        *,
        n_returns: int = 1,
        resources: tuple[tuple[str, int], ...] | None = None,
        nested: Sequence[int] = (),
        n_retries_max: int = 0,
        affinity: int = -1,
        affinity_soft: bool = False,
        spread: bool = False,
        n_items_ahead_max: int = 4,
    ) -> int:
        """Make a remote function."""
        return self.world_rank.define(
            n_returns=n_returns,
            resources=resources,
            nested=tuple(nested),
            n_retries_max=n_retries_max,
            affinity=affinity,
            affinity_soft=affinity_soft,
            spread=spread,
            n_items_ahead_max=n_items_ahead_max,
        )

    def submit(
        self,
        template_id: int,
        body: Body,
        arguments: Sequence[int] = (),
        nested: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """Call a remote function; gives its refs."""
        spec = self._submit(template_id, body, tuple(arguments), tuple(nested))
        return spec.return_ids

    def stream(self, template_id: int, body: Body, arguments: Sequence[int] = ()) -> Spec:
        """Call a remote generator; its ``return_ids`` are the first items and the reserve."""
        return self._submit(template_id, body, tuple(arguments), ())

    def _submit(self, template_id: int, body: Body, arguments: tuple[int, ...], nested: tuple[int, ...]) -> Spec:
        rank = self.world_rank
        world = rank.world
        template = rank.world.templates[template_id]
        n_returns = template.n_returns
        task_id = rank.new_id()
        if n_returns == STREAMING:
            return_ids = tuple(rank.new_id() for _ in range(template.n_items_ahead_max + 1))
        else:
            return_ids = tuple(rank.new_id() if index else task_id for index in range(n_returns))
        spec = Spec(
            task_id,
            template_id,
            body,
            self.spec,
            self.depth + 1,
            f"call {name_of(task_id)}".encode(),
            return_ids,
            arguments,
            nested,
            n_returns,
            template.n_retries_max + 1,
            template.resources,
            self.horizon if self.horizon >= 0 else len(world.truth.age),
        )
        spec.is_unschedulable = world.is_hopeless(template, rank)
        truth = world.truth
        truth.specs[task_id] = spec
        world.note_submitted()
        for object_id in return_ids:
            truth.makers[object_id] = spec
            truth.age[object_id] = len(truth.age)
            rank.hold(object_id)
            self.refs.append(object_id)
        rank.post(TaskSubmitted(task_id, template_id, spec.payload, return_ids, arguments, nested, self.task_id))
        return spec

    def put(self, contained: Sequence[int] = ()) -> int:
        """Put a small value; for a large one, which may have to wait for room, yield ``Put``."""
        object_id, value = self.new_value(contained, is_stored=False)
        self.note_put(object_id, Result(value.payload, len(value.payload), value.contained))
        return object_id

    def put_source(self, nbytes: int) -> int:
        """Put what each rank reads by itself."""
        object_id, value = self.new_value((), is_stored=True)
        self.world_rank.hold(object_id)
        self.refs.append(object_id)
        self.world_rank.post(SourcePut(object_id, value.payload, nbytes))
        return object_id

    def new_value(self, contained: Sequence[int], *, is_stored: bool) -> tuple[int, Value]:
        """A value that is about to be put."""
        truth = self.world_rank.world.truth
        object_id = self.world_rank.new_id()
        value = Value(f"put {name_of(object_id)}".encode(), tuple(contained), is_stored, rank=self.rank)
        truth.values[object_id] = value
        truth.age[object_id] = len(truth.age)
        return object_id, value

    def note_put(self, object_id: int, result: Result) -> None:
        """It has been put."""
        self.world_rank.hold(object_id)
        self.refs.append(object_id)
        self.world_rank.post(ObjectPut(object_id, result))

    def copy(self, object_id: int) -> None:
        """Make one more ref object."""
        self.world_rank.add_refs([object_id])
        self.refs.append(object_id)

    def release(self, object_ids: Sequence[int]) -> None:
        """Drop one ref to each."""
        for object_id in object_ids:
            self.refs.remove(object_id)
        self.world_rank.release_refs(list(object_ids))

    def cancel(self, object_id: int, *, is_recursive: bool = False) -> None:
        """Cancel the task that makes this object."""
        truth = self.world_rank.world.truth
        spec = truth.makers.get(object_id) or truth.specs.get(object_id)
        if spec is not None:
            spec.is_cancelled = True
            spec.is_cancelled_below |= is_recursive
        self.world_rank.post(CancelRequested(object_id, is_recursive))

    def advance(self, spec: Spec, n_items: int = 1) -> tuple[int, ...]:
        """Take items from a generator: it may make as many more, under the names that this gives."""
        rank = self.world_rank
        truth = rank.world.truth
        item_ids = tuple(rank.new_id() for _ in range(n_items))
        for object_id in item_ids:
            truth.makers[object_id] = spec
            truth.age[object_id] = len(truth.age)
            rank.hold(object_id)
            self.refs.append(object_id)
        rank.post(StreamAdvanced(spec.task_id, item_ids))
        return item_ids

    def want_end(self, spec: Spec, item_ids: Sequence[int], failure: Failure | None) -> int:
        """Make an object that is ready when a generator has ended; these items have not been looked at."""
        rank = self.world_rank
        truth = rank.world.truth
        object_id = rank.new_id()
        value = Value(f"end of {name_of(spec.task_id)}".encode(), (), False, spec.task_id)
        truth.values[object_id] = value
        truth.makers[object_id] = spec
        truth.age[object_id] = len(truth.age)
        rank.hold(object_id)
        self.refs.append(object_id)
        result = Result(value.payload, len(value.payload), ())
        rank.post(StreamEndWanted(spec.task_id, object_id, result, tuple(item_ids), failure))
        return object_id

    def watch(self, object_ids: list[int], *, is_fetching: bool, is_waiting: bool) -> Watched:
        """Be told of these objects one by one, until ``unwatch``; the refs must be kept until then."""
        return self.world_rank.threads.watch(self, object_ids, is_fetching=is_fetching, is_waiting=is_waiting)

    def unwatch(self, watched: Watched) -> None:
        """Be told no more."""
        self.world_rank.threads.unwatch(self, watched)

    def spawn(self, body: Body, refs: Sequence[int], *, is_known: bool) -> None:
        """Start a thread with copies of these refs; the core knows whose it is, or takes it for a driver's."""
        self.world_rank.threads.start(body, self, list(refs), is_known=is_known)

    def stash(self, object_id: int) -> None:
        """Move a ref into a global variable of this rank."""
        self.refs.remove(object_id)
        self.world_rank.stash.append(object_id)

    def may_call(self, template_id: int) -> bool:
        """Whether a function in a global variable is one that this code may call as a task.

        One that captures what is younger might capture the result of this very task: a cycle of refs, which is not
        collected if lineage is part of it.
        """
        template, age = self.world_rank.world.templates[template_id], self.world_rank.world.truth.age
        is_old = self.horizon < 0 or all(age[object_id] < self.horizon for object_id in template.nested)
        return template.n_returns != STREAMING and is_old

    def findable(self) -> list[int]:
        """The refs in global variables of this rank that this code may take."""
        stash = self.world_rank.stash
        age, horizon = self.world_rank.world.truth.age, self.horizon
        if horizon < 0:
            return stash
        return [object_id for object_id in stash if age[object_id] < horizon]
