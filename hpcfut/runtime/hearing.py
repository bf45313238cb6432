"""Hearing: whether the doorbell hears frames of other hosts, which cannot ring it.

An MPI that talks TCP has its sockets in event queues of the kernel, and a doorbell that sleeps on those as well is
woken by bytes that come (``edges/host/event_queues.py``). Whether all frames come that way no MPI tells, and over RDMA
none do. So it is learned, by each rank for itself, from the looks after each sleep that nobody rang an end to: when
frames have ended several sleeps in a row, sleeps may be long; a frame that is found after a sleep which nothing ended
was not heard, and sleeps are short again. Queues that end many sleeps for nothing are not heard any more.
"""

from __future__ import annotations

from typing import Final

from hpcfut.ports import Doorbell

#: So many frames in a row must have been heard.
N_HEARD_MIN: Final = 8
#: So many sleeps in a row may be ended for nothing.
N_VAIN_MAX: Final = 100


class Hearing:
    """What one rank has learned."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._n_heard = 0
        self._n_vain = 0
        #: Whether a sleep has ended, by its time or by an event, and nothing has been found since.
        self.is_open = False
        self.was_called = False

    @property
    def is_good(self) -> bool:
        """Whether this rank may sleep for long, because every rank can wake it in one way or another."""
        return self._doorbell.reaches_all or self._n_heard >= N_HEARD_MIN

    def note_sleep(self, *, is_rung: bool) -> None:
        """A sleep has ended. If an event had ended the last one, and nothing was found, that was for nothing."""
        if self._doorbell.reaches_all:
            return
        if self.is_open and self.was_called:
            self._n_vain += 1
            if self._n_vain >= N_VAIN_MAX:
                self._doorbell.hear(())
                self._n_heard = 0
        self.was_called = self._doorbell.was_called
        self.is_open = not is_rung

    def note_look(self, n_frames: int) -> None:
        """Somebody has looked for frames after that."""
        if n_frames:
            self.is_open = False
            self._n_heard = self._n_heard + 1 if self.was_called else 0
            self._n_vain = 0
