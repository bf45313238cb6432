"""Hearing: whether the doorbell hears frames of other hosts, which cannot ring it.

An MPI that talks TCP has its sockets in event queues of the kernel, and a doorbell that sleeps on those as well is
woken by bytes that come (``edges/host/event_queues.py``). Whether all frames come that way no MPI tells, and over RDMA
none do. So it is learned, by each rank for itself, from the looks after each sleep that nobody rang an end to: when
frames have ended several sleeps in a row, sleeps may be long; a frame that is found after a sleep which nothing ended
was not heard, and sleeps are short again, for twice as many frames each time that this happens. A queue that ends many
sleeps for nothing, that of a user's event loop perhaps, is not heard any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcfut.ports import Doorbell

#: So many frames in a row must have been heard, at first and at most.
N_HEARD_MIN: Final = 8
N_HEARD_MAX: Final = 1024
#: Sleeps that end by themselves sooner tell nothing.
TELLING_S: Final = 0.001
#: So many sleeps in a row may a queue end for nothing.
N_VAIN_MAX: Final = 100


class Hearing:
    """What one rank has learned, for all its sessions."""

    def __init__(self, doorbell: Doorbell) -> None:
        self.doorbell = doorbell
        self._n_heard = 0
        self._n_needed = N_HEARD_MIN
        #: By queue: the sleeps that it has ended for nothing since the last frame.
        self._n_vain: dict[int, int] = {}
        #: Whether a sleep has ended, by its time or by an event, and nothing has been found since.
        self.is_open = False
        #: The queues that ended the last sleep.
        self.called_by: Sequence[int] = ()

    @property
    def is_good(self) -> bool:
        """Whether this rank may sleep for long, because every rank can wake it in one way or another."""
        return self.doorbell.reaches_all or self._n_heard >= self._n_needed

    def note_sleep(self, timeout_s: float, *, is_rung: bool) -> None:
        """A sleep has ended. If an event had ended the last one, and nothing was found, that was for nothing."""
        if self.doorbell.reaches_all:
            return
        if self.is_open:
            for queue in self.called_by:
                self._note_vain(queue)
        self.called_by = self.doorbell.called_by
        # What comes while a thread gets up was not heard, and could not be; after short sleeps that is often so.
        self.is_open = not is_rung and (bool(self.called_by) or timeout_s >= TELLING_S)

    def _note_vain(self, queue: int) -> None:
        n_vain = self._n_vain[queue] = self._n_vain.get(queue, 0) + 1
        if n_vain >= N_VAIN_MAX:
            del self._n_vain[queue]
            self.doorbell.hear([other for other in self.doorbell.heard if other != queue])

    def note_look(self, n_frames: int) -> None:
        """Somebody has looked for frames after that."""
        if not n_frames:
            return
        self.is_open = False
        self._n_vain.clear()
        if self.called_by:
            self._n_heard += 1
            return
        if self._n_heard >= self._n_needed:
            self._n_needed = min(2 * self._n_needed, N_HEARD_MAX)
        self._n_heard = 0
