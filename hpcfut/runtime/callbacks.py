"""A thread that runs what others want to be run outside the engine: user code that is told of the end of a future."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from hpcfut.runtime.fatal import fatal


class CallbackThread:
    """Runs callables one after the other, on a thread that may wait inside hpcfut; started by the first of them."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See to it that the thread runs; before the first ``post``, because that is called inside turns."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="hpcfut-callbacks", daemon=True)
                self._thread.start()

    def post(self, call: Callable[[], None]) -> None:
        """Run this soon. Never blocks; any thread, even a finalizer."""
        self._calls.put(call)

    def _work(self) -> None:
        with fatal("the thread of callbacks"):
            while (call := self._calls.get()) is not None:
                call()
                del call  # It may hold the last ref to a large value.

    def close(self, grace_s: float) -> None:
        """Run what has been posted, and end; a callback that does not end in time is abandoned."""
        thread = self._thread
        if thread is not None:
            self._calls.put(None)
            if thread is not threading.current_thread():
                thread.join(grace_s)
