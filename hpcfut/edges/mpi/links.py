"""Links: the ways between a process that is started for a dead rank and the ranks that live, each a pair on its own.

What was found out about Open MPI 5.0.11 on one host: a process is spawned, and a connection made, by two processes
alone, on threads of theirs, while others go on with all they do. A connection to a process that has died is never made,
and its thread stays inside MPI for ever; nothing else is held up by that, not even the end. So whoever calls what is
here does it on a thread that may be given up. Processes that were not started together talk through TCP, on one host as
well. All that are connected leave MPI together.

Not avoided: a process that dies after ``MPI_Comm_spawn`` has returned, and before the first message of
``MPI_Intercomm_merge``. That asks PMIx for the address of the dead without end, under a lock of the TCP transport that
every poll of this process may need. The window is short, because it is looked first whether the process has ended.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from hpcfut.edges.mpi.surviving import SurvivingTransport
from hpcfut.model.errors import HpcfutError

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpcfut.ports import Doorbell


class Pair:
    """Two processes that have just met. Everything here waits for the other one, without end if it is dead."""

    def __init__(self, meeting: MPI.Intercomm, *, is_elder: bool) -> None:
        """Meet it; one of the two is the elder, who is rank 0 of the pair."""
        from mpi4py import MPI

        meeting.Set_errhandler(MPI.ERRORS_RETURN)
        self.comm = meeting.Merge(high=not is_elder)
        self.comm.Set_errhandler(MPI.ERRORS_RETURN)
        self.peer = int(is_elder)

    def send(self, data: bytes) -> None:
        """Give the other one some bytes."""
        self.comm.Send(array("q", [len(data)]), self.peer)
        self.comm.Send(data, self.peer)

    def receive(self) -> bytes:
        """Take what it gives."""
        size = array("q", [0])
        self.comm.Recv(size, self.peer)
        data = bytearray(size[0])
        self.comm.Recv(data, self.peer)
        return bytes(data)

    def link(self, rank: int, doorbell: Doorbell) -> Link:
        """Frames and data between the two from now on; both do it. ``rank`` is the other one's in the job."""
        return Link(self, rank, doorbell)


class Link(SurvivingTransport):
    """A transport between two ranks, which have other numbers there."""

    def __init__(self, pair: Pair, rank: int, doorbell: Doorbell) -> None:
        super().__init__(pair.comm, cast("Doorbell", _BellOf(doorbell, rank, pair.peer)))
        #: The number of the other rank here.
        self.peer = pair.peer


class _BellOf:
    """The doorbell of one rank, under the number that it has in a pair."""

    def __init__(self, doorbell: Doorbell, rank: int, peer: int) -> None:
        self._doorbell = doorbell
        self._rank = rank
        self.asleep = doorbell.asleep[rank - peer : rank + 1]

    def ring(self, _: int) -> None:
        self._doorbell.ring(self._rank)

    def forget(self, _: int) -> None:
        self._doorbell.forget(self._rank)


def spawn(arguments: Sequence[str], folder: str, has_ended: Callable[[], bool]) -> Pair:
    """Start a Python process that calls ``elder``; the two have met then. Raises what MPI raises if that fails.

    ``has_ended``: whether it has ended meanwhile; then nothing is sent to it.
    """
    from mpi4py import MPI

    info = MPI.Info.Create()
    # All slots of the host may be taken, as far as the launcher knows.
    info.Set("map_by", ":oversubscribe")
    info.Set("wdir", folder)
    MPI.COMM_SELF.Set_errhandler(MPI.ERRORS_RETURN)
    try:
        meeting = MPI.COMM_SELF.Spawn(sys.executable, list(arguments), 1, info=info)
        if has_ended():
            raise HpcfutError("It ended before it was there.")
        return Pair(meeting, is_elder=True)
    finally:
        info.Free()


def elder() -> Pair | None:
    """Meet the process that has spawned this one; nothing if none has."""
    from mpi4py import MPI

    meeting = MPI.Comm.Get_parent()
    return None if meeting == MPI.COMM_NULL else Pair(meeting, is_elder=False)


def open_port() -> str:
    """A place where another process can meet this one."""
    from mpi4py import MPI

    MPI.COMM_SELF.Set_errhandler(MPI.ERRORS_RETURN)
    return MPI.Open_port()


def accept(port: str) -> Pair:
    """Meet who comes to an own port."""
    from mpi4py import MPI

    return Pair(MPI.COMM_SELF.Accept(port), is_elder=False)


def connect(port: str) -> Pair:
    """Meet who waits at a port."""
    from mpi4py import MPI

    MPI.COMM_SELF.Set_errhandler(MPI.ERRORS_RETURN)
    return Pair(MPI.COMM_SELF.Connect(port), is_elder=True)
