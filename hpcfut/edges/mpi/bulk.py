"""Bulk data between two ranks: chunks of 16 MiB, several in flight, straight between the two buffers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from hpcfut.model.errors import RankLostError

if TYPE_CHECKING:
    from mpi4py import MPI

#: Larger chunks gain nothing, and MPI refuses messages of 2 GiB.
NBYTES_CHUNK: Final = 16 << 20
N_CHUNKS_IN_FLIGHT: Final = 4
#: Of the tags on the bulk communicator this one belongs to frames that are too large for a slot.
TAG_FRAME: Final = 0
#: Transfers looked at in one call, so that hundreds of open ones cost no more than a few.
_N_TRANSFERS_TESTED: Final = 16
#: One test moves what is in the kernel's buffers; after so many in vain the rank does something else. With a single one
#: a turn of the engine stood between any two, and 64 MiB from another host took a fifth more.
N_TESTS: Final = 8

_Key = tuple[bool, int, int]


class _Transfer:
    """One buffer on its way to or from one rank."""

    __slots__ = ("data", "is_abandoned", "is_send", "key", "n_posted", "rank", "requests", "transfer_id")

    def __init__(self, is_send: bool, rank: int, transfer_id: int, tag: int, data: memoryview) -> None:
        self.is_send = is_send
        self.rank = rank
        self.transfer_id = transfer_id
        self.key: _Key = (is_send, rank, tag)
        self.data = data
        self.n_posted = 0
        self.requests: deque[MPI.Request] = deque()
        self.is_abandoned = False


class Bulk:
    """The open transfers of this rank.

    Tags come from transfer ids, and there are fewer tags than ids. Transfers between the same two ranks in the same
    direction that share a tag are done one after the other, in the order in which they were started at this end; both
    ends start them in one order, because the reader gets ready before it asks and its questions arrive in order.
    """

    def __init__(self, comm: MPI.Comm, tag_max: int, error: type[Exception]) -> None:
        """Make it for a communicator of its own. ``error`` is what MPI raises."""
        self.comm = comm
        self._error = error
        self._n_tags = tag_max
        self._lines: dict[_Key, deque[_Transfer]] = {}
        self._open: deque[_Transfer] = deque()
        self._completed: list[tuple[bool, int, int]] = []
        #: Transfers with dead ranks of which MPI has let go.
        self.failed: list[tuple[bool, int, int]] = []

    @property
    def is_busy(self) -> bool:
        """Whether a transfer is open, or one has completed that nobody has been told about."""
        return bool(self._lines or self._completed)

    @property
    def is_sending(self) -> bool:
        """Whether bytes of this rank are under way that their reader has not begun to receive."""
        return any(is_send for is_send, _, _ in self._lines)

    def start(self, is_send: bool, rank: int, transfer_id: int, data: memoryview) -> None:
        """Start a transfer; no data means that it has completed."""
        if not data.nbytes:
            self._completed.append((is_send, rank, transfer_id))
            return
        transfer = _Transfer(is_send, rank, transfer_id, 1 + transfer_id % self._n_tags, data.cast("B"))
        line = self._lines.setdefault(transfer.key, deque())
        line.append(transfer)
        if len(line) == 1:
            self._open.append(transfer)
            self._post(transfer)

    def abandon(self, rank: int, transfer_id: int) -> None:
        """Forget a receive for which nothing has been or will be sent; its buffer is free once ``is_busy`` is false."""
        for line in list(self._lines.values()):
            for transfer in line:
                if (transfer.is_send, transfer.rank, transfer.transfer_id) == (False, rank, transfer_id):
                    _cancel(transfer)
                    return

    def stop(self) -> None:
        """Send nothing beyond the chunks that are under way; their readers go on receiving them."""
        for line in self._lines.values():
            for transfer in line:
                transfer.is_abandoned |= transfer.is_send

    def give_up(self) -> None:
        """Forget what is still to be received: all ranks have stopped, and nobody is sending any more."""
        for line in self._lines.values():
            for transfer in line:
                if not transfer.is_abandoned:
                    _cancel(transfer)

    def completed(self) -> list[tuple[bool, int, int]]:
        """Make progress and return what has completed, as (is_send, rank, transfer_id).

        Raises:
            RankLostError: A transfer failed, as it does when the process at its other end has died: an MPI without
                fault tolerance copies straight out of the memory of that process, and tells no more.
        """
        transfers = self._open
        for _ in range(min(len(transfers), _N_TRANSFERS_TESTED)):
            transfer = transfers.popleft()
            requests = transfer.requests
            try:
                n_tests = N_TESTS
                while requests and n_tests:
                    if requests[0].Test():
                        requests.popleft()
                    else:
                        n_tests -= 1
                self._post(transfer)
            except self._error as error:
                way = "to" if transfer.is_send else "from"
                raise RankLostError(transfer.rank, f"moving an object {way} it failed ({error}).") from error
            if requests:
                transfers.append(transfer)
            else:
                self._finish(transfer)
        result, self._completed = self._completed, []
        return result

    def bury(self, rank: int) -> bool:
        """End all transfers with a dead rank; returns whether MPI has let go of them. To be called until it has."""
        self._open = deque(transfer for transfer in self._open if transfer.rank != rank)
        lines = [key for key in self._lines if key[1] == rank]
        for key in lines:
            line = self._lines[key]
            # Nothing of those behind the first has been posted.
            while line[0].requests and has_ended(line[0].requests[0], self._error):
                line[0].requests.popleft()
            if not line[0].requests:
                self.failed += [(t.is_send, t.rank, t.transfer_id) for t in line if not t.is_abandoned]
                del self._lines[key]
        return not any(key in self._lines for key in lines)

    def _post(self, transfer: _Transfer) -> None:
        if transfer.is_abandoned:
            return
        # A send that has completed has met its receive, so that ``give_up`` leaves no bytes that nobody takes.
        post = self.comm.Issend if transfer.is_send else self.comm.Irecv
        _, rank, tag = transfer.key
        while transfer.n_posted < len(transfer.data) and len(transfer.requests) < N_CHUNKS_IN_FLIGHT:
            start, end = transfer.n_posted, min(transfer.n_posted + NBYTES_CHUNK, len(transfer.data))
            transfer.requests.append(post(transfer.data[start:end], rank, tag))
            transfer.n_posted = end

    def _finish(self, transfer: _Transfer) -> None:
        if not transfer.is_abandoned:
            self._completed.append((transfer.is_send, transfer.rank, transfer.transfer_id))
        line = self._lines[transfer.key]
        line.popleft()
        if line:
            self._open.append(line[0])
            self._post(line[0])
        else:
            del self._lines[transfer.key]


def has_ended(request: MPI.Request, error: type[Exception]) -> bool:
    """Whether MPI has let go of a request that has no future: it may raise when that is so."""
    try:
        return bool(request.Test())
    except error:
        return True


def _cancel(transfer: _Transfer) -> None:
    """Receive no more of it; what has begun to come comes to its end."""
    transfer.is_abandoned = True
    for request in transfer.requests:
        request.Cancel()
