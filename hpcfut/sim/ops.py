"""What a simulated user program can yield: the points at which its thread gives way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from hpcfut.sim.frame import Frame


class Sleep(msgspec.Struct, gc=False):
    """Compute for a while, outside hpcfut."""

    seconds: float


class Wait(msgspec.Struct, gc=False):
    """``get`` or ``wait``; gives the list of (object id, value), or None after the timeout."""

    object_ids: list[int]
    n_wanted: int
    is_fetching: bool = True
    may_run: bool = True
    timeout_s: float | None = None
    is_taking: bool = True

    @property
    def has_values(self) -> bool:
        """Whether the thread is given what is stored."""
        return self.is_fetching and self.is_taking


class Put(msgspec.Struct, gc=False):
    """Store a large value with these refs inside; gives way until there is room."""

    contained: Sequence[int] = ()


class Make(msgspec.Struct, gc=False):
    """A value with these refs inside: a return value, or (yielded) an item of a generator."""

    contained: tuple[int, ...] = ()
    is_stored: bool = False


Op = Sleep | Wait | Put | Make
Program = Generator[Op, Any, Sequence[Make] | None]
Body = Callable[["Frame"], Program]


class Raised(Exception):
    """The user code of a simulated task raises."""

    def __init__(self, *, is_retriable: bool = False) -> None:
        super().__init__("a simulated error")
        self.is_retriable = is_retriable


class Cancelled(Exception):
    """What a cancelled task gets at its next step."""


def get(*object_ids: int, may_run: bool = True) -> Wait:
    """Wait for all of these values."""
    return Wait(list(object_ids), len(object_ids), may_run=may_run)
