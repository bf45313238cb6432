"""Object movement of one rank: it performs the effects that read, send and free stored objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hpcfut.core.context import Context
from hpcfut.core.effects import FreeSegment, SendObject, StartRead
from hpcfut.core.events import Event, ReadCompleted, ReadDenied, ReadFailed, SendCompleted
from hpcfut.model.failure import FULL, LOST, Failure
from hpcfut.ports import Transport, Window
from hpcfut.wire.messages import Message, ReadRequested

#: A transfer is hurried for as long as it would take at this speed; on a slower link short sleeps cost it nothing.
NBYTES_HURRIED_PER_S: Final = 500e6


class Movement:
    """What is under way between this rank's window and others; used with the engine's lock."""

    def __init__(
        self, transport: Transport, window: Window, context: Context, send: Callable[[int, Message], None]
    ) -> None:
        self._transport = transport
        self._window = window
        self._context = context
        self._send = send
        #: What is under way, by transfer: reads to here, and by (reader, transfer) the objects that are sent from here.
        self.reads: dict[int, StartRead] = {}
        self.sends: dict[tuple[int, int], int] = {}
        #: Of these reads: why they could not begin.
        self._denied: dict[int, Failure] = {}
        self._hurried_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether data are under way."""
        return bool(self.reads or self.sends)

    def is_hurried(self, now: float) -> bool:
        """Whether data are under way that short sleeps would hold up."""
        return now < self._hurried_until and self.is_open

    def _hurry(self, nbytes: int) -> None:
        if len(self.reads) + len(self.sends) == 1:
            self._hurried_until = 0.0  # What went before is over, mostly sooner than it might have been.
        self._hurried_until = max(self._hurried_until, self._context.now) + nbytes / NBYTES_HURRIED_PER_S

    def start_read(self, effect: StartRead) -> None:
        """Get ready to receive, and ask the holder."""
        self.reads[effect.transfer_id] = effect
        try:
            buffer = self._window.bare(effect.offset, effect.nbytes)
        except MemoryError as error:  # Others may have filled the folder that memory in common comes out of.
            self._denied[effect.transfer_id] = Failure(FULL, str(error))
            return
        self._hurry(effect.nbytes)
        self._transport.receive_data(effect.rank, effect.transfer_id, buffer)
        self._send(effect.rank, ReadRequested(effect.object_id, effect.transfer_id))

    def send_object(self, effect: SendObject) -> None:
        """Start sending the bytes of an object that is stored here."""
        self.sends[effect.rank, effect.transfer_id] = effect.object_id
        self._hurry(effect.nbytes)
        buffer = self._window.bare(effect.offset, effect.nbytes)
        self._transport.send_data(effect.rank, effect.transfer_id, buffer)

    def free_segment(self, effect: FreeSegment) -> None:
        """The memory of an object is given back; a read into it has been refused, if one is under way."""
        for transfer_id, read in self.reads.items():
            if read.object_id == effect.object_id:
                # The holder has said that it will not send.
                del self.reads[transfer_id]
                self._transport.abandon_data(read.rank, transfer_id)
                break
        self._window.unseal(effect.offset)

    def take_completed(self) -> list[Event]:
        """What has completed, or could not begin, since the last call."""
        events: list[Event] = []
        while self._denied:
            transfer_id, failure = self._denied.popitem()
            del self.reads[transfer_id]
            events.append(ReadDenied(transfer_id, failure))
        for is_send, rank, transfer_id in self._transport.completed_data():
            if is_send:
                events.append(SendCompleted(self.sends.pop((rank, transfer_id))))
            else:
                read = self.reads.pop(transfer_id)
                self._window.seal(read.offset, read.object_id, read.nbytes)
                events.append(ReadCompleted(transfer_id))
        for is_send, rank, transfer_id in self._transport.failed_data():
            if is_send:
                events.append(SendCompleted(self.sends.pop((rank, transfer_id))))
            else:
                del self.reads[transfer_id]
                events.append(ReadFailed(transfer_id, Failure(LOST, f"Rank {rank}, where it was stored, has died.")))
        return events
