"""A full store, as users are told of it."""

from __future__ import annotations

from typing import Final

from hpcfut.core.copies import Copies
from hpcfut.model.ids import name_of
from hpcfut.model.segment import NBYTES_HEADER

#: Of what fills the store, so many are named.
_N_NAMED_MAX: Final = 3


def complaint_of_full_store(copies: Copies, rank: int, object_id: int, nbytes: int, trouble: str) -> str:
    """Why there is no room for an object; ``trouble``: why nothing could be spilled."""
    arena = copies.arena
    largest = sorted(
        (copy for copy in copies.copies.values() if copy.rank == rank and copy.offset >= 0),
        key=lambda copy: (-copy.nbytes, copy.object_id),
    )
    what = f"There is no room for object {name_of(object_id)} of {nbytes} bytes on rank {rank}: its object store"
    more = "give each rank a larger store: init(object_store_memory=BYTES)."
    if nbytes + NBYTES_HEADER > arena.nbytes:
        return f"{what} has {arena.nbytes} bytes in all. Make smaller objects, or {more}"
    names = ", ".join(f"{name_of(copy.object_id)} ({copy.nbytes} bytes)" for copy in largest[:_N_NAMED_MAX])
    if len(largest) == 1:
        taken_by = f"object {names}"
    else:
        taken_by = f"{len(largest)} objects" + (f", the largest of them {names}" if names else "")
    return (
        f"{what} has {arena.nbytes} bytes, of which {arena.nbytes_used} are taken by {taken_by}"
        + f"; the largest free piece has {arena.nbytes_hole_max} bytes. "
        + (trouble or "They are in use: values over them are kept, or tasks have them as arguments.")
        + f" Drop refs and arrays that are not needed, use more ranks, or {more}"
    )
