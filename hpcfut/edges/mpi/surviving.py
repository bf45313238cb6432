"""The same transport where the job survives deaths of ranks, under an MPI with fault tolerance (Open MPI's ULFM).

What was found out about Open MPI 5.0.11, and what follows from it:

* MPI takes notice of a death in a call that makes progress. From then on, testing a receive from ``ANY_SOURCE`` that
  has not completed raises, until this rank has acknowledged the death; the receive itself goes on, with all others, and
  no frame is lost or comes twice by that. So every poll that finds nothing finds a death, and to ask for deaths more
  often is not worth a call. Who sleeps polls a few times a second.
* The receive that was tested then remembers the error until it is tested the next time. If a frame comes between, that
  test takes it out of use and raises once more, and the frame is gone. So it is tested again at once, before any other
  call gives a frame the time to come. Only user code that is inside MPI on another thread can still do so; then the
  frame lies in its slot, nobody knows whose it is, and this rank ends, because somebody would wait for ever.
* A request with a dead rank raises when it is tested, and MPI has let go of its buffer then. It may say for a while
  that it is still under way, while bytes of it are in the network; it is tested until it ends, and its buffer is kept.
* A first message to a dead rank, or a read from one, may never return. So nothing is sent to a rank that is known to be
  dead, nothing received from it, and the window route, which asks MPI for its memory, is not used at all.
* Collectives with a dead rank fail on some ranks and hang on others. So there are none once the job has begun: the
  barrier at the end of a session goes through rank 0, whose death ends the job. ``MPI_Finalize`` is one of them: it
  returned after most deaths, but not always after two at once. So ranks leave without it, which the launcher does not
  mind where ranks may die.

A death is *found* when MPI first tells of it, and told to others (``deaths``) when nothing of the dead rank can be
written into the store, or read out of it, any more: when all bulk data have ended. Frames have buffers of their own,
which are kept for as long as MPI says that they are under way. What had come from it before may be delivered until it
is found, and nothing later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from hpcfut.edges.mpi.bulk import has_ended
from hpcfut.edges.mpi.deaths import failed_ranks
from hpcfut.edges.mpi.failures import explain
from hpcfut.edges.mpi.transport import MpiTransport
from hpcfut.model.errors import HpcfutError, RankLostError

if TYPE_CHECKING:
    from mpi4py import MPI

    from hpcfut.ports import Doorbell

    Frame = bytes | bytearray | memoryview

#: The sender has stopped; rank 0 says so when all have.
_TAG_STOPPED: Final = 2
_REASON: Final = "MPI reports that its process has ended."
#: MPI must have let go of the memory of objects so soon after a death; else this rank has nothing to store them in.
BURIED_WITHIN_S: Final = 10.0
#: A transfer that fails makes its other end suspect, and so soon MPI must have noticed the death.
NOTICED_WITHIN_S: Final = 2.0
#: Whoever leaves waits so long for the others.
LEAVE_WITHIN_S: Final = 2.5
#: So often in a row a test may tell of a death that is known.
_N_KNOWN_MAX: Final = 100


class SurvivingTransport(MpiTransport):
    """Implements ``ports.Transport`` for ranks of which any but rank 0 may die."""

    def __init__(self, comm: MPI.Comm, doorbell: Doorbell | None = None) -> None:
        """As for any transport."""
        super().__init__(comm, doorbell)
        from mpi4py import MPI

        self._deadly = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING)
        self._tests = [self._patient(test) for test in self._tests]
        #: All ranks of which is known that they are dead; those that others have not been told of, and until when.
        self._dead: set[int] = set()
        self._dying: dict[int, float] = {}
        #: Ranks with which a transfer has failed, though MPI knows of no death, and until when it may find one.
        self._suspects: dict[int, tuple[RankLostError, float]] = {}
        self._clock: Callable[[], float] = MPI.Wtime
        #: Requests for frames of these, or for them, that have not ended; each keeps its buffer.
        self._remains: list[MPI.Request] = []
        #: Transfers that were to begin with dead ranks.
        self._refused: list[tuple[bool, int, int]] = []
        #: Who has said that it has stopped; rank 0 says so when all have.
        self._stopped: set[int] = set()
        #: How far this rank is in the barrier.
        self._has_said_so = self._have_all_stopped = False

    def _patient(self, test: Callable[[MPI.Status], bool]) -> Callable[[MPI.Status], bool]:
        """A test of a slot that raises for no death."""

        def patient(status: MPI.Status) -> bool:
            n_known = 0
            while True:
                try:
                    return test(status)
                except self._error as error:
                    n_known = 0 if self._take_error(error, "polling for frames") else n_known + 1
                    if n_known > _N_KNOWN_MAX:
                        raise explain(error, self._comm, "polling for frames") from error

        return patient

    def _take_error(self, error: MPI.Exception, doing: str) -> bool:
        """If MPI tells of deaths, note whose; returns whether there was one to note."""
        if error.Get_error_class() not in self._deadly:
            raise explain(error, self._comm, doing) from error
        ranks = failed_ranks(self._comm)
        self._comm.Ack_failed(len(ranks))
        found = [rank for rank in ranks if rank not in self._dead]
        self._dead.update(found)
        self._dying.update(dict.fromkeys(found, self._clock() + BURIED_WITHIN_S))
        return bool(found)

    def send(self, rank: int, frame: bytes, only_tasks: bool = False) -> None:
        """Send a frame to another rank, unless that is dead."""
        if rank not in self._dead:
            super().send(rank, frame, only_tasks)

    def poll(self) -> Sequence[tuple[int, Frame]]:
        """Make progress and return the frames that have arrived from ranks that are not known to be dead."""
        arrived = super().poll()
        if self._dead:
            if self._dying:
                self._bury()
            self._remains = [request for request in self._remains if not has_ended(request, self._error)]
            return [(source, frame) for source, frame in arrived if source not in self._dead]
        return arrived

    def _bury(self) -> None:
        """End what is under way with dead ranks, and tell of those with which nothing is any more."""
        self._remains += [request for request, rank in self._sends if rank in self._dead]
        self._sends = deque(entry for entry in self._sends if entry[1] not in self._dead)
        for rank in self._dying:
            self._remains += [request for request, _ in self._waiting.pop(rank, ()) if request is not None]
        for rank, too_late_at in list(self._dying.items()):
            if self._bulk.bury(rank):
                del self._dying[rank]
                self.deaths[rank] = _REASON
                if self._doorbell is not None:
                    self._doorbell.forget(rank)
            elif self._clock() > too_late_at:
                raise HpcfutError(
                    f"Rank {rank} has died in the middle of a transfer, and MPI has not let go of the memory of the "
                    f"object for {BURIED_WITHIN_S:g} s. Rank {self.rank} can use that for nothing else, and ends."
                )

    def _receive_note(self, tag: int, source: int, note: bytes) -> None:
        # A receive that a death has taken out of use comes from nobody, and is started again like all others.
        if tag == _TAG_STOPPED:
            self._stopped.add(source)
        elif source < 0:
            if self._slots[self._head - 1][0]:  # The head has gone on to the next one.
                raise HpcfutError(
                    f"Rank {self.rank} has lost a message: MPI dropped it while another thread was inside MPI in the "
                    f"moment in which a rank died. Without it this rank cannot go on, and ends. Let tasks not call MPI "
                    f"where ranks may die, or start the job with --fault-tolerance off."
                )
        elif source not in self._dead:
            super()._receive_note(tag, source, note)

    # -- bulk data -----------------------------------------------------------------------------------------------------

    def send_data(self, rank: int, transfer_id: int, data: memoryview) -> None:
        """Start sending bulk data; to a dead rank it fails."""
        if rank in self._dead:
            self._refused.append((True, rank, transfer_id))
        else:
            super().send_data(rank, transfer_id, data)

    def receive_data(self, rank: int, transfer_id: int, buffer: memoryview) -> None:
        """Get ready for bulk data; from a dead rank they fail."""
        if rank in self._dead:
            self._refused.append((False, rank, transfer_id))
        else:
            super().receive_data(rank, transfer_id, buffer)

    def abandon_data(self, rank: int, transfer_id: int) -> None:
        """Forget a ``receive_data``, be it that it has failed."""
        for failed in (self._refused, self._bulk.failed):
            with suppress(ValueError):
                failed.remove((False, rank, transfer_id))
        super().abandon_data(rank, transfer_id)

    def completed_data(self) -> Sequence[tuple[bool, int, int]]:
        """Transfers that have completed since the last call, as (is_send, rank, transfer_id)."""
        for rank, (lost, too_late_at) in list(self._suspects.items()):
            if rank in self._dead:
                del self._suspects[rank]
            elif self._clock() > too_late_at:
                raise lost
        try:
            return super().completed_data()
        except RankLostError as lost:
            error = cast("MPI.Exception", lost.__cause__)
            if error.Get_error_class() in self._deadly:
                self._take_error(error, f"moving an object to or from rank {lost.rank}")
            elif lost.rank not in self._dead:
                # On one host bytes are copied straight out of the memory of another process, which may be gone by then.
                self._suspects.setdefault(lost.rank, (lost, self._clock() + NOTICED_WITHIN_S))
            return ()

    def failed_data(self) -> Sequence[tuple[bool, int, int]]:
        """Transfers that a death has broken off since the last call, as (is_send, rank, transfer_id)."""
        failed = self._refused + self._bulk.failed
        self._refused.clear()
        self._bulk.failed.clear()
        return failed

    @property
    def is_busy(self) -> bool:
        """Whether something is under way, or a death is to be told of."""
        return bool(self._dying or self._refused or self._bulk.failed) or super().is_busy

    # -- the end -------------------------------------------------------------------------------------------------------

    def is_barrier_done(self) -> bool:
        """Whether every living rank has started the barrier and nothing is under way.

        Raises:
            RankLostError: Rank 0 is dead.
        """
        if not self._is_stopped:
            return False
        if 0 in self._dead:
            raise RankLostError(0, _REASON)
        self.completed_data()
        if self._dying:
            return False
        if not self._has_said_so:
            if self._sends or self._waiting or self._bulk.is_sending:
                return False
            if self.rank:
                self._say_stopped(0)
            self._has_said_so = True
        if not self._have_all_stopped:
            if not self._stopped.issuperset([0] if self.rank else self._living()):
                return False
            # Now, because those who are through first may say that they have stopped again.
            self._stopped.clear()
            self._have_all_stopped = True
            if not self.rank:
                for rank in self._living():
                    self._say_stopped(rank)
        self._bulk.give_up()
        if super().is_busy or self._dying:
            return False
        self.failed_data()
        self._is_stopped = self._has_said_so = self._have_all_stopped = False
        return True

    def _living(self) -> list[int]:
        return [rank for rank in range(1, self.n_ranks) if rank not in self._dead]

    def _say_stopped(self, rank: int) -> None:
        try:
            self._sends.append((self._isend(b"\1", rank, _TAG_STOPPED), rank))
        except self._error as error:
            self._take_error(error, f"telling rank {rank} that this one has stopped")
        if self._asleep[rank]:
            self._ring(rank)

    def close(self) -> None:
        """Leave, rank 0 last; nobody frees anything.

        To the others a rank that has left is dead, so that nothing of it may be under way then, and the last word of
        rank 0 must have come. Who does not come to its end in time has said before that all its work is done.
        """
        if self.rank:
            self._say_stopped(0)
        too_late_at = self._clock() + LEAVE_WITHIN_S
        while self._clock() < too_late_at and self._is_awaiting():
            self.poll()

    def _is_awaiting(self) -> bool:
        return bool(self._sends) or not (self.rank or self._stopped.issuperset(self._living()))
