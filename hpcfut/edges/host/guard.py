"""A process beside a rank that does what is left to do when the rank dies, where the launcher would not.

MPICH's mpiexec ends the job at once when a rank dies, but it names a rank that it has killed itself as often as not,
and after an ``_exit(0)`` it may say nothing and report success. It learns of a death from the closing of a connection
that every rank inherits. The guard, a forked child, holds it open for a moment longer: it names the rank, and asks the
launcher through the same connection to end the job with a status that tells of failure. Ranks that are killed while MPI
starts leave named segments behind, whose names the guard takes away first.

And mpiexec hands Ctrl-C on to all ranks, and then waits for them; a script that catches it, or C code that keeps
Python from noticing, would never end. The guard of rank 0, which Ctrl-C reaches as well, gives the script a moment for
its last words, and then ends the job.

Open MPI's mpirun tells of a death itself. But if it is killed, its ranks follow it, and its own temporary folder stays:
the guard of the first rank on a host removes that.

`hpcfut run` does all this and more for the jobs that it starts.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from hpcfut.edges.host.launch_environment import Launch
from hpcfut.edges.host.processes import start_ticks
from hpcfut.edges.host.segments import stop_and_unname

#: The connection to MPICH's launcher, and what is said through it (a line of PMI-1).
CONNECTION_VARIABLE: Final = "PMI_FD"
EXIT_STATUS: Final = 70
#: After Ctrl-C a script may take so long to end; all that the job has must be gone within two seconds.
INTERRUPT_GRACE_S: Final = 1.2
INTERRUPT_STATUS: Final = 130
_ABORT: Final = b"cmd=abort exitcode=%d\n"
#: The temporary folder of Open MPI's launcher, which is named after its process.
FOLDER_VARIABLE: Final = "PMIX_SERVER_TMPDIR"
_FOLDER: Final = re.compile(r"(ompi|prte(run|d)?)\.(\w+\.)*(?P<pid>\d+)")
#: The launcher ends the guard together with the job, usually within milliseconds.
_LAUNCHER_TAKES_S: Final = 5.0
_READING_TAKES_S: Final = 1.0


class RankGuard:
    """Guards this process until it is dismissed or the process dies."""

    def __init__(
        self, last_act: Callable[[], None], keeps: set[int], after_interrupt: Callable[[], None] | None = None
    ) -> None:
        """Fork the guard; to be made before MPI is initialised, whose memory had better not meet a fork.

        Args:
            last_act: What the guard does when the process has died.
            keeps: Descriptors that it needs for that.
            after_interrupt: What it does some time after Ctrl-C, if the process has not ended by then; without it,
                Ctrl-C ends the guard.
        """
        reading, self._writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._writing)
                _shut_off(keeps | {reading})
                if after_interrupt is not None:
                    _await_interrupt(after_interrupt)
                if not os.read(reading, 1):
                    last_act()
            finally:
                os._exit(0)
        os.close(reading)
        # A forked child of the user's must not pass for the living rank.
        os.register_at_fork(after_in_child=self._forget)

    @classmethod
    def of_launch(cls, launch: Launch, environ: Mapping[str, str], *, is_interactive: bool) -> RankGuard | None:
        """The guard that this rank needs under its launcher, if any; Ctrl-C does not end an interactive session."""
        connection = environ.get(CONNECTION_VARIABLE, "")
        if launch.launcher == "mpich" and connection.isdigit():
            rank, launcher, descriptor = os.getpid(), os.getppid(), int(connection)
            sentence = (
                f"hpcfut: Rank {launch.rank} (process {os.getpid()} on host {socket.gethostname()}) died before the "
                f"job had ended. What it printed last may tell why.\n"
            ).encode()
            ends_job = launch.rank == 0 and not is_interactive
            return cls(
                lambda: _tell(sentence, descriptor, EXIT_STATUS, launcher),
                {descriptor, 2},
                (lambda: _end(rank, descriptor, launcher)) if ends_job else None,
            )
        if launch.launcher == "openmpi" and environ.get("OMPI_COMM_WORLD_LOCAL_RANK") == "0":
            folder, launcher = Path(environ.get(FOLDER_VARIABLE, "")), os.getppid()
            match, started = _FOLDER.fullmatch(folder.name), start_ticks(launcher)
            if match is not None and int(match["pid"]) == launcher and started:
                return cls(lambda: _remove_after(launcher, started, folder), set())
        return None

    @classmethod
    def of_misfit(cls, launch: Launch, environ: Mapping[str, str]) -> RankGuard | None:
        """The guard of a rank that is about to end because it cannot meet the others, with words of its own.

        MPICH's launcher would let them wait for it for ever.
        """
        connection = environ.get(CONNECTION_VARIABLE, "")
        if launch.launcher == "mpich" and connection.isdigit():
            launcher = os.getppid()
            return cls(lambda: _tell(b"", int(connection), 1, launcher), {int(connection), 2})
        return None

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


def _shut_off(kept: set[int]) -> None:
    # What is sent to the whole group of the rank is meant for the guard as well: it never outlives an end that the
    # launcher or the user has asked for.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in {0, 1, 2} - kept:
        os.dup2(nothing, descriptor)
    # Nobody who waits for the end of a file or a pipe of the rank shall wait for the guard.
    bounds = sorted({2} | kept)
    for low, high in zip(bounds, [*bounds[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)


# -- MPICH -------------------------------------------------------------------------------------------------------------


def _tell(sentence: bytes, connection: int, status: int, launcher: int) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
        return  # The launcher is gone, and the rank has followed it.
    os.write(2, sentence)
    _wait_until_read(2)
    stop_and_unname(launcher)
    os.write(connection, _ABORT % status)
    poll.poll(_LAUNCHER_TAKES_S * 1000)


def _await_interrupt(act: Callable[[], None]) -> None:
    """Do this some time after the first Ctrl-C."""
    signal.signal(signal.SIGALRM, lambda number, frame: act())
    signal.signal(signal.SIGINT, lambda number, frame: _start_timer())


def _start_timer() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, INTERRUPT_GRACE_S)


def _end(rank: int, connection: int, launcher: int) -> NoReturn:
    """End the whole job, because this process of it does not."""
    if os.getppid() == rank:
        stop_and_unname(launcher)
        os.write(connection, _ABORT % INTERRUPT_STATUS)
        os.kill(rank, signal.SIGKILL)
    os._exit(0)


def _wait_until_read(descriptor: int) -> None:
    """Wait until the launcher has taken in what was written: at the end of a job it drops what it has not."""
    deadline = time.monotonic() + _READING_TAKES_S
    with suppress(OSError):  # The rank may write elsewhere, where nobody has to read it.
        while time.monotonic() < deadline:
            (n_unread,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))
            if not n_unread:
                return
            time.sleep(0.001)  # A pipe does not tell its writer when it has been read.


# -- Open MPI ----------------------------------------------------------------------------------------------------------


def _remove_after(launcher: int, started: int, folder: Path) -> None:
    """Remove the folder of a launcher that is dead, or dies soon; a living one tidies up by itself."""
    deadline = time.monotonic() + _LAUNCHER_TAKES_S
    while start_ticks(launcher) == started:
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)  # The launcher is a parent, not a child: only its absence tells.
    shutil.rmtree(folder, ignore_errors=True)
