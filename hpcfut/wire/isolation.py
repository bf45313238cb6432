"""What a rank and a child process of it, in which the code of isolated tasks runs, say to each other.

The rank says ``CallBegun``; the child asks for whatever the code wants of hpcfut, one question at a time, and is
answered each; then it says ``CallReturned`` or ``CallRaised``, and, when it has dropped what the call had,
``CallEnded``. Values that are too large for a frame follow it, in the order in which they stand in it. With all that
the child says it tells which refs and views it has meanwhile come to hold, and which it holds no more; since the rank
says nothing unless it is its turn, both know then exactly what the other one knows.
"""

from __future__ import annotations

import msgspec

from hpcfut.model.failure import Failure
from hpcfut.model.template import TaskTemplate


class ChildStart(msgspec.Struct, array_like=True):
    """What a child is told about its rank."""

    rank: int
    path: list[str]
    argv: list[str]
    #: How memory of the ranks of the host is mapped, as the arena gives it.
    guide: list[tuple[int, bytes, bytes]]
    nbytes_inline_max: int


class Shown(msgspec.Struct, array_like=True):
    """A value for the child: inline; or in the memory of a rank of the host; or, for rank -1, behind the frame.

    The rank keeps what it shows in memory until it is told that ``number`` is closed.
    """

    payload: bytes | None
    nbytes: int = 0
    rank: int = -1
    start: int = 0
    number: int = 0
    #: Why there is no value.
    failure: Failure | None = None


class Made(msgspec.Struct, array_like=True):
    """A value of the child's: inline, or behind the frame."""

    payload: bytes | None
    nbytes: int
    contained: tuple[int, ...]


class CallBegun(msgspec.Struct, array_like=True, tag=1):
    """Run the code of a task; the template is there if the child does not have it yet."""

    task_id: int
    template_id: int
    template: TaskTemplate | None
    payload: bytes
    arguments: list[Shown]


class Answered(msgspec.Struct, array_like=True, tag=2):
    """What was asked for is done; ``ids`` are new ones, which the child holds, or those that are ready."""

    ids: list[int]
    values: list[Shown | None] = []
    #: Whether a wait came to its end.
    is_done: bool = True


class Refused(msgspec.Struct, array_like=True, tag=3):
    """It raised this."""

    payload: bytes


class ObjectMade(msgspec.Struct, array_like=True, tag=10):
    """Put a value."""

    made: Made


class TaskMade(msgspec.Struct, array_like=True, tag=11):
    """Submit a task."""

    template_id: int
    n_returns: int
    payload: bytes
    arguments: tuple[int, ...]
    nested: tuple[int, ...]


class FunctionMade(msgspec.Struct, array_like=True, tag=12):
    """Register a remote function; the rank gives the template its id."""

    template: TaskTemplate


class WaitWanted(msgspec.Struct, array_like=True, tag=13):
    """Wait, as ``Runtime.wait`` does."""

    object_ids: list[int]
    n_wanted: int
    timeout_s: float | None
    is_fetching: bool
    is_taking: bool


class CancelWanted(msgspec.Struct, array_like=True, tag=14):
    """Cancel the task that makes an object."""

    object_id: int
    is_recursive: bool
    is_forced: bool


class CallReturned(msgspec.Struct, array_like=True, tag=20):
    """The code has returned; one value for each of the task's results."""

    results: list[Made]


class CallRaised(msgspec.Struct, array_like=True, tag=21):
    """The code has raised."""

    text: str
    payload: bytes
    is_retriable: bool
    is_cancelled: bool


class CallEnded(msgspec.Struct, array_like=True, tag=22):
    """The child is ready for the next call."""


Question = ObjectMade | TaskMade | FunctionMade | WaitWanted | CancelWanted
Answer = Answered | Refused


class Said(msgspec.Struct, array_like=True):
    """What the child says."""

    what: Question | CallReturned | CallRaised | CallEnded
    #: Refs that it has come to hold, and then those that it holds no more.
    taken: list[int] = []
    dropped: list[int] = []
    #: Views that are gone.
    closed: list[int] = []
    #: Remote functions of its own that nobody can call any more.
    forgotten: list[int] = []
    #: The exception that a cancellation wanted has been raised there.
    is_struck: bool = False


decode_start = msgspec.msgpack.Decoder(ChildStart).decode
decode_said = msgspec.msgpack.Decoder(Said).decode
decode_told = msgspec.msgpack.Decoder(CallBegun | Answered | Refused).decode
encode = msgspec.msgpack.Encoder().encode
