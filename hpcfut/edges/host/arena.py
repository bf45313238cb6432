"""The memory of a rank for large objects, and the memory of the other ranks of its host as this rank may read it.

A rank's memory is one ``memfd``. It has no name and no size in ``/dev/shm``, costs pages only where it was written, and
lives while anybody has it mapped: what a dead rank held can still be read, and a crash leaves nothing behind. Its rank
has it mapped twice, once to write what is not sealed yet, and once for all reading. Neighbours open it through
``/proc/PID/fd`` at the start and map it for reading only, all of it; pages come in when they are read. The kernel is
told that nobody may map it for writing any more, so no user can make a view writable, neither of own objects nor of
those of others.

Neighbours that cannot be opened, because they belong to another user or container, are not reached, and their objects
travel as those of other hosts do; unless MPI gives these ranks memory in common, which is then used in place of their
own, session by session. It is mapped with the same rights, but no seal keeps a rank from mapping that of others for
writing.

What is where: a page that proves whose memory this is, so that nobody takes another process for a neighbour, and then
the segments, each with a header before its payload. A place is known to readers only from messages, which may be old.
So the header says what lies there: it is written last, when an object is sealed, and wiped first, when its segment is
freed; a reader compares all of it with what it was told, so that a header that is being written agrees with nothing.

Every session has fresh memory behind the same descriptor, because values of an old one may be viewed for ever. That of
the first is mapped when the ranks meet, that of a later one when it is first read.
"""

from __future__ import annotations

import copy
import fcntl
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import xxhash

from hpcfut.edges.host.pages import NBYTES_LARGE, Pages, map_aligned, map_for_reading
from hpcfut.edges.host.pins import Pin, Pins
from hpcfut.edges.host.shared_maps import map_shared, whole_pages
from hpcfut.model.errors import HpcfutError, ObjectLostError
from hpcfut.model.ids import name_of
from hpcfut.model.place import Place
from hpcfut.model.segment import NBYTES_HEADER
from hpcfut.ports import CommonMemory

_encode: Final = msgspec.msgpack.Encoder().encode
_NBYTES_PAGE: Final = mmap.PAGESIZE
#: Where segments begin.
_NBYTES_PROOF: Final = _NBYTES_PAGE
#: A word that no other program writes, the rank, the number of the session, and a token of this process.
_PROOF: Final = struct.Struct("<8sQQ16s")
_MAGIC_OF_MEMORY: Final = b"hpcfutM1"
#: A word for sealed objects, the object id, and the size of the payload.
_HEADER: Final = struct.Struct("<8sQQ")
#: In debug mode it follows the header.
_CHECKSUM: Final = struct.Struct("<Q")
_SEALED: Final = b"hpcfutS1"
_WIPED: Final = bytes(_HEADER.size)

#: The seal of ``memfd`` that Python has no name for: from now on nobody can map it for writing.
_F_SEAL_FUTURE_WRITE: Final = 0x10


class Card(msgspec.Struct, array_like=True, frozen=True):
    """Where neighbours find the memory of a rank: behind this descriptor, in every session."""

    pid: int
    descriptor: int
    #: Of the whole memory.
    nbytes: int
    token: bytes


class HostArena:
    """Memory of this rank, and views of it and of the memory of neighbours. Any thread may call anything but close."""

    def __init__(self, rank: int, nbytes: int, *, is_checked: bool = False, session: int = 1) -> None:
        """Make the memory; until it has met the neighbours, the rank reaches itself only.

        Args:
            rank: The own rank.
            nbytes: Room for segments; it is rounded up to whole pages.
            is_checked: Whether objects have checksums, by which it is found out that one was changed; on all ranks.
            session: The session for which it is the memory.

        Raises:
            HpcfutError: The system does not give so much memory.
        """
        #: Room for segments.
        self.nbytes = whole_pages(nbytes)
        #: The ranks of the host that can view each other's memory, the own one included; the same for all of them.
        self.neighbours: list[int] = [rank]
        self._rank = rank
        self._is_checked = is_checked
        self._token = os.urandom(16)
        self._n_sessions = session - 1
        #: Ranks that have come when child processes had been told what they can map.
        self._late: dict[int, None] = {}
        self._cards: dict[int, Card] = {}
        self._frombuffer: Callable[..., Any] | None = None
        self._descriptor = os.memfd_create("hpcfut-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._make()
        self._cards[rank] = Card(os.getpid(), self._descriptor, _NBYTES_PROOF + self.nbytes, self._token)

    def renewed(self) -> HostArena:
        """Memory for another session, empty, in place of this one.

        What is still viewed of the old memory stays as it is, unheard of; so does what a thread that is late still
        writes, because it does so through the old arena.
        """
        self._pages.close()
        fresh = os.memfd_create("hpcfut-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)
        arena = copy.copy(self)
        arena._n_sessions += 1
        arena._make()
        return arena

    def in_common(self, common: CommonMemory, nbytes: int) -> HostArena:
        """The same for this session in memory that these ranks have in common, and view; they do it together.

        This one, if there is no room for it, or if they cannot map it.

        Args:
            common: Gives it.
            nbytes: Room for segments, which may differ from rank to rank.
        """
        arena = copy.copy(self)
        arena.nbytes = whole_pages(nbytes)
        maps = map_shared(common, self._rank, _NBYTES_PROOF + arena.nbytes, self._token, self._proof_of)
        if maps is None:
            return self
        arena.neighbours = sorted(common.ranks)
        arena._own, arena._pages, arena._maps = maps.own, maps.pages, maps.of_rank
        arena._cards = {}
        arena.released = deque()
        arena._pins = Pins(arena.released.append)
        return arena

    def _make(self) -> None:
        try:
            self._map_own()
        except (OSError, OverflowError, ValueError) as error:
            os.close(self._descriptor)
            raise HpcfutError(
                f"Rank {self._rank} cannot have {self.nbytes} bytes of memory for objects: {error}. Give the object "
                f"store less memory, or raise the limit on the address space (ulimit -v)."
            ) from error
        self.released: deque[int] = deque()
        self._pins = Pins(self.released.append)
        self._pages = Pages(self._own, _NBYTES_PROOF, nbytes=_NBYTES_PROOF + self.nbytes)

    def _map_own(self) -> None:
        nbytes = _NBYTES_PROOF + self.nbytes
        os.ftruncate(self._descriptor, nbytes + NBYTES_LARGE)
        self._own = map_aligned(self._descriptor, nbytes, mmap.PROT_READ | mmap.PROT_WRITE)
        self._own[: _PROOF.size] = self._proof_of(self._rank, self._token)
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        # Older kernels do not know it; neighbours then map it for reading because they choose to.
        with suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
        #: Rank → its memory, for reading.
        self._maps = {self._rank: map_for_reading(self._descriptor, nbytes)}

    def _proof_of(self, rank: int, token: bytes) -> bytes:
        return _PROOF.pack(_MAGIC_OF_MEMORY, rank, self._n_sessions, token)

    # -- at the start of a job -----------------------------------------------------------------------------------------

    @classmethod
    def among(
        cls,
        candidates: Sequence[int],
        rank: int,
        nbytes: int,
        gather: Callable[[bytes], list[bytes]],
        *,
        is_checked: bool = False,
    ) -> HostArena:
        """Memory that these ranks of the host, the own one included, view if possible; all ranks of the job do it.

        Args:
            candidates: The ranks of this host.
            rank: The own rank.
            nbytes: Room for segments.
            gather: Gives every rank the bytes of all ranks, in the order of the ranks.
            is_checked: As above.
        """
        arena = cls(rank, nbytes, is_checked=is_checked)
        cards = gather(arena.card())
        arena.meet({other: cards[other] for other in candidates})
        reached = gather(_encode(arena.reached))
        if all(reached[other] == _encode(sorted(candidates)) for other in candidates):
            arena.neighbours = sorted(candidates)
        return arena

    def card(self) -> bytes:
        """What the neighbours must know."""
        return _encode(self._cards[self._rank])

    def meet(self, cards: Mapping[int, bytes]) -> None:
        """Map the memory of neighbours, whose cards these are; of those that can be reached."""
        for rank, card in cards.items():
            if rank != self._rank:
                self._cards[rank] = msgspec.msgpack.decode(card, type=Card)
                self._map_neighbour(rank)

    def admit(self, rank: int, card: bytes) -> bool:
        """A rank of this host has come, whose card this is; returns whether its memory can be viewed from here."""
        self._late[rank] = None
        self.meet({rank: card})
        if rank in self._maps:
            self.neighbours.append(rank)
        return rank in self._maps

    @property
    def reached(self) -> list[int]:
        """The ranks whose memory can be viewed from here now, in order."""
        return sorted(self._maps)

    def _map_neighbour(self, rank: int) -> mmap.mmap | None:
        """Map the memory of a rank, unless it is out of reach, as one is that is over a limit of files or memory."""
        card = self._cards.get(rank)
        if card is not None:
            with suppress(OSError, ValueError):
                mapped = self._maps[rank] = map_of_other(card, self._proof_of(rank, card.token))
                return mapped
        return None

    def memory(self, nbytes: int) -> memoryview:
        """The own memory of this session, as far as its segments may take so many bytes; for a window over it."""
        return memoryview(self._own)[: _NBYTES_PROOF + nbytes]

    # -- writing -------------------------------------------------------------------------------------------------------

    def buffer(self, offset: int, nbytes: int) -> memoryview:
        """The payload of an own segment, to be written and then sealed; nobody keeps it longer than the segment.

        Raises:
            MemoryError: The system has no more pages.
        """
        start = _NBYTES_PROOF + NBYTES_HEADER + offset
        self._pages.prepare(start, start + nbytes)
        return self.bare(offset, nbytes)

    def bare(self, offset: int, nbytes: int) -> memoryview:
        """The same for who must not wait for its pages; in common memory they are made, or ``MemoryError`` raised."""
        start = _NBYTES_PROOF + NBYTES_HEADER + offset
        self._pages.expect(start, start + nbytes)
        return memoryview(self._own)[start : start + nbytes]

    def seal(self, offset: int, object_id: int, nbytes: int) -> None:
        """The payload is complete: from now on it can be viewed, and never changes."""
        start = _NBYTES_PROOF + offset
        if self._is_checked:
            _CHECKSUM.pack_into(self._own, start + _HEADER.size, _checksum_of(self._own, start, nbytes))
        self._own[start : start + _HEADER.size] = _HEADER.pack(_SEALED, object_id, nbytes)

    def draft(self, offset: int, object_id: int, nbytes: int) -> tuple[memoryview, Pin]:
        """The payload of an own segment for user code to keep; what is built over it pins the object.

        The pin's ``object_id`` may be changed while that lives.

        Raises:
            MemoryError: The system has no more pages.
        """
        start = _NBYTES_PROOF + NBYTES_HEADER + offset
        self._pages.prepare(start, start + nbytes)
        base = self._array_of(self._own, nbytes, start)
        payload: memoryview = base.data
        return payload, self._pins.hang(base, object_id)

    def unseal(self, offset: int) -> None:
        """The segment is about to be freed: who reads an old message will not find it."""
        start = _NBYTES_PROOF + offset
        if self._is_checked:
            word, object_id, nbytes = _HEADER.unpack_from(self._own, start)
            if word == _SEALED and not _is_unchanged(self._own, start, nbytes):
                # Nobody will ask for it any more, so that nobody can be told but the user.
                os.write(2, f"hpcfut: {_complaint_of_change(object_id, nbytes, self._rank)}\n".encode())
        self._own[start : start + _HEADER.size] = _WIPED

    # -- reading -------------------------------------------------------------------------------------------------------

    def view(self, place: Place) -> memoryview:
        """The payload of a sealed object, read-only and without a copy; what is built over it pins the object.

        It stays readable whatever happens, to the end of this process; what it shows is the object's for as long as the
        holder keeps the segment.

        Raises:
            ObjectLostError: The object is not at that place, or the rank is out of reach.
        """
        memory = self._maps.get(place.rank) or self._map_neighbour(place.rank)
        start = _NBYTES_PROOF + place.offset
        header = _HEADER.pack(_SEALED, place.object_id, place.nbytes)
        if memory is None or memory[start : start + _HEADER.size] != header:
            raise ObjectLostError(self._complaint(place))
        if self._is_checked and not _is_unchanged(memory, start, place.nbytes):
            raise ObjectLostError(_complaint_of_change(place.object_id, place.nbytes, place.rank))
        base = self._array_of(memory, place.nbytes, start + NBYTES_HEADER)
        self._pins.hang(base, place.object_id)
        view: memoryview = base.data
        return view

    def guide(self) -> list[tuple[int, bytes, bytes]]:
        """How a child process maps the same memory: rank, card and proof of each; nothing of memory in common."""
        self._late.clear()
        return [(rank, _encode(card), self._proof_of(rank, card.token)) for rank, card in self._cards.items()]

    def find(self, view: memoryview) -> tuple[int, int] | None:
        """Whose memory a view shows, and from which byte on; nothing if no child process can map that."""
        address = _address_of(view)
        maps = {rank: self._maps.get(rank, b"") for rank in self._cards if rank not in self._late}
        starts = {rank: address - _address_of(memory) for rank, memory in maps.items()}
        return next(((rank, start) for rank, start in starts.items() if 0 <= start < len(maps[rank])), None)

    def _array_of(self, memory: mmap.mmap, nbytes: int, start: int) -> Any:
        frombuffer = self._frombuffer
        if frombuffer is None:
            import numpy  # only now, because the number of its threads is set before it is loaded

            frombuffer = self._frombuffer = numpy.frombuffer
        return frombuffer(memory, "B", nbytes, start)

    def _complaint(self, place: Place) -> str:
        what = (
            f"Object {name_of(place.object_id)} of {place.nbytes} bytes cannot be read at {place.offset} in the memory "
            f"of rank {place.rank}"
        )
        if place.rank not in self._maps:
            return f"{what}: it is out of reach from rank {self._rank}. This is a bug in hpcfut; please report it."
        return f"{what}: it is not there, or not any more. Keep a ref to an object for as long as it is read."

    def forget(self, rank: int) -> None:
        """A rank is dead, and nothing of its memory is read any more; what is still viewed of it stays as it is."""
        self._cards.pop(rank, None)
        self._maps.pop(rank, None)

    @property
    def n_pins(self) -> int:
        """Views of which something lives."""
        return len(self._pins)

    def close(self) -> None:
        """Give all memory back but what is still viewed, which goes with its last view. Nothing may be called later."""
        self._pages.close()
        self._maps.clear()
        del self._own, self._pages
        os.close(self._descriptor)


def _address_of(memory: mmap.mmap | memoryview | bytes) -> int:
    import numpy

    return int(numpy.frombuffer(memory, "B").ctypes.data)


def _checksum_of(memory: mmap.mmap, start: int, nbytes: int) -> int:
    payload = memoryview(memory)[start + NBYTES_HEADER : start + NBYTES_HEADER + nbytes]
    return xxhash.xxh3_64_intdigest(payload)


def _is_unchanged(memory: mmap.mmap, start: int, nbytes: int) -> bool:
    (checksum,) = _CHECKSUM.unpack_from(memory, start + _HEADER.size)
    return bool(checksum == _checksum_of(memory, start, nbytes))


def _complaint_of_change(object_id: int, nbytes: int, rank: int) -> str:
    return (
        f"Object {name_of(object_id)} of {nbytes} bytes in the memory of rank {rank} was changed after it was stored. "
        f"This is done by writing to an array that was made over hpcfut.empty() before that was put or returned, or by "
        f"a forked child of the rank. Write before the array is stored."
    )


def map_of_other(card: Card, proof: bytes) -> mmap.mmap:
    """Map what stands behind a descriptor of another process, and make sure that it is the right memory."""
    descriptor = os.open(f"/proc/{card.pid}/fd/{card.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size == card.nbytes + NBYTES_LARGE:
            mapped = map_for_reading(descriptor, card.nbytes)
            if mapped[: _PROOF.size] == proof:
                return mapped
    finally:
        os.close(descriptor)
    raise FileNotFoundError(f"Process {card.pid} has another file as its descriptor {card.descriptor}.")
