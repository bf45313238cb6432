"""The memory of ranks of the host, as a child process of one of them reads it: where the bytes lie, and nothing else.

The rank says whose memory and from which byte on, and keeps the object there until the child has said that nothing is
left of the view.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from hpcfut.edges.host.arena import Card, map_of_other
from hpcfut.edges.host.pins import Pins


class ChildMemory:
    """Views of it; each is mapped when something of it is viewed first."""

    def __init__(self, guide: Sequence[tuple[int, bytes, bytes]]) -> None:
        """``guide`` is what the arena of the rank gives."""
        self._guide = {rank: (card, proof) for rank, card, proof in guide}
        self._maps: dict[int, mmap.mmap] = {}
        #: Numbers of views of which nothing lives any more.
        self.closed: deque[int] = deque()
        self._pins = Pins(self.closed.append)

    def view(self, number: int, rank: int, start: int, nbytes: int) -> memoryview:
        """These bytes, read-only; the number is told in ``closed`` when nothing lives that is built over them."""
        memory = self._maps.get(rank)
        if memory is None:
            card, proof = self._guide[rank]
            memory = self._maps[rank] = map_of_other(msgspec.msgpack.decode(card, type=Card), proof)
        import numpy

        base: Any = numpy.frombuffer(memory, "B", nbytes, start)
        self._pins.hang(base, number)
        view: memoryview = base.data
        return view

    @property
    def n_views(self) -> int:
        """Views of which something lives."""
        return len(self._pins)
