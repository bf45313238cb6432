"""Where bytes lie that can be read in place."""

from __future__ import annotations

import msgspec


class Place(msgspec.Struct, frozen=True, gc=False):
    """A segment in the arena of a rank of this host."""

    object_id: int
    rank: int
    offset: int
    nbytes: int
