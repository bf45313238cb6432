"""Ctrl-C: where it is raised, and which rank hears it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from hpcfut.runtime.engine import Engine
from hpcfut.runtime.executor import Executor
from hpcfut.runtime.runtime import Runtime
from hpcfut.runtime.watching import ReadyObjects, watch

#: Nothing of this may be left in the middle.
_UNBREAKABLE = frozenset(
    function.__code__
    for function in (Runtime.wait, watch, *vars(ReadyObjects).values(), *vars(Engine).values())
    if hasattr(function, "__code__")
)


def catch_interrupts(runtime: Runtime) -> Callable[[], None]:
    """Raise Ctrl-C at the boundary of hpcfut, never in the middle of the core; gives what undoes that."""
    if threading.current_thread() is not threading.main_thread():
        return _nothing
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return _nothing  # The user has a handler of his own.

    def handle(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code in _UNBREAKABLE:
                runtime.interrupt()
                return
            if frame.f_code is Executor.execute.__code__:
                break  # User code, inside a task that runs on this stack.
            frame = frame.f_back
        signal.default_int_handler(number, frame)

    def install(*cell: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, handle)

    def restore() -> None:
        if shell is not None:
            shell.events.unregister("pre_run_cell", install)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    install()
    shell = _shell()
    if shell is not None:
        # A notebook puts Python's handler back for each cell.
        shell.events.register("pre_run_cell", install)
    return restore


def _shell() -> Any:
    """The IPython in which this runs, if it does."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def _nothing() -> None:
    """Nothing has been caught."""


def leave_interrupts_to_driver() -> None:
    """Some launchers send Ctrl-C to every rank; the driver of rank 0 alone decides what becomes of the job."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Not ignored, because the programs that a task starts would inherit that.
        signal.signal(signal.SIGINT, lambda number, frame: None)
