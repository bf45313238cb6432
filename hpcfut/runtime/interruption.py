"""Interruption: how ``TaskCancelledError`` gets into a task that runs on this rank.

Theory of operation

A task that waits inside hpcfut is woken, and its wait raises; so does every other call, before it returns. In code of
the user's the exception is set from outside, with ``PyThreadState_SetAsyncExc``, and Python raises it at the thread's
next bytecode. It must not strike inside hpcfut, where it would leave the core, say, in the middle; so a thread is
struck only while the topmost of its frames is the user's. Between a look at the frames and the strike the thread could
go on, so both happen inside one call of C functions, ``_strike``, during which no other thread can run Python. Then the
exception is raised in that frame, or at the very beginning of a function that it calls, or, if it returns, in the
function of hpcfut that called it, which expects it.

The core gives the order once; a thread of this module tries every millisecond until the exception is in, or the run is
over. Who is struck once, and catches the exception, goes on.
"""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import compress, repeat, starmap
from operator import is_, itemgetter
from types import CodeType, FrameType
from typing import Final

from hpcfut.model.errors import TaskCancelledError
from hpcfut.model.ids import name_of
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.waiter import Waiter
from hpcfut.wire.sessions import EndHindered, encode_session

PERIOD_S: Final = 0.001
#: Where an exception from outside must not strike; libraries on the public API are code like the user's.
_OWN_MODULES: Final = ("hpcfut.api.", "hpcfut.runtime.", "hpcfut.core.", "hpcfut.wire.", "hpcfut.edges.")

_set_async_exception: Final = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)
_NOTHING: Final = ctypes.py_object()


class Interruption:
    """The tasks that run on this rank, and those of them that are to be interrupted."""

    def __init__(self, engine: Engine, callers: Iterable[CodeType], stop_grace_s: float) -> None:
        """Begin; ``callers`` are the functions of hpcfut that call the code of a task."""
        self._engine = engine
        self._callers = frozenset(callers)
        self._stop_grace_s = stop_grace_s
        #: Tasks that run now, and their threads.
        self.running: dict[int, int] = {}
        #: What each blocked task waits with.
        self.blocked: dict[int, Waiter] = {}
        #: Tasks that were cancelled after they had been given out to run.
        self.cancelled: dict[int, None] = {}
        #: Tasks whose end needs more than that of others: cancelled ones, and those that have begun to print a line.
        self.marked: dict[int, None] = {}
        #: By task, what interrupts its code where that runs in a child process, or (forced) ends that.
        self.strikes: dict[int, Callable[[bool], None]] = {}
        #: Cancelled tasks whose processes are to be ended.
        self.forced: dict[int, None] = {}
        #: Cancelled tasks in which the exception has not been raised yet.
        self.pending: dict[int, None] = {}
        #: Called whenever somebody should look at what is pending.
        self.on_pending: Callable[[], None] = lambda: None
        self._thread: threading.Thread | None = None
        self._winding_down: threading.Thread | None = None
        self._lock = threading.Lock()
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGURG) == signal.SIG_DFL:
            # Without a handler in Python the signal of ``_try`` would pass unnoticed.
            signal.signal(signal.SIGURG, _do_nothing)

    def interrupt(self, task_id: int, is_forced: bool = False) -> None:
        """Raise ``TaskCancelledError`` in a task that was given out to run, as soon as that can be.

        ``is_forced``: or end its process, if it has one of its own.
        """
        if is_forced:
            self.forced[task_id] = None
        self.cancelled[task_id] = self.pending[task_id] = self.marked[task_id] = None
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="hpcfut-interrupter", daemon=True)
                self._thread.start()

    def end_wait(self, task_id: int) -> None:
        """Let a task whose process has ended wait for nothing any more: what it waits with raises at once."""
        self.pending[task_id] = None
        self.on_pending()
        waiter = self.blocked.get(task_id)
        if waiter is not None:
            waiter.tell()

    def is_over(self, task_id: int) -> None:
        """A task that was to be interrupted has ended, on this thread; what has not been raised will not be any more.

        Called once more if the exception was raised here instead.
        """
        self._forget(task_id)
        _set_async_exception(threading.get_ident(), _NOTHING)

    def _work(self) -> None:
        while True:
            time.sleep(PERIOD_S)
            with self._lock:
                if not self.pending:
                    self._thread = None
                    return
            for task_id in list(self.pending):
                self._try(task_id)

    def _forget(self, task_id: int) -> None:
        self.pending.pop(task_id, None)
        self.cancelled.pop(task_id, None)
        self.forced.pop(task_id, None)
        self.marked.pop(task_id, None)

    def _try(self, task_id: int) -> None:
        thread_id = self.running.get(task_id)
        if thread_id is None:
            # Nobody has taken it yet, unless it has ended.
            if task_id not in self._engine.core.runs.runs:
                self._forget(task_id)
            return
        self.on_pending()
        strike = self.strikes.get(task_id)
        if strike is not None:
            # The task stays pending until its child says that the exception has been raised there.
            strike(task_id in self.forced)
        waiter = self.blocked.get(task_id)
        if waiter is not None:
            waiter.tell()
        if strike is not None or waiter is not None:
            return
        frame = self._find_user_code(thread_id)
        # Not after the strike: the task could have gone on meanwhile, and be interrupted once more.
        if frame is None or self.pending.pop(task_id, self) is self:
            return
        if not _strike(thread_id, frame):
            self.pending[task_id] = None
            return
        if thread_id == threading.main_thread().ident:
            # Out of a system call: the handler does nothing, but Python runs it, and meets the exception there.
            signal.pthread_kill(thread_id, signal.SIGURG)

    def _find_user_code(self, thread_id: int) -> FrameType | None:
        """The topmost frame of the thread, if it is code of the user's that hpcfut did not call on the way."""
        top = frame = sys._current_frames().get(thread_id)
        while frame is not None:
            if frame.f_code in self._callers:
                return top if frame is not top else None
            if frame.f_globals.get("__name__", "").startswith(_OWN_MODULES):
                return None
            frame = frame.f_back
        return None

    # -- the end of the session --------------------------------------------------------------------------------------

    def wind_down(self) -> None:
        """The session is over: cancel what runs, without waiting for it."""
        if self.running:
            thread = threading.Thread(target=self._wind_down, name="hpcfut-wind-down", daemon=True)
            with suppress(RuntimeError):  # Python is about to end, and starts no threads any more; tasks end with it.
                thread.start()
                self._winding_down = thread

    def _wind_down(self) -> None:
        deadline = time.monotonic() + self._stop_grace_s
        while self.running and time.monotonic() < deadline:
            for task_id in list(self.running):
                if task_id not in self.cancelled:
                    self.interrupt(task_id)
            time.sleep(PERIOD_S)
        self._end_processes()
        core, end = self._engine.core, self._engine.end
        assert end is not None
        for task_id, thread_id in list(self.running.items()):
            name = core.runs.runs[task_id].template.name
            what = (
                f"{name} ({name_of(task_id)}) on rank {core.context.rank} did not end within "
                f"{self._stop_grace_s:g} s after {'the end of the script' if end.is_final else 'shutdown()'}"
            )
            if end.is_final or thread_id != threading.main_thread().ident:
                sys.stderr.write(f"hpcfut: task {what}; it is abandoned.\n")
                continue
            # The script would go on, but not without this rank, as rank 0 says.
            sentence = f"Task {what}, which cancelled it. Ranks end a session together, so that the job ends with it."
            self._engine.send_apart(0, encode_session(EndHindered(sentence)))
        sys.stderr.flush()

    def _end_processes(self) -> None:
        """End the processes of the tasks that have ones of their own, which need not be abandoned."""
        ended: dict[int, None] = {}
        deadline = time.monotonic() + self._stop_grace_s
        while time.monotonic() < deadline:
            for task_id in list(self.strikes):
                if task_id not in ended:
                    ended[task_id] = None
                    self.interrupt(task_id, is_forced=True)
            if not any(task_id in self.running for task_id in ended):
                return
            time.sleep(PERIOD_S)

    def wait_until_wound_down(self) -> None:
        """The session is over: wait until what runs here has ended, or has been abandoned with a sentence."""
        self._engine.hear_now()  # The turn that ended the session has come to its own end.
        if self._winding_down is not None:
            self._winding_down.join()


def _strike(thread_id: int, frame: FrameType) -> bool:
    """Set the exception in a thread if this is the topmost of its frames; gives whether it was."""
    tops = map(itemgetter(thread_id), starmap(sys._current_frames, [()]))
    exceptions = compress(repeat(TaskCancelledError), map(partial(is_, frame), tops))
    was_enabled = gc.isenabled()
    gc.disable()  # A collection could run finalizers, which are Python.
    try:
        # From here to the sum there is nothing but C, so that no other thread gets the GIL.
        return bool(sum(map(_set_async_exception, repeat(thread_id), exceptions)))
    except KeyError:  # The thread has ended.
        return False
    finally:
        if was_enabled:
            gc.enable()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass
