"""A model of the memory for large objects of one virtual rank, which knows what may be done to a segment when."""

from __future__ import annotations

from typing import Final

import msgspec

from hpcfut.model.ids import name_of
from hpcfut.model.place import Place
from hpcfut.sim.trace import SimulationError

#: The size of every stored value.
NBYTES_STORED: Final = 1000


class Segment(msgspec.Struct, gc=False):
    """One allocation."""

    offset: int
    payload: bytes
    is_sealed: bool = False
    #: Transfers out of it that are under way.
    n_sends: int = 0
    #: Whether a transfer into it is under way.
    is_receiving: bool = False
    #: Values of user code, on any rank of the host, that are built over it.
    n_views: int = 0


class SimWindow:
    """The segments of one rank."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.segments: dict[int, Segment] = {}

    def give(self, object_id: int, offset: int) -> None:
        """User code may write here."""
        if object_id in self.segments:
            raise SimulationError(f"Object {name_of(object_id)} is stored twice on rank {self.rank}.", [object_id])
        self.segments[object_id] = Segment(offset, b"")

    def rename(self, object_id: int, other_id: int) -> None:
        """What user code writes becomes another object."""
        self.segments[other_id] = self.segments.pop(object_id)

    def store(self, object_id: int, payload: bytes) -> None:
        """Write and seal in one go: a put or a result."""
        segment = self._find(object_id, "stores")
        segment.payload, segment.is_sealed = payload, True

    def receive(self, object_id: int, offset: int) -> None:
        """Get ready for a transfer."""
        if object_id in self.segments:
            raise SimulationError(
                f"Rank {self.rank} reads object {name_of(object_id)}, which it has a segment of.", [object_id]
            )
        self.segments[object_id] = Segment(offset, b"", is_receiving=True)

    def arrive(self, object_id: int, payload: bytes) -> None:
        """All bytes of a transfer have come."""
        segment = self._find(object_id, "receives")
        segment.payload, segment.is_sealed, segment.is_receiving = payload, True, False

    def break_off(self, object_id: int) -> None:
        """A transfer will not complete."""
        self._find(object_id, "receives").is_receiving = False

    def view(self, place: Place, why: str) -> bytes:
        """The bytes of a sealed object."""
        segment = self._find(place.object_id, why)
        if not segment.is_sealed or segment.offset != place.offset:
            raise SimulationError(
                f"Rank {self.rank} {why} object {name_of(place.object_id)}, which is not sealed at that place.",
                [place.object_id],
            )
        return segment.payload

    def open(self, place: Place) -> None:
        """Somebody builds a value over a segment."""
        self.view(place, "opens")
        self.segments[place.object_id].n_views += 1

    def close(self, place: Place) -> None:
        """Such a value is gone."""
        self.view(place, "closes")
        self.segments[place.object_id].n_views -= 1

    def start_send(self, place: Place) -> bytes:
        """A transfer out of a segment begins."""
        payload = self.view(place, "sends")
        self.segments[place.object_id].n_sends += 1
        return payload

    def end_send(self, object_id: int) -> None:
        """All bytes have left."""
        self._find(object_id, "has sent").n_sends -= 1

    def free(self, object_id: int) -> None:
        """Give the room back."""
        segment = self._find(object_id, "frees")
        if segment.n_sends or segment.is_receiving or segment.n_views:
            raise SimulationError(
                f"Rank {self.rank} frees object {name_of(object_id)} while it is sent, received or viewed.", [object_id]
            )
        del self.segments[object_id]

    def _find(self, object_id: int, why: str) -> Segment:
        segment = self.segments.get(object_id)
        if segment is None:
            raise SimulationError(
                f"Rank {self.rank} {why} object {name_of(object_id)}, which has no segment there.", [object_id]
            )
        return segment
