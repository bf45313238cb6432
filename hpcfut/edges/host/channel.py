"""What a rank and a child process say to each other: frames, and the bytes of large values behind them.

One thread at a time on each side. Whoever is gone, is gone for both directions: ``EOFError``. The rank does not rely on
the end of the connection for that, since copies of a child, and programs that it has started, may hold it open.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Final

_HEAD: Final = struct.Struct("<Q")
_NBYTES_SKIPPED_AT_ONCE: Final = 1 << 20


class Channel:
    """One end."""

    def __init__(self, connection: socket.socket, process: int = -1) -> None:
        """Take over a connected stream socket, and a descriptor that can be read when the other process has ended."""
        self._connection = connection
        self._process = process
        #: What a poll of ``descriptor`` tells when the other process is gone. Of either kind of poll, as Linux has it.
        self._end = select.POLLIN if process >= 0 else select.POLLRDHUP
        self._reading, self._writing = select.poll(), select.poll()
        self._reading.register(connection, select.POLLIN)
        self._writing.register(connection, select.POLLOUT)
        if process >= 0:
            self._reading.register(process, select.POLLIN)
            self._writing.register(process, select.POLLIN)

    def send(self, frame: bytes, payloads: Sequence[bytes | memoryview] = ()) -> None:
        """Send a frame, and these bytes behind it.

        Raises:
            EOFError: The other process is gone.
        """
        for part in (_HEAD.pack(len(frame)) + frame, *payloads):
            view = memoryview(part)
            rest = view.cast("B") if view.nbytes else b""
            while rest:
                self._is_ready(self._writing, None)
                try:
                    n_sent = self._connection.send(rest, socket.MSG_DONTWAIT)
                except BlockingIOError:  # There is some room, but not enough.
                    continue
                except OSError as error:
                    raise EOFError from error
                rest = rest[n_sent:]

    def receive(self, timeout_s: float | None = None) -> bytearray | None:
        """The next frame; nothing if none begins within this time.

        Raises:
            EOFError: The other process is gone.
        """
        if timeout_s is not None and not self._is_ready(self._reading, timeout_s * 1000):
            return None
        head = bytearray(_HEAD.size)
        self.receive_into(memoryview(head))
        frame = bytearray(_HEAD.unpack(head)[0])
        self.receive_into(memoryview(frame))
        return frame

    def receive_into(self, target: memoryview) -> None:
        """Fill this memory with what stands behind a frame.

        Raises:
            EOFError: The other process is gone.
        """
        while target:
            self._is_ready(self._reading, None)
            try:
                n_received = self._connection.recv_into(target)
            except OSError as error:
                raise EOFError from error
            if not n_received:
                raise EOFError
            target = target[n_received:]

    def skip(self, nbytes: int) -> None:
        """Throw away what stands behind a frame."""
        scrap = memoryview(bytearray(min(nbytes, _NBYTES_SKIPPED_AT_ONCE)))
        while nbytes:
            self.receive_into(scrap[: min(nbytes, len(scrap))])
            nbytes -= min(nbytes, len(scrap))

    @property
    def descriptor(self) -> int:
        """What ``watch`` has a poll name."""
        return self._process if self._process >= 0 else self._connection.fileno()

    def watch(self, poll: select.epoll) -> None:
        """Have this poll tell once when the other process is gone."""
        poll.register(self.descriptor, self._end | select.EPOLLONESHOT)

    def is_at_end(self) -> bool:
        """Whether the other process is gone."""
        poll = select.poll()
        poll.register(self.descriptor, self._end)
        return bool(poll.poll(0))

    def close(self) -> None:
        """The other side finds its end."""
        self._connection.close()
        process, self._process = self._process, -1
        if process >= 0:
            os.close(process)

    def _is_ready(self, poll: select.poll, timeout_ms: float | None) -> bool:
        """Wait until the connection can be used without waiting; gives whether that is so after this time."""
        connection = self._connection.fileno()
        if connection < 0:
            raise EOFError
        ready = [descriptor for descriptor, _ in poll.poll(timeout_ms)]
        if ready == [self._process]:
            # What it has said last may have come between the looks at the one and the other.
            ready = [descriptor for descriptor, _ in poll.poll(0)]
            if connection not in ready:
                raise EOFError
        return bool(ready)
