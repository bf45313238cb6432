"""What messages tell of a value: as an argument of a task, and as its result."""

from __future__ import annotations

import msgspec

from hpcfut.model.ids import Count, Rank


class Argument(msgspec.Struct, array_like=True, gc=False):
    """A ref that stood at the top level of a call, resolved for the executor: an inline value or a place to read it.

    ``payload`` is ``None`` for a stored object; then ``rank`` holds ``nbytes`` of it. An ``offset`` from 0 on says that
    ``rank`` is the sender, and lends it. A payload with ``nbytes`` is the recipe for reading so many from their source.
    """

    object_id: int
    payload: bytes | None
    rank: Rank = 0
    nbytes: Count = 0
    contained: tuple[int, ...] = ()
    offset: int = -1


class Result(msgspec.Struct, array_like=True, gc=False):
    """One return value: inline, or stored on the sender (no ``payload``), and lent if ``offset`` is not negative."""

    payload: bytes | None
    nbytes: Count = 0
    contained: tuple[int, ...] = ()
    offset: int = -1


def nbytes_of(payload: bytes) -> int:
    """The size of what nobody between two edges looks into."""
    return len(payload)
