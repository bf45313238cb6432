"""What a rank and a child process say to each other: frames, and the bytes of large values behind them.

One thread at a time on each side. Whoever is gone, is gone for both directions: ``EOFError``.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence
from typing import Final

_HEAD: Final = struct.Struct("<Q")
_NBYTES_SKIPPED_AT_ONCE: Final = 1 << 20


class Channel:
    """One end."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected stream socket."""
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def send(self, frame: bytes, payloads: Sequence[bytes | memoryview] = ()) -> None:
        """Send a frame, and these bytes behind it.

        Raises:
            EOFError: The other process is gone.
        """
        try:
            self._connection.sendall(_HEAD.pack(len(frame)) + frame)
            for payload in payloads:
                self._connection.sendall(payload)
        except OSError as error:
            raise EOFError from error

    def receive(self, timeout_s: float | None = None) -> bytearray | None:
        """The next frame; nothing if none begins within this time.

        Raises:
            EOFError: The other process is gone.
        """
        if timeout_s is not None and not self._poll.poll(timeout_s * 1000):
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

    def close(self) -> None:
        """The other side finds its end."""
        self._connection.close()
