"""Spawning: a process is started for a rank that has died. It may die as well before it is there, or never come.

The call that starts it returns when the two processes have met, and never if the other one has ended before. So it is
made on a thread of its own, which stays inside MPI for ever then; another call on another thread is not held up by it.
A second thread watches: the new process says its number through a pipe as the first thing that it does, and the kernel
says when it has ended. One of the two threads decides what has become of it, and the other one heeds that.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

PairT = TypeVar("PairT")
AnswerT = TypeVar("AnswerT")

#: Who has not been met after this time is given up.
SPAWN_WITHIN_S: Final = 30.0

_CALLED: Final = "called"
_MET: Final = "met"
_TAKEN: Final = "taken"
_FAILED: Final = "failed"
_GIVEN_UP: Final = "given up"
_NUMBER: Final = struct.Struct("q")
#: What the thread of the call says when it has come to its end.
_NOBODY: Final = 0


def say_number(path: str) -> None:
    """The process that was started: tell who it is."""
    with open(path, "wb", buffering=0) as file:
        file.write(_NUMBER.pack(os.getpid()))


class Spawning(Generic[PairT, AnswerT]):
    """The start of one process."""

    def __init__(
        self,
        call: Callable[[str, Callable[[], bool]], PairT],
        greet: Callable[[PairT], AnswerT],
        take: Callable[[PairT, AnswerT], None],
        refuse: Callable[[PairT], None],
        fail: Callable[[str], None],
        within_s: float = SPAWN_WITHIN_S,
    ) -> None:
        """Begin.

        Args:
            call: Starts a process that says its number at this path, and meets it, unless it turns out to have ended.
                Like the next two, it is called on a thread of its own, and what it raises means that the process does
                not come.
            greet: Tells it what it must know, and waits for the answer.
            take: It is there, and has answered.
            refuse: It has come after it was given up.
            fail: It does not come; why.
            within_s: It is given up if it has not been met so soon.
        """
        self._call, self._greet, self._take, self._refuse, self._fail = call, greet, take, refuse, fail
        self._too_late_at = time.monotonic() + within_s
        self._within_s = within_s
        self._lock = threading.Lock()
        self._state = _CALLED
        self._reader, self._writer = os.pipe()
        #: What is readable when the process has ended; negative while nobody knows its number.
        self._process = -1
        self._watching = threading.Thread(target=self._watch, name="hpcfut-spawning", daemon=True)
        self._watching.start()
        threading.Thread(target=self._spawn, name="hpcfut-spawning", daemon=True).start()

    def wait(self, within_s: float) -> None:
        """Until it is there, or does not come."""
        self._watching.join(within_s)

    def _pass(self, *before: str, to: str) -> bool:
        """Go on to another state, unless the other thread has decided."""
        with self._lock:
            if self._state not in before:
                return False
            self._state = to
            return True

    def _has_ended(self) -> bool:
        """Whether the process has ended, as far as is known here; the thread that watches may not have run since."""
        with self._lock:
            if self._process >= 0:
                return bool(select.select([self._process], [], [], 0.0)[0])
            return self._state == _GIVEN_UP

    def _spawn(self) -> None:
        try:
            pair = self._call(f"/proc/{os.getpid()}/fd/{self._writer}", self._has_ended)
            if not self._pass(_CALLED, to=_MET):
                self._refuse(pair)
            else:
                answer = self._greet(pair)
                if self._pass(_MET, to=_TAKEN):
                    self._take(pair, answer)
        except Exception as error:  # Of MPI, whatever it is: the job goes on without another process.
            if self._pass(_CALLED, _MET, _TAKEN, to=_FAILED):
                self._fail(f"Starting another process failed: {error}")
        if self._state != _GIVEN_UP:
            os.write(self._writer, _NUMBER.pack(_NOBODY))

    def _watch(self) -> None:
        """The pipe stays open if this gives up, because the other process may still write to it."""
        while True:
            left_s = max(self._too_late_at - time.monotonic(), 0.0) if self._state == _CALLED else None
            watched = [self._reader] if self._process < 0 else [self._reader, self._process]
            ready, _, _ = select.select(watched, [], [], left_s)
            failure = ""
            if self._reader in ready:
                (number,) = _NUMBER.unpack(os.read(self._reader, _NUMBER.size))
                if number == _NOBODY:
                    break
                self._process = self._open(number)
            elif not ready and self._pass(_CALLED, to=_GIVEN_UP):
                failure = f"The process that was started for it was not there within {self._within_s:g} s."
            elif ready and self._pass(_CALLED, _MET, to=_GIVEN_UP):
                failure = "The process that was started for it ended before it was there."
            elif ready:
                self._close()
            if failure:
                self._close()
                self._fail(failure)
                return
        self._close()
        os.close(self._reader)
        os.close(self._writer)

    @staticmethod
    def _open(number: int) -> int:
        """What is readable when this process has ended; negative where the kernel does not tell."""
        try:
            return os.pidfd_open(number)
        except ProcessLookupError:  # It has ended, and this is always readable.
            return os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return -1

    def _close(self) -> None:
        with self._lock:
            if self._process >= 0:
                os.close(self._process)
            self._process = -1
