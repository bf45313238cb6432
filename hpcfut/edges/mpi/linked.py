"""A transport to the ranks that were started together, and over links to those that have come for dead ones.

While there is no link it is the transport of the start, method by method, and costs nothing. A replacement itself has
only links. A link is *offered* by the thread that has made it, and *used* when the core says so; nothing is received
over it before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpcfut.model.errors import FrameRefusedError, RankLostError

if TYPE_CHECKING:
    from hpcfut.edges.mpi.links import Link
    from hpcfut.edges.mpi.surviving import SurvivingTransport

    Frame = bytes | bytearray | memoryview
    Transfer = tuple[bool, int, int]


class LinkedTransport:
    """Implements ``ports.Transport``."""

    def __init__(self, rank: int, base: SurvivingTransport | None) -> None:
        """``base``: to the ranks that were started together with this one; a replacement has none."""
        self.rank = rank
        self._base = base
        #: Ranks from here on are no business of the base.
        self._n_base = base.n_ranks if base is not None else 0
        self.deaths: dict[int, str] = base.deaths if base is not None else {}
        self._links: dict[int, Link] = {}
        self._offered: dict[int, Link] = {}
        #: What is kept, with its buffers, because MPI may not have let go of it.
        self._old: list[Link] = []
        #: What came of transfers with ranks that are dead by now, or have never been linked.
        self._completed: list[Transfer] = []
        self._failed: list[Transfer] = []
        #: Links whose two ends have both come to the end of the session.
        self._met: dict[int, None] = {}
        self._has_base_met = False
        self.send: Callable[..., None] = base.send if base is not None else self._send
        self.poll: Callable[[], Sequence[tuple[int, Frame]]] = base.poll if base is not None else self._poll

    @property
    def n_ranks(self) -> int:
        """The number of ranks that this one talks to, with itself."""
        return max(self._n_base, 1) + len(self._links)

    def offer(self, rank: int, link: Link) -> None:
        """There is a link with a rank; any thread may say so."""
        self._offered[rank] = link

    def use(self, rank: int) -> None:
        """From now on this rank is talked to over its link."""
        self._links[rank] = self._offered.pop(rank)
        self.send, self.poll = self._send, self._poll

    def declare_dead(self, rank: int, reason: str) -> None:
        """A rank is dead to which there is no way from here, or is not wanted any more."""
        if rank >= self._n_base and rank not in self.deaths:
            self._lose(rank, reason)

    def dismiss(self, frame: bytes) -> None:
        """Say this, as the last word, to those with whom there is a link that was never used."""
        while self._offered:  # Another thread may be making one more.
            _, link = self._offered.popitem()
            link.send(link.peer, frame)
            self._old.append(link)

    def _lose(self, rank: int, reason: str) -> None:
        link = self._links.pop(rank, None)
        if link is not None:
            self._completed += _of_rank(rank, link.completed_data())
            self._failed += _of_rank(rank, link.failed_data())
            self._old.append(link)
        self.deaths[rank] = reason

    def _send(self, rank: int, frame: bytes, only_tasks: bool = False) -> None:
        """Send a frame to another rank, unless that is dead."""
        if rank < self._n_base:
            assert self._base is not None
            self._base.send(rank, frame, only_tasks)
        elif link := self._links.get(rank):
            link.send(link.peer, frame, only_tasks)

    def _poll(self) -> Sequence[tuple[int, Frame]]:
        """Make progress and return the frames that have arrived; they are valid until the next poll."""
        arrived = list(self._base.poll()) if self._base is not None else []
        is_lost = False
        for rank, link in self._links.items():
            try:
                arrived += [(rank, frame) for _, frame in link.poll()]
            except FrameRefusedError as error:
                raise FrameRefusedError(rank, error.reason) from error
            is_lost = is_lost or bool(link.deaths)
        if is_lost:
            for rank, link in list(self._links.items()):
                if link.deaths:
                    self._lose(rank, link.deaths[link.peer])
        return arrived

    # -- bulk data -----------------------------------------------------------------------------------------------------

    def _way_to(self, rank: int) -> tuple[SurvivingTransport | None, int]:
        if rank < self._n_base:
            return self._base, rank
        link = self._links.get(rank)
        return (None, rank) if link is None else (link, link.peer)

    def send_data(self, rank: int, transfer_id: int, data: memoryview) -> None:
        """Start sending bulk data; to a dead rank it fails."""
        way, peer = self._way_to(rank)
        if way is None:
            self._failed.append((True, rank, transfer_id))
        else:
            way.send_data(peer, transfer_id, data)

    def receive_data(self, rank: int, transfer_id: int, buffer: memoryview) -> None:
        """Get ready for bulk data; from a dead rank they fail."""
        way, peer = self._way_to(rank)
        if way is None:
            self._failed.append((False, rank, transfer_id))
        else:
            way.receive_data(peer, transfer_id, buffer)

    def abandon_data(self, rank: int, transfer_id: int) -> None:
        """Forget a ``receive_data`` for which the other rank has said that it will send nothing."""
        way, peer = self._way_to(rank)
        if way is not None:
            way.abandon_data(peer, transfer_id)
        elif (False, rank, transfer_id) in self._failed:
            self._failed.remove((False, rank, transfer_id))

    def completed_data(self) -> Sequence[Transfer]:
        """Transfers that have completed since the last call, as (is_send, rank, transfer_id)."""
        completed, self._completed = self._completed, []
        if self._base is not None:
            completed += self._base.completed_data()
        for rank, link in self._links.items():
            completed += _of_rank(rank, link.completed_data())
        return completed

    def failed_data(self) -> Sequence[Transfer]:
        """Transfers that a death has broken off since the last call, as (is_send, rank, transfer_id)."""
        failed, self._failed = self._failed, []
        if self._base is not None:
            failed += self._base.failed_data()
        for rank, link in self._links.items():
            failed += _of_rank(rank, link.failed_data())
        return failed

    @property
    def is_busy(self) -> bool:
        """Whether something is under way, or a death is to be told of.

        Who is about to sleep asks outside of the turns, so that others may come or go meanwhile.
        """
        is_base_busy = self._base is not None and self._base.is_busy
        links = tuple(self._links.values())
        return bool(is_base_busy or self._completed or self._failed or any(link.is_busy for link in links))

    # -- the end -------------------------------------------------------------------------------------------------------

    def start_barrier(self) -> None:
        """Say to each rank that this one sends nothing more."""
        self._has_base_met = self._base is None
        self._met.clear()
        if self._base is not None:
            self._base.start_barrier()
        for link in self._links.values():
            link.start_barrier()

    def is_barrier_done(self) -> bool:
        """Whether every living rank has started the barrier and nothing is under way.

        That is so when all that were started together have, and the two ends of each link.

        Raises:
            RankLostError: Rank 0 is dead.
        """
        if 0 in self.deaths:
            raise RankLostError(0, self.deaths[0])
        if self._base is not None:
            self._has_base_met = self._has_base_met or self._base.is_barrier_done()
        for rank, link in self._links.items():
            try:
                if rank not in self._met and link.is_barrier_done():
                    self._met[rank] = None
            except RankLostError:
                continue  # The next poll takes it away.
        return self._has_base_met and all(rank in self._met for rank in self._links)

    def close(self) -> None:
        """Give everything back that can be; links go with MPI itself."""
        if self._base is not None:
            self._base.close()


def _of_rank(rank: int, transfers: Sequence[Transfer]) -> list[Transfer]:
    """The same transfers, under the number that the rank has in the job."""
    return [(is_send, rank, transfer_id) for is_send, _, transfer_id in transfers]
