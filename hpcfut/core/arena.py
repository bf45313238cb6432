"""The allocator over the memory of one rank: which bytes hold a segment, and which are free. It never touches them.

Segments and holes tile the arena; two holes never meet. Pages that were written before are several times as fast to
write again as fresh ones, so memory is reused before the arena grows: the tightest hole among those that were used to
their end takes a new segment. What lies beyond the highest end of all time is always part of the last hole, which
therefore stands apart while it has fresh pages, and serves only when no other hole is large enough.

Holes are found by size: one list of the sizes that there are, in order, and for each size its holes, of which the one
that was freed last is taken, because it is the likeliest to be in a cache. The sizes of holes add up to no more than
the arena, so that only few can differ, and the list stays short however many holes there are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from typing import Final

from hpcfut.model.errors import InvariantError
from hpcfut.model.segment import NBYTES_ALIGNMENT, NBYTES_HEADER

_ROUNDING_UP: Final = NBYTES_HEADER + NBYTES_ALIGNMENT - 1


class Arena:
    """Segments and holes. Offsets are those of segments; a payload begins ``NBYTES_HEADER`` later."""

    def __init__(self, nbytes: int) -> None:
        """Make an arena that is one hole; what is left beyond a multiple of the alignment is not used."""
        self.nbytes: Final = nbytes & -NBYTES_ALIGNMENT
        self.nbytes_used = 0
        #: The highest end that a segment ever had.
        self.nbytes_touched = 0
        #: Offset → size of each segment, its header included.
        self._segments: dict[int, int] = {}
        #: Where each hole begins → where it ends, and the other way round; no hole begins where another one ends.
        self._edges: dict[int, int] = {}
        #: Size → offsets of the holes that have no fresh pages, and these sizes in order.
        self._warm: dict[int, dict[int, None]] = {}
        self._sizes: list[int] = []
        if self.nbytes:
            self._add_hole(0, self.nbytes)

    def allocate(self, nbytes: int) -> int | None:
        """Find room for a header and a payload.

        Args:
            nbytes: Size of the payload, 0 or more.

        Returns:
            The offset of the segment; ``None`` if no hole is large enough.
        """
        size = (nbytes + _ROUNDING_UP) & -NBYTES_ALIGNMENT
        sizes = self._sizes
        place = bisect_left(sizes, size)
        if place < len(sizes):
            found = sizes[place]
            warm = self._warm[found]
            offset, _ = warm.popitem()
            if not warm:
                del sizes[place], self._warm[found]
        else:
            offset = self._edges.get(self.nbytes, self.nbytes)
            found = self.nbytes - offset
            # If the last hole is warm it was looked at, and is too small.
            if found < size:
                return None
            self.nbytes_touched = max(self.nbytes_touched, offset + size)
        del self._edges[offset]
        if found > size:
            self._add_hole(offset + size, offset + found)
        else:
            del self._edges[offset + size]
        self._segments[offset] = size
        self.nbytes_used += size
        return offset

    def free(self, offset: int) -> None:
        """Give a segment back.

        Raises:
            InvariantError: No segment begins there.
        """
        size = self._segments.pop(offset, 0)
        if not size:
            raise InvariantError(f"No segment of the arena begins at {offset}, so that none can be freed there.")
        self.nbytes_used -= size
        end = offset + size
        after = self._edges.pop(end, 0)
        if after:
            self._forget(end, after)
            end = after
        before = self._edges.pop(offset, -1)
        if before >= 0:
            self._forget(before, offset)
            offset = before
        self._add_hole(offset, end)

    def _add_hole(self, offset: int, end: int) -> None:
        self._edges[offset] = end
        self._edges[end] = offset
        if end <= self.nbytes_touched:
            size = end - offset
            warm = self._warm.get(size)
            if warm is None:
                self._warm[size] = {offset: None}
                insort(self._sizes, size)
            else:
                warm[offset] = None

    def _forget(self, offset: int, end: int) -> None:
        """A hole becomes part of a larger one: it is not found by its size any more."""
        if end <= self.nbytes_touched:
            size = end - offset
            warm = self._warm[size]
            del warm[offset]
            if not warm:
                del self._warm[size], self._sizes[bisect_left(self._sizes, size)]

    def cheapest_run(self, nbytes: int, movable: Iterable[int]) -> list[int]:
        """Which of these segments, if they were freed, would leave a hole for a payload; the fewest bytes of them.

        Args:
            nbytes: Size of the payload.
            movable: Offsets of segments that may be freed; of equal ones, those are taken that come first.

        Returns:
            Offsets; none if the others are in the way everywhere, or if there is such a hole already.
        """
        size = (nbytes + _ROUNDING_UP) & -NBYTES_ALIGNMENT
        places = {offset: place for place, offset in enumerate(movable)}
        tiles = [(offset, extent) for offset, extent in self._segments.items()]
        tiles += [(offset, end - offset) for offset, end in self._edges.items() if offset < end]
        run: deque[tuple[int, int]] = deque()
        found, best, least = 0, list[int](), (self.nbytes + 1, 0)
        for offset, extent in sorted(tiles):
            if offset in self._segments and offset not in places:
                run.clear()
                found = 0
                continue
            run.append((offset, extent))
            found += extent
            while found - run[0][1] >= size:
                found -= run.popleft()[1]
            if found >= size:
                moved = [offset for offset, _ in run if offset in places]
                cost = sum(map(self._segments.__getitem__, moved)), max(map(places.__getitem__, moved), default=-1)
                if cost < least:
                    least, best = cost, moved
        return best

    @property
    def nbytes_free(self) -> int:
        """Bytes in holes."""
        return self.nbytes - self.nbytes_used

    @property
    def nbytes_hole_max(self) -> int:
        """Size of the largest hole; a payload can have ``NBYTES_HEADER`` less."""
        last = self.nbytes - self._edges.get(self.nbytes, self.nbytes)
        return max(last, self._sizes[-1]) if self._sizes else last

    @property
    def n_segments(self) -> int:
        """Segments that are not free."""
        return len(self._segments)

    @property
    def fragmentation(self) -> float:
        """The share of the free bytes that is not in the largest hole; 0 where nothing is free."""
        return 1 - self.nbytes_hole_max / self.nbytes_free if self.nbytes_free else 0.0

    def check(self) -> None:
        """Assert that segments and holes tile the arena, that no two holes meet, and that every hole can be found."""
        parts = [(offset, size, False) for offset, size in self._segments.items()]
        parts += [(offset, end - offset, True) for offset, end in self._edges.items() if offset < end]
        end, was_hole = 0, False
        for offset, size, is_hole in sorted(parts):
            if offset != end or size <= 0 or (offset | size) % NBYTES_ALIGNMENT or (is_hole and was_hole):
                what = "hole" if is_hole else "segment"
                raise InvariantError(f"In the arena a {what} of {size} bytes at {offset} follows what ends at {end}.")
            end, was_hole = offset + size, is_hole
            if not is_hole and end > self.nbytes_touched:
                raise InvariantError(f"A segment ends at {end}, but {self.nbytes_touched} is said to be the highest.")
        if end != self.nbytes or self.nbytes_used != sum(self._segments.values()):
            raise InvariantError(f"The arena of {self.nbytes} bytes ends at {end} and counts {self.nbytes_used} used.")
        holes = {offset: end for offset, end in self._edges.items() if offset < end}
        if self._edges != holes | {end: offset for offset, end in holes.items()}:
            raise InvariantError("The arena does not find its holes by their ends.")
        warm = sorted((end - offset, offset) for offset, end in holes.items() if end <= self.nbytes_touched)
        found = sorted((size, offset) for size, offsets in self._warm.items() for offset in offsets)
        if warm != found or self._sizes != sorted(self._warm):
            raise InvariantError(f"The arena finds the holes {found} by size, but has {warm}.")
