"""What the allocator and the memory of the object store must agree on."""

from __future__ import annotations

from typing import Final

#: Offsets and sizes of segments are multiples of it: arrays then start on a cache line.
NBYTES_ALIGNMENT: Final = 64
#: What a segment has before its payload; it says what the payload is.
NBYTES_HEADER: Final = 64


def nbytes_of_segment(nbytes: int) -> int:
    """What a payload takes of an arena."""
    return (nbytes + NBYTES_HEADER + NBYTES_ALIGNMENT - 1) & -NBYTES_ALIGNMENT
