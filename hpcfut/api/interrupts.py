"""Ctrl-C: where it is raised, and which rank hears it.

Python drops what is raised in a ``__del__`` method or a weakref callback, and tells ``sys.unraisablehook`` of it. Some
libraries keep the main thread there for much of the time (h5py does), and a script whose Ctrl-C came in such a moment
would go on as if nobody had pressed a key. So the signal is sent again a moment later, and again, until it meets the
main thread where an exception has somewhere to go.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

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
#: A Ctrl-C that was dropped comes again after this time, in which a callback is usually over.
_AGAIN_S: Final = 0.01


def catch_interrupts(runtime: Runtime) -> Callable[[], None]:
    """Raise Ctrl-C at the boundary of hpcfut, never in the middle of the core; gives what undoes that."""
    if threading.current_thread() is not threading.main_thread():
        return _nothing
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return _nothing  # The user has a handler of his own.
    tell_before = sys.unraisablehook

    def handle(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code in _UNBREAKABLE:
                runtime.interrupt()
                return
            if frame.f_code is tell.__code__:
                _interrupt_again(handle)  # Python drops what is raised in there as well.
                return
            if frame.f_code is Executor.execute.__code__:
                break  # User code, inside a task that runs on this stack.
            frame = frame.f_back
        signal.default_int_handler(number, frame)

    def tell(dropped: sys.UnraisableHookArgs) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        is_ours = is_main and signal.getsignal(signal.SIGINT) is handle
        if is_ours and dropped.exc_type is KeyboardInterrupt:
            _interrupt_again(handle)
        else:
            tell_before(dropped)

    def install(*cell: object) -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, handle)

    def restore() -> None:
        if shell is not None:
            shell.events.unregister("pre_run_cell", install)
        if sys.unraisablehook is tell:
            sys.unraisablehook = tell_before
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    install()
    sys.unraisablehook = tell
    shell = _shell()
    if shell is not None:
        # A notebook puts Python's handler back for each cell.
        shell.events.register("pre_run_cell", install)
    return restore


def _interrupt_again(handle: Callable[[int, FrameType | None], None]) -> None:
    """Send the main thread, which this is, another Ctrl-C in a moment, unless it means something else by then."""

    def send() -> None:
        # The session may have ended meanwhile, and Python's own handler be back.
        if signal.getsignal(signal.SIGINT) in (handle, signal.default_int_handler):
            signal.pthread_kill(main_ident, signal.SIGINT)

    main_ident = threading.get_ident()
    timer = threading.Timer(_AGAIN_S, send)
    timer.daemon = True
    with suppress(RuntimeError):  # Python is about to end, and starts no threads any more.
        timer.start()


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
