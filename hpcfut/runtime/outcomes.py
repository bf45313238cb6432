"""What comes of a task's code, in a rank or in a child process of one: results, an exception, or one process more."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, NoReturn

import msgspec

from hpcfut.model.failure import Failure
from hpcfut.wire.messages import Result


class IsolatedResults(msgspec.Struct):
    """The results of an isolated task, and refs that must live until the core has heard of them."""

    results: tuple[Result, ...]
    refs: list[Any]


class IsolatedTaskError(Exception):
    """An isolated task has failed, as told."""

    def __init__(self, failure: Failure, *, is_retriable: bool) -> None:
        super().__init__(failure.text)
        self.failure = failure
        self.is_retriable = is_retriable


class ActorExitError(BaseException):
    """``exit_actor()`` was called; no error of anybody, but it must get past the handlers of user code."""


def listed(value: Any, n_returns: int, name: str) -> list[Any]:
    """The results of a task that has several.

    Raises:
        ValueError: They are not as many as were promised.
    """
    try:
        values = list(value)
    except TypeError:
        values = None
    if values is None or len(values) != n_returns:
        what = f"{type(value).__name__}" if values is None else f"{len(values)} values"
        raise ValueError(
            f"Task {name} has num_returns={n_returns}, but it returned {what}. Return as many values as num_returns "
            f"says, in a tuple or a list."
        )
    return values


def trace_of(error: BaseException) -> str:
    """The traceback as Python prints it, and something in its place if the exception's own code fails meanwhile."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("hpcfut.runtime."):
            trace = trace.tb_next
        return "".join(traceback.format_exception(type(error), error, trace or error.__traceback__)).rstrip()
    except Exception as trouble:
        kind, other = type(error).__qualname__, type(trouble).__qualname__
        return f"{kind} (no traceback: making it raised {other} in the code of {kind})"


def end_copy(error: BaseException | None) -> NoReturn:
    """End this process, a child that a task forked and that has left the task's code: what follows is the rank's."""
    status = 1
    try:
        if error is None:
            status = 0
        elif isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = error.code or 0
        else:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status & 0xFF)
