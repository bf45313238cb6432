"""Bulk data read one-sidedly out of a window, where the fabric does that without the holder's processor.

A transfer begins at the holder, as one of ``bulk.py`` does: the core lets it send what a reader has asked for, and
keeps the object where it is until that has completed. Here the holder sends no data, but an *offer*: where they lie in
its window. The reader reads them with ``Rget``, in chunks, and answers how many it has; the rest is sent after all.
There is a rest when they do not lie in the window, and when the thread that looks is not the one that initialised MPI:
with UCX, one-sided calls of others may abort. That thread may run user code for hours in the middle of a read. So
whatever can be read, all data arrive.

The window lies over the memory of one session. All ranks make the next one together, when the next session begins.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Final

from hpcfut.edges.mpi.bulk import N_CHUNKS_IN_FLIGHT, N_TESTS, NBYTES_CHUNK, Bulk
from hpcfut.model.errors import RankLostError

if TYPE_CHECKING:
    from mpi4py import MPI

#: In an offer: the data do not lie in the window.
_NOWHERE: Final = -1


class _Transfer:
    """One buffer on its way to or from one rank."""

    __slots__ = ("data", "is_abandoned", "is_send", "n_posted", "note", "offset", "rank", "requests", "transfer_id")

    def __init__(self, is_send: bool, rank: int, transfer_id: int, data: memoryview) -> None:
        self.is_send = is_send
        self.rank = rank
        self.transfer_id = transfer_id
        self.data = data
        #: What the other end says first, as (transfer, offset) or (transfer, bytes that need not be sent).
        self.note = array("q", [0, 0])
        self.offset = _NOWHERE
        self.n_posted = 0
        self.requests: deque[MPI.Request] = deque()
        self.is_abandoned = False


class OneSided:
    """The open transfers of this rank; ``bulk`` has those that are sent after all, and is used by it alone for data."""

    def __init__(self, comm: MPI.Comm, bulk: Bulk, tag_max: int, error: type[Exception]) -> None:
        """Make it for a communicator of its own, in the thread that initialised MPI. ``error`` is what MPI raises."""
        from mpi4py import MPI

        self._mpi = MPI
        self.comm = comm
        self._bulk = bulk
        self._error = error
        self._n_tags = (tag_max - 1) // 2
        self._window: MPI.Win | None = None
        self._base, self._nbytes = 0, 0
        #: What waits for a note of the other end, by direction, rank and transfer; and what is being read.
        self._waiting: dict[tuple[bool, int, int], _Transfer] = {}
        self._reading: deque[_Transfer] = deque()
        #: Notes that MPI has not let go of, with their bytes, and for whom they are.
        self._notes: deque[tuple[MPI.Request, array[int], int]] = deque()
        self._is_stopped = False
        #: Transfers all of whose data were read, and not sent.
        self.n_read = 0

    def expose(self, memory: memoryview) -> None:
        """Make a window over this memory, in place of the one before. All ranks together, with nothing under way."""
        mpi = self._mpi
        self.hide()
        self._base, self._nbytes = mpi.Get_address(memory), memory.nbytes
        self._window = mpi.Win.Create(memory, 1, comm=self.comm)
        self._window.Set_errhandler(mpi.ERRORS_RETURN)
        # In a separate memory model what this rank writes could be read by nobody.
        if self._window.Get_attr(mpi.WIN_MODEL) != mpi.WIN_UNIFIED:
            self._nbytes = 0
        self._window.Lock_all(mpi.MODE_NOCHECK)

    def hide(self) -> None:
        """Free the window. All ranks together, with nothing under way."""
        if self._window is not None:
            self._window.Unlock_all()
            self._window.Free()
            self._window = None

    @property
    def is_busy(self) -> bool:
        """Whether a transfer is open, or one has completed that nobody has been told about."""
        return bool(self._waiting or self._reading or self._notes or self._bulk.is_busy)

    @property
    def is_sending(self) -> bool:
        """Whether bytes are under way by the will of this rank: sent and not yet received, or being read by it."""
        return bool(self._reading or self._notes or self._bulk.is_sending)

    def start(self, is_send: bool, rank: int, transfer_id: int, data: memoryview) -> None:
        """Start a transfer; no data means that it has completed."""
        if not data.nbytes:
            self._bulk.start(is_send, rank, transfer_id, data)
            return
        transfer = _Transfer(is_send, rank, transfer_id, data.cast("B"))
        self._waiting[is_send, rank, transfer_id] = transfer
        transfer.requests.append(self.comm.Irecv(transfer.note, rank, self._tag_of(transfer_id, is_offer=not is_send)))
        if is_send:
            offset = self._mpi.Get_address(data) - self._base
            is_exposed = self._window is not None and 0 <= offset <= self._nbytes - data.nbytes
            self._tell(rank, transfer_id, offset if is_exposed else _NOWHERE, is_offer=True)

    def _tag_of(self, transfer_id: int, *, is_offer: bool) -> int:
        return 2 * (transfer_id % self._n_tags) + is_offer

    def _tell(self, rank: int, transfer_id: int, what: int, *, is_offer: bool) -> None:
        note = array("q", [transfer_id, what])
        request = self.comm.Issend(note, rank, self._tag_of(transfer_id, is_offer=is_offer))
        if not request.Test():
            self._notes.append((request, note, rank))

    def abandon(self, rank: int, transfer_id: int) -> None:
        """Forget a receive for which nothing has been or will be sent; its buffer is free once ``is_busy`` is false."""
        transfer = self._waiting.get((False, rank, transfer_id))
        if transfer is None:
            self._bulk.abandon(rank, transfer_id)
            return
        transfer.is_abandoned = True
        transfer.requests[0].Cancel()

    def stop(self) -> None:
        """Send and read nothing beyond the chunks that are under way; offers to this rank are still taken in."""
        self._is_stopped = True
        self._bulk.stop()

    def give_up(self) -> None:
        """Forget what other ranks would have to say or to send: all have stopped, and nobody is sending any more."""
        for transfer in self._waiting.values():
            if not transfer.is_abandoned:
                transfer.is_abandoned = True
                transfer.requests[0].Cancel()
        self._bulk.give_up()
        self._is_stopped = self.is_busy

    def completed(self) -> list[tuple[bool, int, int]]:
        """Make progress and return what has completed, as (is_send, rank, transfer_id).

        Raises:
            RankLostError: A transfer failed, or a note about one: the rank at its other end is dead.
        """
        rank = -1
        try:
            while self._notes:
                request, _, rank = self._notes[0]
                if not request.Test():
                    break
                self._notes.popleft()
            for transfer in list(self._waiting.values()):
                rank = transfer.rank
                if transfer.requests and transfer.requests[0].Test():
                    self._hear(transfer)
            for _ in range(len(self._reading)):
                transfer = self._reading.popleft()
                rank = transfer.rank
                self._read(transfer)
        except self._error as error:
            raise RankLostError(rank, f"moving an object to it or from it failed ({error}).") from error
        return self._bulk.completed()

    def _hear(self, receiver: _Transfer) -> None:
        """A note has come; transfers that share its tag may have received each other's."""
        transfer_id, what = receiver.note
        if self._is_stopped or not transfer_id:  # The receive was cancelled, or comes too late to matter.
            del self._waiting[receiver.is_send, receiver.rank, receiver.transfer_id]
            return
        transfer = self._waiting.pop((receiver.is_send, receiver.rank, transfer_id))
        if transfer is not receiver:
            receiver.requests, transfer.requests = transfer.requests, receiver.requests
            receiver.note, transfer.note = transfer.note, receiver.note
            if receiver.is_abandoned:
                receiver.requests[0].Cancel()
        transfer.requests.clear()
        if transfer.is_send:
            self._bulk.start(True, transfer.rank, transfer_id, transfer.data[what:])
        elif what != _NOWHERE and self._mpi.Is_thread_main():
            transfer.offset = what
            self._reading.append(transfer)
        else:
            self._take_rest(transfer)

    def _read(self, transfer: _Transfer) -> None:
        """See which chunks are there, and post others; if this thread may not, the rest is not read."""
        data, requests, n_tests = transfer.data, transfer.requests, N_TESTS
        while requests and n_tests:
            if requests[0].Test():
                requests.popleft()
            else:
                n_tests -= 1
        assert self._window is not None
        is_allowed = self._mpi.Is_thread_main() and not self._is_stopped
        while is_allowed and transfer.n_posted < len(data) and len(requests) < N_CHUNKS_IN_FLIGHT:
            start = transfer.n_posted
            transfer.n_posted = end = min(start + NBYTES_CHUNK, len(data))
            target = (transfer.offset + start, end - start, self._mpi.BYTE)
            requests.append(self._window.Rget(data[start:end], transfer.rank, target))
        if requests:
            self._reading.append(transfer)
        elif not self._is_stopped:
            self._take_rest(transfer)

    def _take_rest(self, transfer: _Transfer) -> None:
        """Have sent what has not been read; that may be nothing."""
        rest = transfer.data[transfer.n_posted :]
        self.n_read += not rest
        self._bulk.start(False, transfer.rank, transfer.transfer_id, rest)
        self._tell(transfer.rank, transfer.transfer_id, transfer.n_posted, is_offer=False)
