"""Frames and bulk data over MPI.

Small frames land in receives that are posted in advance (persistent, ``ANY_SOURCE``) and are tested in the order in
which they were posted, which is the order in which MPI matches them. A test makes progress; on one host it looks after
that, but over TCP it does not look again, so that a frame which it has just brought lies in its slot and only the next
test tells. Therefore the first byte of a slot is 0 until a frame is there, and says where another test is worth its
time, which is mostly that of the GIL: every call of MPI gives it away, and a thread of user code that takes it keeps it
for half a millisecond. A look that finds nothing costs one call, instead of the two of ``Iprobe``, and an arrived frame
one or two instead of three (``Iprobe``, ``Irecv``, ``Test``). Measured with 64-byte frames on one host, round trip,
Open MPI and MPICH: raw ``Isend``/``Iprobe``/``Recv`` 2.4 and 2.0 µs, receives by ``Iprobe`` and ``Irecv`` 4.2 and 3.5,
pre-posted 2.2 and 2.1; one way 0.7 and 0.9, pre-posted 1.3 and 1.7 million frames a second.
``benchmarks/transport.py`` repeats it.

A slot holds what MPI sends eagerly. A larger frame is announced through a slot and travels beside it, because a
rendezvous needs its sender's help, and a slot that waits for it would hold up the frames of all other ranks. Frames of
one source that arrive behind such a frame wait for it, so that the order per source stays.

MPICH over UCX never completes an ``ANY_SOURCE`` receive that is posted after its message has come from another host
(5.0.2; the data is there, the request stays open). There, every frame is looked for first and then received from its
source, whatever its size; a microsecond more counts for little beside a network.

Who is sent something and sleeps is rung, but not for tasks if it is busy with others: when the message has been given
to MPI, and for as long as MPI has not let go of it, because it may need the receiver for that. Objects need no ring,
because both ends wait for them awake.

Nothing here blocks, and a request is kept until it has completed: MPI would go on using memory that Python has freed.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from hpcfut.edges.mpi.bulk import TAG_FRAME, Bulk
from hpcfut.edges.mpi.failures import explain
from hpcfut.edges.mpi.one_sided import OneSided
from hpcfut.model.errors import FrameRefusedError, HpcfutError
from hpcfut.ports import HAS_WORK, Doorbell

if TYPE_CHECKING:
    from mpi4py import MPI

    Frame = bytes | bytearray | memoryview

#: Just below the smallest eager limit in common use (Open MPI's 4096 bytes with headers).
NBYTES_SLOT: Final = 4000
N_SLOTS: Final = 64
#: Open MPI 5 refuses larger counts.
NBYTES_FRAME_MAX: Final = (1 << 31) - 1

#: Frames that fit into a slot have none of these tags, but 0; a transport that survives deaths has more of them.
_TAG_WHOLE: Final = 0
_TAG_ANNOUNCED: Final = 1
#: A byte that is not 0, as every frame begins with one, and a size.
_SIZE: Final = struct.Struct("<BQ")
#: In what the library says about itself; relatives of MPICH say it as well.
_UCX_OF_MPICH: Final = re.compile(r"^.*Device:\s+ch4:.*\bucx\b", re.MULTILINE)
#: A poll looks at no more unfinished sends, so that a long queue to a busy rank costs no more than a short one.
_N_UNFINISHED_MAX: Final = 4


class MpiTransport:
    """Implements ``ports.Transport`` on two communicators of its own."""

    def __init__(self, comm: MPI.Comm, doorbell: Doorbell | None = None, *, is_one_sided: bool = False) -> None:
        """Duplicate the communicator, which all of its ranks do together, and get ready to receive.

        Args:
            comm: All ranks of the job.
            doorbell: Rings ranks that sleep; without one nobody does.
            is_one_sided: Whether data are read out of what ranks ``expose``; the same on all of them.
        """
        from mpi4py import MPI

        self._comm = comm.Dup()
        self._comm.Set_errhandler(MPI.ERRORS_RETURN)
        bulk_comm = comm.Dup()
        bulk_comm.Set_errhandler(MPI.ERRORS_RETURN)
        # Without a limit from MPI, the one that the standard promises.
        tag_max = bulk_comm.Get_attr(MPI.TAG_UB) or 32767
        self._bulk = Bulk(bulk_comm, tag_max, MPI.Exception)
        self._route: Bulk | OneSided = self._bulk
        if is_one_sided:
            notes_comm = comm.Dup()
            notes_comm.Set_errhandler(MPI.ERRORS_RETURN)
            self._route = OneSided(notes_comm, self._bulk, tag_max, MPI.Exception)
        self.rank: int = self._comm.Get_rank()
        self.n_ranks: int = self._comm.Get_size()
        #: Ranks whose death the job survives, and how it was found out.
        self.deaths: dict[int, str] = {}
        self._error = MPI.Exception
        #: Whether this rank has begun to leave a session, and the barrier, once nothing of its own is under way.
        self._is_stopped = False
        self._barrier: MPI.Request | None = None
        self._doorbell = doorbell
        self._asleep = doorbell.asleep if doorbell is not None else bytes(self.n_ranks)
        #: What MPI has not let go of yet, and for whom.
        self._sends: deque[tuple[MPI.Request, int]] = deque()
        #: Per source: large frames under way, and what came after them, oldest first.
        self._waiting: dict[int, deque[tuple[MPI.Request | None, bytearray | bytes]]] = {}
        self._status = MPI.Status()
        self._is_probing = False
        if _UCX_OF_MPICH.search(MPI.Get_library_version()):
            # What counts is which ranks MPI itself takes for neighbours.
            neighbours = comm.Split_type(MPI.COMM_TYPE_SHARED)
            self._is_probing = neighbours.Get_size() < comm.Get_size()
            neighbours.Free()
        self._nbytes_whole = NBYTES_FRAME_MAX if self._is_probing else NBYTES_SLOT
        n_slots = 0 if self._is_probing else N_SLOTS
        #: The first byte of each is 0 unless a frame has come since it was posted; a frame that begins so comes later.
        self._slots = [memoryview(bytearray(NBYTES_SLOT)) for _ in range(n_slots)]
        self._receives = [self._comm.Recv_init(slot, MPI.ANY_SOURCE, MPI.ANY_TAG) for slot in self._slots]
        for request in self._receives:
            request.Start()
        # Looking these up anew for every frame would be a tenth of its cost.
        self._isend = self._comm.Isend
        self._tests: list[Callable[[MPI.Status], bool]] = [request.Test for request in self._receives]
        self._head = 0
        self._n_used = 0

    def send(self, rank: int, frame: bytes, only_tasks: bool = False) -> None:
        """Send a frame to another rank; the request keeps the bytes until they have left."""
        try:
            if len(frame) > self._nbytes_whole:
                self._send_large(rank, frame)
                return
            request = self._isend(frame, rank, _TAG_WHOLE)
            # At once: what comes next gives the GIL away, and user code that takes it keeps it for a while.
            if (how := self._asleep[rank]) and not (only_tasks and how == HAS_WORK):
                self._ring(rank)
            if not request.Test():
                self._sends.append((request, rank))
        except self._error as error:
            self._take_error(error, f"sending a frame to rank {rank}")

    def _take_error(self, error: MPI.Exception, doing: str) -> bool:
        """MPI has failed; here no death is survived."""
        raise explain(error, self._comm, doing) from error

    def _send_large(self, rank: int, frame: bytes) -> None:
        if len(frame) > NBYTES_FRAME_MAX:
            raise HpcfutError(
                f"A frame of {len(frame)} bytes for rank {rank} is larger than MPI can send at once "
                f"({NBYTES_FRAME_MAX} bytes). Lower the configured size of values that travel inside messages."
            )
        self._sends.append((self._isend(_SIZE.pack(1, len(frame)), rank, _TAG_ANNOUNCED), rank))
        self._sends.append((self._bulk.comm.Isend(frame, rank, TAG_FRAME), rank))
        if self._asleep[rank]:
            self._ring(rank)

    def _ring(self, rank: int) -> None:
        assert self._doorbell is not None
        self._doorbell.ring(rank)

    def poll(self) -> Sequence[tuple[int, Frame]]:
        """Make progress and return the frames that have arrived; they are valid until the next poll."""
        arrived: list[tuple[int, Frame]] = []
        try:
            if self._n_used:
                self._post_again()
            if self._sends:
                self._test_sends()
            if self._is_probing:
                self._probe(arrived)
                return arrived
            status, waiting, slots, tests, head = self._status, self._waiting, self._slots, self._tests, self._head
            has_come = tests[head](status) or (slots[head][0] and tests[head](status))
            while has_come:
                source, frame = status.Get_source(), slots[head][: status.Get_count()]
                self._n_used += 1
                self._head = head = (head + 1) % N_SLOTS
                if tag := status.Get_tag():
                    self._receive_note(tag, source, bytes(frame))
                elif source in waiting:
                    waiting[source].append((None, bytes(frame)))
                else:
                    arrived.append((source, frame))
                has_come = self._n_used < N_SLOTS and slots[head][0] and tests[head](status)
            if waiting:
                self._collect(arrived)
        except self._error as error:
            self._take_error(error, "polling for frames")
        return arrived

    def _probe(self, arrived: list[tuple[int, Frame]]) -> None:
        """Look for frames and receive them, as long as there are some."""
        status, waiting, n_empty = self._status, self._waiting, 0
        # MPI looks before it makes progress, so that only a second look sees what has just come.
        while n_empty < 2 and len(arrived) < N_SLOTS:
            if not self._comm.Iprobe(status=status):
                n_empty += 1
                continue
            n_empty = 0
            source, buffer = status.Get_source(), bytearray(status.Get_count())
            request = self._comm.Irecv(buffer, source, _TAG_WHOLE)
            if source in waiting:
                waiting[source].append((request, buffer))
            elif request.Test():
                arrived.append((source, buffer))
            else:
                waiting[source] = deque([(request, buffer)])
        if waiting:
            self._collect(arrived)

    def _post_again(self) -> None:
        # In the order of the ring, because MPI matches receives in the order in which they were started.
        for index in range(self._head - self._n_used, self._head):
            self._slots[index][0] = 0
            self._receives[index].Start()
        self._n_used = 0

    def _test_sends(self) -> None:
        # An unfinished send goes to the end, so that one to a busy rank does not keep the others' memory.
        sends = self._sends
        n_unfinished = 0
        for _ in range(len(sends)):
            request, rank = sends.popleft()
            is_finished = request.Test()
            if self._asleep[rank]:
                self._ring(rank)
            if not is_finished:
                sends.append((request, rank))
                n_unfinished += 1
                if n_unfinished == _N_UNFINISHED_MAX:
                    return

    def _receive_note(self, tag: int, source: int, announcement: bytes) -> None:
        """Take in what is not a whole frame: here the announcement of a large one."""
        nbytes = _SIZE.unpack(announcement)[1] if len(announcement) == _SIZE.size else -1
        if not self._nbytes_whole < nbytes <= NBYTES_FRAME_MAX:
            raise FrameRefusedError(source, f"It announced a large frame with the bytes {announcement.hex()}.")
        buffer = bytearray(nbytes)
        request = self._bulk.comm.Irecv(buffer, source, TAG_FRAME)
        self._waiting.setdefault(source, deque()).append((request, buffer))

    def _collect(self, arrived: list[tuple[int, Frame]]) -> None:
        for source, queue in list(self._waiting.items()):
            while queue and (queue[0][0] is None or queue[0][0].Test()):
                arrived.append((source, queue.popleft()[1]))
            if not queue:
                del self._waiting[source]

    def send_data(self, rank: int, transfer_id: int, data: memoryview) -> None:
        """Start sending bulk data; the buffer stays untouched until ``completed_data`` names the transfer."""
        try:
            self._route.start(True, rank, transfer_id, data)
        except self._error as error:
            self._take_error(error, f"sending {data.nbytes} bytes to rank {rank}")

    def receive_data(self, rank: int, transfer_id: int, buffer: memoryview) -> None:
        """Get ready for bulk data of exactly ``len(buffer)`` bytes from ``rank``."""
        try:
            self._route.start(False, rank, transfer_id, buffer)
        except self._error as error:
            self._take_error(error, f"receiving {buffer.nbytes} bytes from rank {rank}")

    def abandon_data(self, rank: int, transfer_id: int) -> None:
        """Forget a ``receive_data`` for which the other rank has said that it will send nothing."""
        self._route.abandon(rank, transfer_id)

    def completed_data(self) -> Sequence[tuple[bool, int, int]]:
        """Transfers that have completed since the last call, as (is_send, rank, transfer_id)."""
        if not self._route.is_busy:
            return ()
        return self._route.completed()

    def failed_data(self) -> Sequence[tuple[bool, int, int]]:
        """Transfers that a death has broken off since the last call: none, where no death is survived."""
        return ()

    @property
    def is_busy(self) -> bool:
        """Whether frames or data are still under way to or from here, so that the rank should go on polling."""
        return bool(self._sends or self._waiting or self._route.is_busy)

    def start_barrier(self) -> None:
        """Say that this rank sends nothing more; of data that are under way the rest stays where it is."""
        if self._is_stopped:
            raise HpcfutError(f"Rank {self.rank} started the barrier twice. This is a bug in hpcfut: please report it.")
        self._is_stopped = True
        self._route.stop()

    def is_barrier_done(self) -> bool:
        """Whether every rank has started the barrier and nothing is under way; frames may still be polled meanwhile.

        A rank joins the others when all that it has sent has met its receiver. So when all have, nobody sends, and what
        was asked for and has not come will not.
        """
        if not self._is_stopped:
            return False
        self._route.completed()
        try:
            if self._barrier is None:
                if self._sends or self._waiting or self._route.is_sending:
                    return False
                self._barrier = self._bulk.comm.Ibarrier()
            if not self._barrier.Test():
                return False
        except self._error as error:
            raise explain(error, self._comm, "waiting for the barrier at the end") from error
        self._route.give_up()
        if self._route.is_busy:
            return False
        self._is_stopped, self._barrier = False, None
        return True

    def expose(self, memory: memoryview) -> None:
        """Let other ranks read this memory one-sidedly, in place of what they could read before, if that is the route.

        All ranks do it together, when nothing is under way.
        """
        if isinstance(self._route, OneSided):
            self._route.expose(memory)

    def close(self) -> None:
        """Give everything back. After an orderly barrier only, because freeing a communicator takes all its ranks."""
        self._post_again()
        for request in self._receives:
            request.Cancel()
        for request in self._receives:
            while not request.Test():
                pass
            request.Free()
        self._receives, self._tests = [], []
        if isinstance(self._route, OneSided):
            self._route.hide()
            self._route.comm.Free()
        self._comm.Free()
        self._bulk.comm.Free()
