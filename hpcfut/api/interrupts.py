"""Ctrl-C: where it is raised, and which rank hears it."""

from __future__ import annotations

import signal
import threading
from types import FrameType

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


def catch_interrupts(runtime: Runtime) -> bool:
    """Raise Ctrl-C at the boundary of hpcfut, never in the middle of the core; gives whether that can be."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False  # The user has a handler of his own.

    def handle(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code in _UNBREAKABLE:
                runtime.interrupt()
                return
            if frame.f_code is Executor.execute.__code__:
                break  # User code, inside a task that runs on this stack.
            frame = frame.f_back
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handle)
    return True


def leave_interrupts_to_driver() -> None:
    """Some launchers send Ctrl-C to every rank; the driver of rank 0 alone decides what becomes of the job."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Not ignored, because the programs that a task starts would inherit that.
        signal.signal(signal.SIGINT, lambda number, frame: None)


def restore_interrupts() -> None:
    """What was caught is Python's again."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
