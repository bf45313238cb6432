"""What a rank says about the objects that it holds, for people who look for what fills the memory."""

from __future__ import annotations

import msgspec


class HeldObject(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An object that a rank owns or borrows."""

    object_id: int
    #: Of its value.
    state: str
    #: Of a stored value, and the rank that stores it; else 0 and -1.
    nbytes: int
    rank: int
    #: Refs in user code of this rank.
    n_refs: int
    #: Tasks that this rank has submitted and that have not ended, whose arguments have it.
    n_tasks: int
    #: Holds for other reasons: it is inside another value, or a task that runs here has it.
    n_others: int
    #: Other ranks that hold it, as its owner knows.
    borrowers: tuple[int, ...]
    #: Refs inside its value.
    contained: tuple[int, ...]
    #: Where user code made it, if that was noted.
    site: str


class StoredCopy(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The bytes of an object, as a rank has them at hand."""

    object_id: int
    state: str
    nbytes: int
    #: In whose memory they are; -1 for what has not been read from its source.
    rank: int
    is_primary: bool
    #: Tasks here that have it as argument.
    n_tasks: int
    #: Values here that are built over it.
    n_views: int
    #: Transfers to other hosts that are under way.
    n_sends: int
    #: The ranks of the host that read it in place.
    lent: tuple[int, ...]


class Inventory(msgspec.Struct, array_like=True, frozen=True):
    """All that one rank holds."""

    nbytes_store: int
    nbytes_used: int
    nbytes_hole_max: int
    #: The share of its free bytes that is not in the largest hole.
    fragmentation: float
    nbytes_spilled: int
    held: tuple[HeldObject, ...]
    copies: tuple[StoredCopy, ...]
    #: Where user code of this rank made objects that it does not hold any more, of which others may still have bytes.
    sites: dict[int, str] = {}
