"""Object movement of one rank: it performs the effects that read, send and free stored objects."""

from __future__ import annotations

from collections.abc import Callable

from hpcfut.core.effects import FreeSegment, SendObject, StartRead
from hpcfut.core.events import Event, ReadCompleted, RoomDenied, SendCompleted
from hpcfut.model.failure import INTERNAL, Failure
from hpcfut.model.ids import name_of
from hpcfut.ports import Transport, Window
from hpcfut.wire.messages import Message, ReadRequested


class Movement:
    """What is under way between this rank's window and others; used with the engine's lock."""

    def __init__(self, rank: int, transport: Transport, window: Window, send: Callable[[int, Message], None]) -> None:
        self._rank = rank
        self._transport = transport
        self._window = window
        self._send = send
        #: What is under way: transfer → (holder, object), and (reader, transfer) → (object, its bytes).
        self.reads: dict[int, tuple[int, int]] = {}
        self.sends: dict[tuple[int, int], tuple[int, memoryview]] = {}
        #: Reads that there was no room for, to be told in the same turn.
        self.denied: list[RoomDenied] = []

    def start_read(self, effect: StartRead) -> None:
        """Make room, get ready to receive, and ask the holder."""
        try:
            buffer = self._window.reserve(effect.object_id, effect.nbytes)
        except MemoryError as error:
            text = f"Rank {self._rank} cannot read object {name_of(effect.object_id)}. {error}"
            self.denied.append(RoomDenied(effect.transfer_id, Failure(INTERNAL, text)))
            return
        self.reads[effect.transfer_id] = (effect.rank, effect.object_id)
        self._transport.receive_data(effect.rank, effect.transfer_id, buffer)
        self._send(effect.rank, ReadRequested(effect.object_id, effect.transfer_id))

    def send_object(self, effect: SendObject) -> None:
        """Start sending the bytes of an object that is stored here."""
        view = self._window.view(effect.object_id)
        self.sends[effect.rank, effect.transfer_id] = (effect.object_id, view)
        self._transport.send_data(effect.rank, effect.transfer_id, view)

    def free_segment(self, effect: FreeSegment) -> None:
        """Give the memory of an object back; a read of it has been refused, if one is under way."""
        for transfer_id, (rank, object_id) in self.reads.items():
            if object_id == effect.object_id:
                # The holder has said that it will not send.
                del self.reads[transfer_id]
                self._transport.abandon_data(rank, transfer_id)
                break
        self._window.free(effect.object_id)

    def take_completed(self) -> list[Event]:
        """What has completed since the last call."""
        events: list[Event] = []
        for is_send, rank, transfer_id in self._transport.completed_data():
            if is_send:
                events.append(SendCompleted(self.sends.pop((rank, transfer_id))[0]))
            else:
                self._window.seal(self.reads.pop(transfer_id)[1])
                events.append(ReadCompleted(transfer_id))
        return events

    def close(self) -> None:
        """The session is over: what was asked for will not be sent any more."""
        for transfer_id, (rank, _) in self.reads.items():
            self._transport.abandon_data(rank, transfer_id)
        self.reads.clear()
