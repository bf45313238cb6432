"""Frames of one session: messages gather in outboxes, leave as frames, and come back as events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcfut.core.context import Context
from hpcfut.core.events import Event, FrameReceived, FrameRefused
from hpcfut.model.errors import CodecError, FrameRefusedError
from hpcfut.ports import Transport
from hpcfut.wire.codec import OtherSessionError, decode_frame, encode_frame, prefix_of
from hpcfut.wire.messages import Message, TaskPushed


class Frames:
    """What one rank sends and receives; used with the engine's lock."""

    def __init__(self, context: Context, transport: Transport, session: int, load: Callable[[], int]) -> None:
        self._context = context
        self._transport = transport
        self._prefix = prefix_of(session)
        self._load = load
        self.n_messages_max = context.config.n_messages_frame_max
        # Looked up once: this is the task path.
        self._send: Callable[..., None] = transport.send
        self._poll: Callable[[], Sequence[tuple[int, bytes | bytearray | memoryview]]] = transport.poll
        #: How many came at the last look.
        self.n_arrived = 0
        #: Messages that have not left, by rank.
        self.outboxes: dict[int, list[Message]] = {}

    def look_up(self) -> None:
        """The transport has other ways than before."""
        self._send, self._poll = self._transport.send, self._transport.poll

    def send(self, rank: int, message: Message) -> None:
        """Put a message into the next frame for the rank."""
        outbox = self.outboxes.get(rank)
        if outbox is None:
            self.outboxes[rank] = [message]
            return
        outbox.append(message)
        if len(outbox) >= self.n_messages_max:
            self.push(rank)

    def push(self, rank: int) -> None:
        """Send what there is for one rank."""
        messages = self.outboxes.pop(rank)
        self._send(rank, encode_frame(self._load(), messages, self._prefix), _are_tasks(messages))

    def flush(self) -> None:
        """Send everything; where a send fails, the frames for other ranks stay for the next time."""
        load, outboxes, send, prefix = self._load(), self.outboxes, self._send, self._prefix
        while outboxes:
            rank, messages = outboxes.popitem()
            only_tasks = type(messages[0]) is TaskPushed and (len(messages) == 1 or _are_tasks(messages))
            send(rank, encode_frame(load, messages, prefix), only_tasks)

    def hear_first(self, frames: list[tuple[int, bytes]]) -> None:
        """Take frames that came before this session was opened here, before all others."""

        def poll() -> list[tuple[int, bytes]]:
            self._poll = self._transport.poll
            return frames

        self._poll = poll

    def receive(self, events: list[Event]) -> None:
        """Look for frames, and append what they say."""
        try:
            frames = self._poll()
            self.n_arrived = len(frames)
            for source, frame in frames:
                try:
                    load, messages = decode_frame(frame, self._prefix)
                except OtherSessionError:
                    self._context.count_stale("frame of another session")
                except CodecError as error:
                    events.append(FrameRefused(source, str(error)))
                else:
                    events.append(FrameReceived(source, load, messages))
        except FrameRefusedError as error:  # Not even its bytes could be received.
            events.append(FrameRefused(error.rank, error.reason))


def _are_tasks(messages: list[Message]) -> bool:
    return {*map(type, messages)} == {TaskPushed}
