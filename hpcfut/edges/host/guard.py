"""A process beside a rank that says so when the rank dies, for a launcher that would not.

MPICH's mpiexec ends the job at once when a rank dies, but it names a rank that it has killed itself as often as not, and
after an ``_exit(0)`` it may say nothing and report success. It learns of a death from the closing of a connection that
every rank inherits. The guard, a forked child, holds it open for a moment longer: it names the rank, and asks the
launcher through the same connection to end the job with a status that tells of failure.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

#: The connection to the launcher, and what is said through it (a line of PMI-1, which Hydra takes).
CONNECTION_VARIABLE: Final = "PMI_FD"
EXIT_STATUS: Final = 70
_ABORT: Final = b"cmd=abort exitcode=%d\n" % EXIT_STATUS
#: The launcher ends the guard together with the job, usually within milliseconds.
_LAUNCHER_TAKES_S: Final = 5.0
_READING_TAKES_S: Final = 1.0


class RankGuard:
    """Guards this process until it is dismissed or the process dies."""

    def __init__(self, rank: int, connection: int) -> None:
        """Fork the guard; to be made before MPI is initialised, whose memory had better not meet a fork."""
        sentence = (
            f"hpcfut: Rank {rank} (process {os.getpid()} on host {socket.gethostname()}) died before the job had "
            f"ended. What it printed last may tell why.\n"
        )
        reading, self._writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._writing)
                _guard(reading, connection, sentence.encode())
            finally:
                os._exit(0)
        os.close(reading)
        # A forked child of the user's must not pass for the living rank.
        os.register_at_fork(after_in_child=self._forget)

    @classmethod
    def of_environment(cls, rank: int, environ: Mapping[str, str]) -> RankGuard | None:
        """A guard for this rank of MPICH's mpiexec, if it gave the rank a connection."""
        connection = environ.get(CONNECTION_VARIABLE, "")
        return cls(rank, int(connection)) if connection.isdigit() else None

    def dismiss(self) -> None:
        """The rank is about to end in good order, or to end the job itself."""
        if self._writing < 0:
            return
        with suppress(OSError):  # The guard may have been killed.
            os.write(self._writing, b"x")
        with suppress(OSError):
            os.waitpid(self._pid, 0)
        self._forget()

    def _forget(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1


def _guard(reading: int, connection: int, sentence: bytes) -> None:
    # What is sent to the whole group of the rank is meant for the guard as well: it never outlives an end that the
    # launcher or the user has asked for.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    # Nobody who waits for the end of a file or a pipe of the rank shall wait for the guard.
    kept = sorted({2, reading, connection})
    for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
    if os.read(reading, 1):
        return
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
        return  # The launcher is gone, and the rank has followed it.
    os.write(2, sentence)
    _wait_until_read(2)
    os.write(connection, _ABORT)
    poll.poll(_LAUNCHER_TAKES_S * 1000)


def _wait_until_read(descriptor: int) -> None:
    """Wait until the launcher has taken in what was written: at the end of a job it drops what it has not."""
    deadline = time.monotonic() + _READING_TAKES_S
    with suppress(OSError):  # The rank may be told to write elsewhere, where nobody has to read it.
        while time.monotonic() < deadline:
            (n_unread,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))
            if not n_unread:
                return
            time.sleep(0.001)
