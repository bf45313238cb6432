"""From failures, as the core knows them, to the exceptions that users catch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import MemberDescriptorType
from typing import Any, Final

from hpcfut.model.errors import (
    ActorDiedError,
    ActorUnavailableError,
    HpcfutError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    ObjectStoreFullError,
    OutOfMemoryError,
    OwnerDiedError,
    TaskCancelledError,
    TaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from hpcfut.model.failure import (
    ACTOR_DIED,
    ACTOR_UNAVAILABLE,
    CANCELLED,
    CRASHED,
    FULL,
    LOST,
    OUT_OF_MEMORY,
    OWNER_DIED,
    RAISED,
    UNRECOVERABLE,
    UNSCHEDULABLE,
    Failure,
)

_KINDS: dict[str, type[HpcfutError]] = {
    CANCELLED: TaskCancelledError,
    UNSCHEDULABLE: TaskUnschedulableError,
    LOST: ObjectLostError,
    UNRECOVERABLE: ObjectReconstructionFailedError,
    OWNER_DIED: OwnerDiedError,
    FULL: ObjectStoreFullError,
    CRASHED: WorkerCrashedError,
    OUT_OF_MEMORY: OutOfMemoryError,
    ACTOR_DIED: ActorDiedError,
    ACTOR_UNAVAILABLE: ActorUnavailableError,
}


def exception_of(failure: Failure, loads_exception: Callable[[bytes], BaseException | None]) -> HpcfutError:
    """The exception that ``get`` raises for a failure."""
    if failure.kind != RAISED:
        return _KINDS.get(failure.kind, HpcfutError)(failure.text)
    return _told(loads_exception(failure.payload), failure.text)


def _told(cause: BaseException | None, text: str) -> TaskError:
    error = _make(cause, text)
    # Not ``__cause__``: printed, it would only repeat the last line of the text.
    _set(error, "cause", cause)
    _set(error, "remote_traceback", text)
    return error


def _make(cause: BaseException | None, text: str) -> TaskError:
    """An exception that is a ``TaskError`` and, where its type allows that, also of the user's type."""
    if cause is None or isinstance(cause, TaskError):
        return TaskError(text)
    cause_type: Any = type(cause)
    kind = _dual(cause_type)
    if kind is None:
        return TaskError(text)
    try:
        error = _blank(kind, cause.args)
        _set(error, "args", cause.args)
        error.__dict__.update(cause.__dict__)
        _copy_members(cause, error)
    except Exception:  # The user's class makes its instances in a way of its own; the cause still tells everything.
        return TaskError(text)
    return error


#: Sets an attribute of an exception without asking its class, which may be a frozen dataclass.
_set: Final = BaseException.__setattr__


def _blank(kind: type[TaskError], arguments: tuple[Any, ...]) -> TaskError:
    """An instance without calling the user's constructor, which may want other arguments than those that it kept."""
    try:
        return BaseException.__new__(kind, *arguments)
    except TypeError:  # ``OSError`` and exception groups insist on their own.
        return kind.__new__(kind, *arguments)


def _copy_members(cause: BaseException, error: BaseException) -> None:
    """Copy what is kept outside the ``__dict__``: slots, and what built-in types keep in C, such as ``errno``."""
    for kind in type(cause).__mro__:
        for member in vars(kind).values():
            if isinstance(member, MemberDescriptorType):
                with suppress(AttributeError, TypeError):  # It was never set, or ``__new__`` alone may set it.
                    member.__set__(error, member.__get__(cause))


@cache
def _dual(cause_type: type[BaseException]) -> type[TaskError] | None:
    def reduce(self: TaskError) -> tuple[Any, ...]:
        return _told, (self.cause, self.remote_traceback)

    members = {"__module__": cause_type.__module__, "__slots__": (), "__reduce__": reduce}
    try:
        return type(cause_type.__name__, (TaskError, cause_type), members)
    except Exception:  # It refuses to be subclassed, or its metaclass wants more than that.
        return None
