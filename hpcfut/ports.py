"""Ports: what the runtime needs of the outside world, as protocols. Edges implement them; none takes a decision."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from hpcfut.model.place import Place


class Transport(Protocol):
    """Frames and bulk data between ranks.

    Frames between two ranks arrive whole and in order. No method blocks, and only one thread at a time is inside.

    Where the job survives deaths, no method raises for one but ``is_barrier_done``, and that for rank 0 only. Frames
    and data for dead ranks go nowhere; of what is under way when a rank dies its frames may be lost, the last ones.
    """

    @property
    def rank(self) -> int:
        """The own rank."""

    @property
    def n_ranks(self) -> int:
        """The number of ranks of the job."""

    @property
    def deaths(self) -> Mapping[int, str]:
        """The dead ranks whose death the job survives, in the order in which they were found, and how that was.

        It grows in ``poll``: no data are under way with a rank when it is named here, no frame of it comes after that,
        and ``failed_data`` names the transfers that have not completed.
        """

    def send(self, rank: int, frame: bytes, only_tasks: bool = False) -> None:
        """Send a frame to another rank; the transport keeps the bytes until they have left.

        ``only_tasks``: there is nothing but tasks to run in it.
        """

    def poll(self) -> Sequence[tuple[int, bytes | bytearray | memoryview]]:
        """Make progress and return the frames that have arrived, as (source, frame), oldest first per source.

        Ends after two empty probes, because a probe looks at its queue before it makes progress. A frame is valid
        until the next poll. Raises ``RankLostError`` when the transport has proof that a peer is dead.
        """

    def send_data(self, rank: int, transfer_id: int, data: memoryview) -> None:
        """Start sending bulk data; the buffer stays untouched until ``completed_data`` names the transfer."""

    def receive_data(self, rank: int, transfer_id: int, buffer: memoryview) -> None:
        """Get ready for bulk data of exactly ``len(buffer)`` bytes from ``rank``."""

    def abandon_data(self, rank: int, transfer_id: int) -> None:
        """Forget a ``receive_data`` for which the other rank has said that it will send nothing."""

    def completed_data(self) -> Sequence[tuple[bool, int, int]]:
        """Transfers that have completed since the last call, as (is_send, rank, transfer_id)."""

    def failed_data(self) -> Sequence[tuple[bool, int, int]]:
        """Transfers that ended because the other rank is dead, since the last call, as (is_send, rank, transfer_id).

        Their buffers are free, also those of transfers that were started with a rank that was dead already.
        """

    @property
    def is_busy(self) -> bool:
        """Whether frames or data are still under way from here, so that the rank should go on polling."""

    def start_barrier(self) -> None:
        """Say that this rank sends nothing more. Of data that are under way the rest stays where it is."""

    def is_barrier_done(self) -> bool:
        """Whether every rank has started the barrier and nothing is under way; frames may still be polled meanwhile.

        Once it has been, no buffer is in use any more, and the transport begins anew. The dead are not waited for.
        """

    def close(self) -> None:
        """Give everything back. After an orderly barrier only."""


class Pin(Protocol):
    """Keeps an object where it lies for as long as anything lives that was built over some memory."""

    #: What is said to be released in the end.
    object_id: int


class Window(Protocol):
    """Memory of this rank for large objects, and that of ranks of its host as far as it can be read in place.

    What lies where is decided by the core. Objects are immutable once sealed.
    """

    #: The object of every view of which nothing lives any more; filled by any thread, emptied by the engine.
    released: deque[int]

    def buffer(self, offset: int, nbytes: int) -> memoryview:
        """The payload of an own segment, writable; nobody keeps it longer than the segment.

        Raises ``MemoryError`` when the system has no more pages.
        """

    def bare(self, offset: int, nbytes: int) -> memoryview:
        """The same, but for who must not wait until its pages are ready, where that is safe."""

    def seal(self, offset: int, object_id: int, nbytes: int) -> None:
        """The payload is complete: from now on it can be viewed, and never changes."""

    def draft(self, offset: int, object_id: int, nbytes: int) -> tuple[memoryview, Pin]:
        """The payload of an own segment, writable, for user code to keep; viewed while anything built over it lives.

        Raises ``MemoryError`` when the system has no more pages.
        """

    def unseal(self, offset: int) -> None:
        """The segment is free: who reads an old message will not find the object."""

    def view(self, place: Place) -> memoryview:
        """A sealed object, read-only and without a copy; it counts as viewed while anything built over it lives."""

    def forget(self, rank: int) -> None:
        """A rank is dead, and nothing of its memory is read any more."""


class CommonMemory(Protocol):
    """Memory that ranks of a host are given together, because they cannot map each other's; all is done together."""

    ranks: Sequence[int]

    def gather(self, data: bytes) -> list[bytes]:
        """Give every rank the bytes of all, in the order of ``ranks``."""

    def allocate(self, nbytes: int) -> list[int]:
        """Have memory in common, of which so much is this rank's; returns the address here of each rank's."""

    def free(self) -> None:
        """Take back the mappings that ``allocate`` made."""


#: How a rank sleeps that must hear of everything at once.
SLEEPS = 1
#: How one sleeps whose threads all run tasks: it looks for more of them by itself when one has ended.
HAS_WORK = 2


class SpillFile(Protocol):
    """Objects that were spilled together."""

    @property
    def file_id(self) -> int:
        """Its name."""


class SpillStore(Protocol):
    """Files of this rank to which objects are moved that there is no room for in memory. Any thread may call."""

    def write(self, parts: Sequence[tuple[int, memoryview]]) -> SpillFile:
        """Write objects together; when this returns, they are on the disk. Raises if none of them is kept."""

    def write_in_place_of(self, file_id: int, object_id: int, parts: Sequence[tuple[int, memoryview]]) -> SpillFile:
        """Do that on a full disk: another object there makes room, and is in memory until it is dropped."""

    def read(self, file_id: int, object_id: int, target: memoryview) -> None:
        """Read an object back into memory of its size. Raises if it is not what was written."""

    def drop(self, file_id: int, object_id: int) -> None:
        """Give the room of an object back."""

    @property
    def n_files(self) -> int:
        """Files that hold objects now."""

    def close(self) -> None:
        """Give everything back."""


class Doorbell(Protocol):
    """Wakes this rank where it sleeps, and ranks of its host. Any thread may ring; one at a time does the rest."""

    #: One byte for each rank of the job: whether it sleeps and is to be rung by who has sent it something, or something
    #: else than tasks (``SLEEPS`` and ``HAS_WORK``). Ranks that cannot be rung from here never seem to sleep.
    asleep: memoryview
    #: Whether every rank of the job can ring this one, so that it may sleep for long.
    reaches_all: bool
    #: When this rank rang another one last, 0 before.
    rang_at: float
    #: Event queues of this process that end a sleep when they are readable, see ``hear``.
    heard: Sequence[int]
    #: Those of them that ended the last sleep; none if it was a ring.
    called_by: Sequence[int]

    def ring(self, rank: int) -> None:
        """Wake a rank, the own one included, or keep it from falling asleep; never blocks."""

    def lie_down(self, how: int = SLEEPS) -> None:
        """Take the rings that have come, and say that this rank sleeps, and how: not 0.

        It is rung for all that it would not see by looking after this call.
        """

    def sleep(self, timeout_s: float) -> bool:
        """Sleep until rung, or for this long; a ring that has not been taken counts. Returns whether it was rung."""

    def get_up(self) -> None:
        """Say that this rank is awake."""

    def card(self) -> bytes:
        """What ranks of the same host must know that come later."""

    def admit(self, rank: int, card: bytes) -> bool:
        """A rank of this host has come, whose card this is; returns whether it can be rung."""

    def forget(self, rank: int) -> None:
        """A rank is dead, and is not rung any more."""

    def hear(self, queues: Sequence[int]) -> None:
        """From now on these event queues of this process, and no others, end a sleep when they are readable."""


class Pair(Protocol):
    """Two processes that have met; every method waits for the other one."""

    def send(self, data: bytes) -> None:
        """Give it some bytes."""

    def receive(self) -> bytes:
        """Take what it gives."""

    def link(self, rank: int, doorbell: Any) -> Any:
        """Frames and data between the two."""


class Ways(Protocol):
    """How processes meet that were not started together."""

    def spawn(self, arguments: Sequence[str], folder: str, has_ended: Callable[[], bool]) -> Pair:
        """Start a Python process, and meet it, unless that ``has_ended`` meanwhile."""

    def open_port(self) -> str:
        """A place to meet."""

    def accept(self, port: str) -> Pair:
        """Meet who comes there."""

    def connect(self, port: str) -> Pair:
        """Meet who waits there."""


class Links(Protocol):
    """A transport to which links are added."""

    def offer(self, rank: int, link: Any) -> None:
        """There is one."""

    def use(self, rank: int) -> None:
        """It is used."""

    def declare_dead(self, rank: int, reason: str) -> None:
        """There will be none."""

    def dismiss(self, frame: bytes) -> None:
        """Say this, as the last word, to those with whom there is a link that was never used."""


class Arena(Protocol):
    """The memory of this rank for large objects."""

    def card(self) -> bytes:
        """Where others find it."""

    def admit(self, rank: int, card: bytes) -> bool:
        """A rank has come whose card this is; returns whether its memory can be viewed."""


class Clock(Protocol):
    """Monotonic time."""

    def now(self) -> float:
        """Seconds since some fixed instant."""


class ChildChannel(Protocol):
    """What a rank and a child process say to each other. Every method raises ``EOFError`` when the other is gone."""

    def send(self, frame: bytes, payloads: Sequence[bytes | memoryview] = ()) -> None:
        """Send a frame, and these bytes behind it."""

    def receive(self, timeout_s: float | None = None) -> bytearray | None:
        """The next frame; nothing if none begins within this time."""

    def receive_into(self, target: memoryview) -> None:
        """Fill this memory with what stands behind a frame."""

    def skip(self, nbytes: int) -> None:
        """Throw away what stands behind a frame."""

    @property
    def descriptor(self) -> int:
        """What ``watch`` has a poll name."""

    def watch(self, poll: select.epoll) -> None:
        """Have this poll tell once when the other is gone."""

    def is_at_end(self) -> bool:
        """Whether the other is gone."""


class Child(Protocol):
    """A child process of this rank."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def channel(self) -> ChildChannel:
        """The way to it."""

    @property
    def nbytes_private(self) -> int:
        """Memory that it has for itself; 0 if it has ended."""

    def signal(self, number: int) -> None:
        """Send it a signal; nobody calls this after ``end`` or ``let_go``."""

    def end(self) -> int | None:
        """End it, if it has not ended; returns its exit status, or a signal below zero, or None if nobody knows."""

    def let_go(self) -> None:
        """It ends by itself, soon; to be called where nobody may wait."""


class ChildMaker(Protocol):
    """Makes child processes that run the code of isolated tasks. Any thread may call."""

    def start(self) -> Child:
        """Make one. Raises ``EOFError`` if this maker is gone, and ``OSError`` if the host has room for no further."""

    def close(self) -> None:
        """End all of them."""
