"""Makes a rank that leaves without having said goodbye die of a signal, where only that is a death to its MPI.

Open MPI's launcher tells the other ranks of one that is killed, and of one that leaves with status 0. Of one that
leaves with any other status it tells nobody who listens, and they would wait for it for ever.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import Final, NoReturn

_HANDLER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Exits:
    """Watches the ends of this process, until it says goodbye."""

    def __init__(self) -> None:
        """Begin."""
        self._pid = os.getpid()
        self._leave = os._exit
        os._exit = self._end
        # For `exit` of C, and STOP of Fortran. The handle is any address of our own; it tells this handler from others.
        self._handler = _HANDLER(lambda _: self._die())
        self._handle = ctypes.addressof(ctypes.c_char.from_buffer(room := bytearray(1)))
        self._room = room
        ctypes.CDLL(None)["__cxa_atexit"](self._handler, None, ctypes.c_void_p(self._handle))
        # When Python has ended the handler must not run any more, neither here nor in a copy that the user has forked.
        atexit.register(self._end_python)
        os.register_at_fork(after_in_child=self.allow)

    def allow(self) -> None:
        """From now on the process may leave as it likes."""
        if self._pid < 0:
            return
        self._pid = -1
        os._exit = self._leave
        # It runs the handler, which does nothing any more, and takes it from the list: Python will not be there later.
        ctypes.CDLL(None)["__cxa_finalize"](ctypes.c_void_p(self._handle))

    def _end(self, status: int) -> NoReturn:
        self._die()
        self._leave(status)

    def _end_python(self) -> None:
        if self._pid >= 0:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):  # It was closed, or there is none.
                    stream.flush()
            self._die()

    def _die(self) -> None:
        if os.getpid() == self._pid:  # A copy that C code has forked may leave.
            os.kill(self._pid, signal.SIGKILL)
