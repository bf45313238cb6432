"""Grids: how a dataset is cut into chunks, in C order (the last axis counts fastest)."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

#: Where a chunk begins, and its size along each axis; those at the far edges are smaller.
Chunk = tuple[tuple[int, ...], tuple[int, ...]]


class Grid:
    """The chunks of one dataset."""

    def __init__(self, shape: Sequence[int], chunks: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.chunks = tuple(chunks)

    def __len__(self) -> int:
        return math.prod(-(-size // step) for size, step in zip(self.shape, self.chunks, strict=True))

    def __iter__(self) -> Iterator[Chunk]:
        axes = [
            [(start, min(step, size - start)) for start in range(0, size, step)]
            for size, step in zip(self.shape, self.chunks, strict=True)
        ]
        for places in itertools.product(*axes):
            yield tuple(start for start, _ in places), tuple(size for _, size in places)


def sizes_of(name: str, given: Any) -> tuple[int, ...]:
    """A number for each axis, of which one alone need not be in a sequence; called ``name`` in the complaint.

    Raises:
        TypeError: They are no whole numbers.
    """
    try:
        return tuple(map(operator.index, given if hasattr(given, "__iter__") else (given,)))
    except TypeError:
        raise TypeError(f"{name} is {given!r}. Give a whole number for each axis.") from None


def grid_of(name: str, shape: Sequence[int], chunks: Any) -> Grid:
    """The grid of a dataset called ``name`` in complaints; a larger chunk is cut to it, and none at all is the whole.

    Raises:
        TypeError: The chunks are no whole numbers.
        ValueError: They do not fit the shape, or that has no elements.
    """
    if min(shape, default=1) <= 0:
        raise ValueError(f"{name} has the shape {tuple(shape)}, and so no elements: there are no chunks of it.")
    if chunks is None:
        return Grid(shape, shape)
    steps = sizes_of("chunks", chunks)
    if len(steps) != len(shape):
        raise ValueError(f"chunks is {chunks!r}, but {name} has the shape {tuple(shape)}. Give one size for each axis.")
    if min(steps, default=1) <= 0:
        raise ValueError(f"chunks is {chunks!r}. Along each axis a chunk has 1 element at least.")
    return Grid(shape, tuple(map(min, steps, shape)))


def range_text(start: Sequence[int], sizes: Sequence[int]) -> str:
    """A chunk as people write it: ``[0:10, 20:30]``."""
    return f"[{', '.join(f'{first}:{first + size}' for first, size in zip(start, sizes, strict=True)) or '()'}]"
