"""Messages <-> frames: a fixed header, then one msgpack array of the messages.

    0     2   3   4      8        12         16
    +-----+---+---+------+--------+----------+----------------
    | hf  | v | s | load | nbytes | checksum | messages …
    +-----+---+---+------+--------+----------+----------------

``v`` is the wire version and ``s`` the session, modulo 256: a frame of the last session may still be under way when the
next one begins, and one of the next may come before its beginning has been heard.

Any bytes either decode or raise ``CodecError``. The length finds truncation, the checksum finds damage. A checksum of
everything would cost as much as a copy (22 µs for 100 kB) and MPI has checks of its own, so it covers the load and the
first 4 KiB: all of a usual frame (0.1 µs), and the part of a large one in which a wrong layout would show.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

import msgspec

from hpcfut.model.errors import CodecError
from hpcfut.wire.messages import Message

#: Ranks compare it at start. It goes up with every change of a message or of the header.
WIRE_VERSION: Final = 4

#: The largest load that a frame can gossip; a rank with more says this.
LOAD_MAX: Final = 2**32 - 1

_MAGIC: Final = b"hf"
#: Magic, version and session are compared as one: ``prefix_of``.
_HEADER: Final = struct.Struct("<4sIII")
_NBYTES_HEADER: Final = _HEADER.size
_NBYTES_CHECKED: Final = 4096

# Methods of one encoder and one decoder, looked up once: this is the task path.
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Message]).decode
_pack: Final = _HEADER.pack
_unpack: Final = _HEADER.unpack_from


class OtherSessionError(CodecError):
    """A frame is late, or early."""


def prefix_of(session: int) -> bytes:
    """How every frame of a session begins; sessions count modulo 256."""
    return _MAGIC + bytes((WIRE_VERSION, session & 0xFF))


_FIRST: Final = prefix_of(0)


def encode_frame(load: int, messages: list[Message], prefix: bytes = _FIRST) -> bytes:
    """Make one frame of the messages.

    Args:
        load: What the sender gossips about itself, 0 to ``LOAD_MAX``.
        messages: In the order in which the receiver shall handle them.
        prefix: What ``prefix_of`` says for the session.
    """
    body = _encode(messages)
    nbytes = len(body)
    checksum = crc32(body if nbytes <= _NBYTES_CHECKED else body[:_NBYTES_CHECKED], load)
    return _pack(prefix, load, nbytes, checksum) + body


def decode_frame(data: bytes | bytearray | memoryview, prefix: bytes = _FIRST) -> tuple[int, list[Message]]:
    """Read one frame; what is returned shares no memory with ``data``.

    Returns:
        The load of the sender and its messages.

    Raises:
        OtherSessionError: The frame belongs to another session than the one of ``prefix``.
        CodecError: The bytes are no frame of this version, or damaged.
    """
    try:
        found, load, nbytes, checksum = _unpack(data)
        if found != prefix or nbytes != len(data) - _NBYTES_HEADER:
            if found[:3] == prefix[:3] and found != prefix:
                raise OtherSessionError("A frame of another session arrived.")
            raise CodecError(_complaint(found, nbytes, len(data) - _NBYTES_HEADER))
        body = memoryview(data)[_NBYTES_HEADER:]
        if crc32(body if nbytes <= _NBYTES_CHECKED else body[:_NBYTES_CHECKED], load) != checksum:
            raise CodecError(
                f"A frame of {nbytes} bytes is damaged: its checksum does not match. Another program may be using "
                "the communicator of hpcfut; give it one of its own."
            )
        return load, _decode(body)
    except CodecError:
        raise
    except Exception as error:  # whatever a decoder makes of random bytes: recursion, memory, wrong types
        raise CodecError(
            f"A frame of {len(data)} bytes could not be decoded ({type(error).__name__}: {error}). If the ranks run "
            "different versions of hpcfut, install the same one everywhere; otherwise this is a bug in hpcfut."
        ) from error


def _complaint(prefix: bytes, nbytes: int, nbytes_found: int) -> str:
    magic, version = prefix[:2], prefix[2]
    if magic != _MAGIC:
        return (
            f"What arrived is not a frame of hpcfut: it begins with {magic!r}. Another program may be using the "
            "communicator of hpcfut; give it one of its own."
        )
    if version != WIRE_VERSION:
        return (
            f"A frame of wire version {version} arrived, but this rank speaks version {WIRE_VERSION}. Install the "
            "same version of hpcfut for all ranks."
        )
    return (
        f"A frame of {nbytes} bytes arrived with {nbytes_found} bytes: it was cut or joined with another. This is a "
        "bug in hpcfut or in the MPI library; `hpcfut doctor` tests the latter."
    )
