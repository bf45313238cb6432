"""From failures, as the core knows them, to the exceptions that users catch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from hpcfut.model.errors import HpcfutError, ObjectLostError, TaskCancelledError, TaskError, TaskUnschedulableError
from hpcfut.model.failure import CANCELLED, LOST, RAISED, UNSCHEDULABLE, Failure

_KINDS: dict[str, type[HpcfutError]] = {
    CANCELLED: TaskCancelledError,
    UNSCHEDULABLE: TaskUnschedulableError,
    LOST: ObjectLostError,
}


def exception_of(failure: Failure, loads_exception: Callable[[bytes], BaseException | None]) -> HpcfutError:
    """The exception that ``get`` raises for a failure."""
    if failure.kind != RAISED:
        return _KINDS.get(failure.kind, HpcfutError)(failure.text)
    cause = loads_exception(failure.payload)
    error = _make(cause, failure.text)
    error.cause = cause
    error.remote_traceback = failure.text
    error.__cause__ = cause
    return error


def _make(cause: BaseException | None, text: str) -> TaskError:
    """An exception that is a ``TaskError`` and, where its type allows that, also of the user's type."""
    if cause is None or isinstance(cause, TaskError):
        return TaskError(text)
    kind = _dual(type(cause))
    if kind is None:
        return TaskError(text)
    try:
        error = kind.__new__(kind, *cause.args)
        error.args = cause.args
        error.__dict__.update(cause.__dict__)
    except Exception:
        # The user's class makes its instances in a way of its own; the cause still tells everything.
        return TaskError(text)
    return error


@cache
def _dual(cause_type: type[BaseException]) -> type[TaskError] | None:
    try:
        return type(cause_type.__name__, (TaskError, cause_type), {"__module__": cause_type.__module__, "__slots__": ()})
    except TypeError:
        return None
