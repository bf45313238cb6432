"""The digest of a virtual world: worlds with the same digest go on in the same ways.

It covers all that can make a difference from now on: the cores, record by record; what is under way; what user code
holds, and at which instruction it stands; and what the checkers remember. Ids and instants are taken as they are: a
world that numbered something otherwise counts as another one. The order in dicts counts too, because cores go by it.
Left out are the constants of a world, and what only counts what has been: statistics, the trace.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from types import BuiltinFunctionType, FrameType, FunctionType, GeneratorType, MethodType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hpcfut.core.context import Column, Handlers, Table
from hpcfut.model.config import Config
from hpcfut.model.roster import RankRecord
from hpcfut.sim.checkers.emptiness import NEVER_STALE
from hpcfut.sim.fabric import Fabric
from hpcfut.sim.frame import Frame, Thread, Watched
from hpcfut.sim.rank import SimRank
from hpcfut.sim.threads import Threads
from hpcfut.sim.truth import Spec
from hpcfut.sim.window import SimWindow
from hpcfut.sim.world import SimWorld

if TYPE_CHECKING:
    from collections.abc import Hashable

#: What never changes, and who is described elsewhere.
CONSTANT: Final = (Config, Column, Fabric, Handlers, Random, RankRecord, SimWorld, Table)

#: What is put down as it is.
PLAIN: Final[tuple[type, ...]] = (int, str, bytes, float, bool, type(None))

#: Attributes that no later step looks at.
NOT_TOLD: Final = frozenset(
    (
        "world_rank",
        "rng",
        "world",
        "_world",
        "_rank",
        "_perform",
        "_on_message",
        "_n_turns",
        "_turn_delay_s",
        "effects",
        "horizon",
        "n_boundaries",
    )
)

#: What changes of a task as user code knows it; and what, besides, a death may make a difference to.
OF_SPEC: Final = ("n_attempts", "running_on", "has_succeeded", "failures", "is_cancelled", "is_cancelled_below")
OF_MORTAL_SPEC: Final = (*OF_SPEC, "ran_on", "is_told", "n_crashes", "is_unschedulable")


class Digest:
    """Words for a part of a world, put down one after the other."""

    def __init__(self) -> None:
        self._words: list[object] = []
        #: What has been put down already, and as which: records refer to each other in circles.
        self._seen: dict[int, int] = {}
        self._how: dict[type, Callable[[Any], None]] = {
            **dict.fromkeys(PLAIN, self._words.append),
            **dict.fromkeys((tuple, list, deque), self._add_all),
            **dict.fromkeys((FunctionType, BuiltinFunctionType), self._add_function),
            dict: self._add_dict,
            MethodType: self._add_method,
            GeneratorType: self._add_program,
            SimRank: lambda rank: self._words.append(f"rank {rank.rank}"),
            SimWindow: lambda window: self._words.append(f"window {window.rank}"),
            Threads: lambda _: self._words.append("threads"),
            Spec: lambda spec: self._words.append(spec.task_id),
            **dict.fromkeys((Frame, Thread, Watched), self._add_object),
        }

    def value(self) -> bytes:
        """A short name for everything that was added; equal names, equal words."""
        return hashlib.blake2b(repr(self._words).encode(), digest_size=16).digest()

    def add(self, thing: object) -> None:
        """Put anything down."""
        kind = type(thing)
        how = self._how.get(kind)
        if how is None:
            how = self._how[kind] = self._choose(kind)
        how(thing)

    def add_rank(self, rank: SimRank) -> None:
        """Put a rank down: its core and its user code. Its window is not part of it: others look into it."""
        if rank.is_dead:
            self._words.append("dead")
            return
        self.add(rank.core)
        self._add_fields(rank, (name for name in vars(rank) if name not in ("core", "threads", "window", "turn_at")))
        self._add_fields(rank.threads, vars(rank.threads))
        self._words.append(sorted(rank.views.items()))

    def add_spec(self, spec: Spec, *, is_mortal: bool) -> None:
        """Put down what has become of a task."""
        self._words.append(spec.task_id)
        self._add_fields(spec, OF_MORTAL_SPEC if is_mortal else OF_SPEC)

    def _choose(self, kind: type) -> Callable[[Any], None]:
        if issubclass(kind, CONSTANT):
            return lambda _: None
        if issubclass(kind, msgspec.Struct):
            # Records that are compared by value may be shared or not; no later step can tell.
            return self._add_value if kind.__struct_config__.eq else self._add_object
        if kind.__module__.startswith(("hpcfut.core.", "hpcfut.sim.")):
            return self._add_object
        raise TypeError(f"There is no way to tell one {kind.__module__}.{kind.__name__} from another.")

    # -- kinds of things -------------------------------------------------------------------------------------------

    def _is_known(self, thing: object) -> bool:
        n_seen = len(self._seen)
        number = self._seen.setdefault(id(thing), n_seen)
        self._words.append(number)
        return number < n_seen

    def _add_all(self, things: Iterable[object]) -> None:
        words = self._words
        words.append("(")
        for thing in things:
            self.add(thing)
        words.append(")")

    def _add_dict(self, things: dict[Hashable, object]) -> None:
        words = self._words
        words.append("{")
        for key, thing in things.items():
            self.add(key)
            self.add(thing)
        words.append("}")

    def _add_value(self, record: msgspec.Struct) -> None:
        self._words.append(type(record).__name__)
        for name in record.__struct_fields__:
            self.add(getattr(record, name))

    def _add_object(self, thing: Any) -> None:
        if self._is_known(thing):
            return
        kind = type(thing)
        self._words.append(kind.__name__)
        names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__slots__", None) or vars(thing)
        self._add_fields(thing, names)

    def _add_fields(self, thing: object, names: Iterable[str]) -> None:
        words = self._words
        for name in names:
            if name in NOT_TOLD:
                continue
            value = getattr(thing, name)
            kind = type(value)
            if kind in PLAIN:
                words.append(value)
            elif name == "stale":
                self.add([value.get(each, 0) for each in NEVER_STALE])
            elif kind is MethodType or kind is FunctionType:
                continue  # How the machines of a core are wired.
            elif not value and (kind is dict or kind is deque):
                words.append("none")
            else:
                self.add(value)

    def _add_function(self, function: FunctionType) -> None:
        if self._is_known(function):
            return
        self._words.append(function.__qualname__)
        for cell in getattr(function, "__closure__", None) or ():
            self.add(cell.cell_contents)

    def _add_method(self, method: MethodType) -> None:
        self._words.append(method.__name__)
        self.add(method.__self__)

    def _add_program(self, program: GeneratorType[Any, Any, Any]) -> None:
        inner: object = program
        while isinstance(inner, GeneratorType):
            frame: FrameType | None = inner.gi_frame
            if frame is not None:
                self._words += [inner.__qualname__, frame.f_lasti]
                self._add_dict(dict(sorted(frame.f_locals.items())))
            inner = inner.gi_yieldfrom
