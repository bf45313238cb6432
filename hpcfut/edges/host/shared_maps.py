"""Memory that ranks have in common by the grace of MPI, mapped by each of them as it maps memory of its own.

Every rank gets a part. It maps its own once more for writing, and everybody's for reading; then MPI's mappings, and
the names that they had while they were made, can go at once, and the memory lives as long as a view of it. It comes out
of the folder of shared memory, which may be full: whether there is room is asked first, and every page is made before
it is written.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from hpcfut.edges.host.alias import alias_of
from hpcfut.edges.host.machine import nbytes_of_shared_memory
from hpcfut.edges.host.pages import Pages
from hpcfut.ports import CommonMemory

#: What MPI takes for itself, for each rank; and it wants a twentieth of all to be left free.
_NBYTES_OF_MPI: Final = 1 << 20


class _Wish(msgspec.Struct, array_like=True, frozen=True):
    """What a rank tells the others before anything is made."""

    nbytes: int
    nbytes_free: int
    token: bytes


class SharedMaps(msgspec.Struct):
    """What has been mapped."""

    own: mmap.mmap
    pages: Pages
    #: Rank → its part, for reading.
    of_rank: dict[int, mmap.mmap]


def map_shared(
    common: CommonMemory, rank: int, nbytes: int, token: bytes, proof_of: Callable[[int, bytes], bytes]
) -> SharedMaps | None:
    """Have memory in common, of which a part of this size is the own one; all ranks of ``common`` do it together.

    Nothing if there is no room for all of it, or if one of them cannot map it: on all of them alike.

    Args:
        common: Gives it.
        rank: The own rank.
        nbytes: In whole pages; not the same for all ranks.
        token: What tells the own memory from that of other processes.
        proof_of: The bytes with which the memory of a rank begins that has this token.
    """
    answers = common.gather(msgspec.msgpack.encode(_Wish(nbytes, nbytes_of_shared_memory(), token)))
    wishes = [msgspec.msgpack.decode(answer, type=_Wish) for answer in answers]
    nbytes_all = sum(wish.nbytes for wish in wishes)
    nbytes_needed = nbytes_all + nbytes_all // 16 + len(wishes) * _NBYTES_OF_MPI
    if nbytes_needed > min(wish.nbytes_free for wish in wishes):
        return None
    # What begins a page here does so for all of them.
    starts = [whole_pages(address) for address in common.allocate(nbytes + mmap.PAGESIZE)]
    parts = dict(zip(common.ranks, zip(starts, wishes, strict=True), strict=True))
    maps: SharedMaps | None = None
    with suppress(OSError, MemoryError):
        own = alias_of(parts[rank][0], nbytes, is_writable=True)
        pages = Pages(own, 0, is_strict=True)
        pages.prepare(0, mmap.PAGESIZE)
        proof = proof_of(rank, token)
        own[: len(proof)] = proof
        maps = SharedMaps(own, pages, {})
    common.gather(b"")  # By now all of them have written theirs.
    if maps is not None:
        with suppress(OSError):
            for other, (start, wish) in parts.items():
                maps.of_rank[other] = _map_for_reading(start, wish.nbytes, proof_of(other, wish.token))
    is_whole = maps is not None and len(maps.of_rank) == len(parts)
    answers = common.gather(b"y" if is_whole else b"n")
    common.free()
    return maps if all(answer == b"y" for answer in answers) else None


def whole_pages(nbytes: int) -> int:
    """Rounded up."""
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _map_for_reading(start: int, nbytes: int, proof: bytes) -> mmap.mmap:
    mapped = alias_of(start, nbytes, is_writable=False)
    # A rank that crashes would else write the memory of all ranks of its host into its core file.
    mapped.madvise(mmap.MADV_DONTDUMP)
    if mapped[: len(proof)] != proof:
        raise FileNotFoundError("MPI has given the memory of another process.")
    return mapped
