"""The doorbell of a rank: how ranks of one host wake each other without a word through MPI.

A rank sleeps on a pipe of its own. Before that it says so in its byte of a page that all ranks of the host share, and
looks for frames once more. Who has sent it a frame looks at that byte, and rings: it takes the byte back, so that
others need not ring as well, and then writes to the pipe, which peers opened through ``/proc/PID/fd`` at the start.

Why no ring is lost: the sleeper writes its byte and then reads its frames, the sender writes a frame and then reads the
byte, so one of the two sees the other. A processor may swap such a write and read unless there is a fence between them.
That of the sleeper (``membarrier``, a microsecond) is at the same time one for every thread of every process that has
registered for it, so the senders, who are on the task path, need none. Who takes the byte back rings after that, and a
sleeper that a ring has woken looks again.

Where the kernel has no such fence, and where ``/proc`` of a neighbour is out of reach, short sleeps stand in for the
bell; all ranks of a host do it one way or the other. Other hosts cannot ring: for their frames the sleeper waits on the
event queues of MPI as well, and sleeps shortly where that is not enough (``runtime/hearing.py``).

Page and pipes have no names: they vanish with the last process that has them open, however it ends. A peer opens a pipe
for both directions, so that writing to that of a dead rank is no error and raises no signal; and nobody blocks on one.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import platform
import select
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from hpcfut.model.roster import N_REPLACEMENTS_MAX
from hpcfut.ports import SLEEPS

#: The system call ``membarrier`` and two of its commands.
_MEMBARRIER: Final = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365}
_GLOBAL_EXPEDITED: Final = 2
_REGISTER_GLOBAL_EXPEDITED: Final = 4
#: ``select``, which alone keeps times below a millisecond, takes no descriptors from here on.
_DESCRIPTORS_MAX: Final = 1024
_NBYTES_TAKEN: Final = 4096


class _Card(msgspec.Struct, array_like=True, frozen=True):
    """Where neighbours find the pipe and the page of a rank: descriptors, each with the device and inode behind it."""

    pid: int
    pipe: tuple[int, int, int]
    page: tuple[int, int, int]


class HostDoorbell:
    """Implements ``ports.Doorbell``. Until it has met the neighbours, only threads of the own rank can ring."""

    def __init__(self, rank: int, n_ranks: int) -> None:
        self._rank = rank
        self._pipe, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._page = os.memfd_create("hpcfut-doorbell")
        os.ftruncate(self._page, n_ranks + N_REPLACEMENTS_MAX)
        self._pipes: dict[int, int] = {rank: writing}
        self.asleep = memoryview(bytearray(n_ranks + N_REPLACEMENTS_MAX))
        self.reaches_all = n_ranks == 1
        self.rang_at = 0.0
        self.heard: Sequence[int] = ()
        self.called_by: Sequence[int] = ()
        # With the GIL, which takes longer to come back than the call.
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._number = _MEMBARRIER.get(platform.machine(), -1)
        self._is_shared = False
        #: Whether there are rings to take; a rank that was woken has more urgent things to do at first.
        self._is_rung = False

    # -- at the start of a job -----------------------------------------------------------------------------------------

    @classmethod
    def among(
        cls, neighbours: Sequence[int], rank: int, n_ranks: int, gather: Callable[[bytes], list[bytes]]
    ) -> HostDoorbell:
        """One that these ranks of the host, the own one included, can ring if possible; all ranks of the job do it.

        Args:
            neighbours: The ranks of this host.
            rank: The own rank.
            n_ranks: The number of ranks of the job.
            gather: Gives every rank the bytes of all ranks, in the order of the ranks.
        """
        doorbell = cls(rank, n_ranks)
        cards = gather(doorbell.card())
        can_ring = doorbell.meet({neighbour: cards[neighbour] for neighbour in neighbours})
        answers = gather(b"y" if can_ring else b"n")
        doorbell.agree(all(answers[neighbour] == b"y" for neighbour in neighbours), len(neighbours) == n_ranks)
        return doorbell

    def card(self) -> bytes:
        """What the neighbours must know."""
        return msgspec.msgpack.encode(_Card(os.getpid(), _identity(self._pipe), _identity(self._page)))

    def meet(self, cards: Mapping[int, bytes]) -> bool:
        """Open the pipes of the neighbours, whose cards these are with the own one; returns whether all can be rung."""
        if self._pipe >= _DESCRIPTORS_MAX or self._call(self._number, _REGISTER_GLOBAL_EXPEDITED, 0, 0):
            return False
        known = {rank: msgspec.msgpack.decode(card, type=_Card) for rank, card in cards.items()}
        first = min(known)
        try:
            if first != self._rank:
                page = _open(known[first].pid, known[first].page)
                os.close(self._page)
                self._page = page
            for rank, card in known.items():
                if rank != self._rank:
                    self._pipes[rank] = _open(card.pid, card.pipe)
        except OSError:
            return False
        return True

    def admit(self, rank: int, card: bytes) -> bool:
        """A rank of this host has come, whose card this is; returns whether it can be rung."""
        if rank in self._pipes:
            return True
        try:
            known = msgspec.msgpack.decode(card, type=_Card)
            self._pipes[rank] = _open(known.pid, known.pipe)
        except OSError:
            return False
        return True

    def agree(self, is_shared: bool, reaches_all: bool) -> None:
        """Begin, if all neighbours could meet all others; and all ranks of the job may be neighbours."""
        if is_shared:
            self.asleep = memoryview(mmap.mmap(self._page, os.fstat(self._page).st_size))
        self._is_shared = is_shared
        self.reaches_all = is_shared and reaches_all

    # -- sleeping and ringing ------------------------------------------------------------------------------------------

    def ring(self, rank: int) -> None:
        """Wake a rank, the own one included, or keep it from falling asleep; never blocks."""
        self.asleep[rank] = 0
        if rank != self._rank:
            self.rang_at = time.monotonic()
        # A full pipe is a ring as well.
        with suppress(BlockingIOError):
            os.write(self._pipes[rank], b"r")

    def lie_down(self, how: int = SLEEPS) -> None:
        """Take the rings that have come, then say that this rank sleeps: who posts after that rings again."""
        if self._is_rung:
            self._is_rung = False
            with suppress(BlockingIOError):
                os.read(self._pipe, _NBYTES_TAKEN)
        self.asleep[self._rank] = how
        if self._is_shared:
            self._call(self._number, _GLOBAL_EXPEDITED, 0, 0)

    def sleep(self, timeout_s: float) -> bool:
        """Sleep until rung, or for this long; a ring that has not been taken counts. Returns whether it was rung."""
        ready = self._ready(timeout_s)
        if self._pipe in ready:
            self.called_by = ()
            self._is_rung = True
            return True
        self.called_by = ready
        return not self.asleep[self._rank]

    def _ready(self, timeout_s: float) -> Sequence[int]:
        try:
            if self._pipe < _DESCRIPTORS_MAX:
                return select.select((self._pipe, *self.heard), (), (), timeout_s)[0]
            poll = select.poll()
            for descriptor in (self._pipe, *self.heard):
                poll.register(descriptor, select.POLLIN)
            return [descriptor for descriptor, _ in poll.poll(math.ceil(1000 * timeout_s))]
        except (OSError, ValueError):
            if not self.heard:
                raise
            # A library has closed its queue.
            self.heard = ()
            return ()

    def get_up(self) -> None:
        """Say that this rank is awake."""
        self.asleep[self._rank] = 0

    def hear(self, queues: Sequence[int]) -> None:
        """From now on these event queues of this process, and no others, end a sleep when they are readable."""
        self.heard = tuple(queue for queue in queues if queue < _DESCRIPTORS_MAX)

    def forget(self, rank: int) -> None:
        """A rank is dead, and is not rung any more."""
        self.asleep[rank] = 0
        pipe = self._pipes.pop(rank, None)
        if pipe is not None:
            os.close(pipe)

    def close(self) -> None:
        """Give everything back."""
        self.asleep.release()
        for descriptor in (self._pipe, self._page, *self._pipes.values()):
            os.close(descriptor)


def _identity(descriptor: int) -> tuple[int, int, int]:
    found = os.fstat(descriptor)
    return descriptor, found.st_dev, found.st_ino


def _open(pid: int, identity: tuple[int, int, int]) -> int:
    """Open what stands behind a descriptor of another process, and make sure that it is that."""
    descriptor = os.open(f"/proc/{pid}/fd/{identity[0]}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    if _identity(descriptor)[1:] != identity[1:]:
        os.close(descriptor)
        raise FileNotFoundError(f"Process {pid} has another file as its descriptor {identity[0]}.")
    return descriptor
