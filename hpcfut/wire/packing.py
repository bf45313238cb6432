"""Payloads: the parts of a pickled value in one piece of memory, and back.

A payload is the bare pickle stream where the value holds neither large buffers nor refs, and else

    magic | n_buffers | nbytes of the stream | nbytes of each buffer … | stream | buffer | buffer …

with every buffer at a multiple of 64 bytes from the start, so that arrays are views over it, wherever it lies. For one
array of numbers alone there is no pickle: the stream is its type, its order and its shape.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

#: Copies from this size on let other threads run meanwhile, so that a busy rank still answers.
_NBYTES_COPY_HELD_MAX: Final = 1 << 20

MAGIC: Final = b"hfut"
_HEADER: Final = struct.Struct("<4sIQ")
_ALIGNMENT: Final = 64
_PADDING: Final = bytes(_ALIGNMENT)


class Pickled(msgspec.Struct, frozen=True):
    """A pickled value, not yet in one piece. The buffers are the value's own memory: pack before it can change."""

    stream: bytes
    #: Flat views, in the order of the stream.
    buffers: tuple[memoryview, ...]
    #: Ids of the refs inside, each once, in order of appearance.
    contained: tuple[int, ...]
    #: Size of the payload.
    nbytes: int


def pickled_of(stream: bytes, views: Sequence[memoryview], contained: tuple[int, ...]) -> Pickled:
    """Put the parts together and find the size of the payload."""
    if not views and not contained:
        return Pickled(stream, (), (), len(stream))
    nbytes = _HEADER.size + 8 * len(views) + len(stream)
    for view in views:
        nbytes = aligned(nbytes) + view.nbytes
    return Pickled(stream, tuple(views), contained, nbytes)


def pack_inline(pickled: Pickled) -> bytes:
    """The payload as one bytes object; without a copy where it is nothing but the stream."""
    if not pickled.buffers and not pickled.contained:
        return pickled.stream
    return b"".join(parts_of(pickled))


def parts_of(pickled: Pickled) -> list[bytes | memoryview]:
    """The payload, part after part, without a copy."""
    if not pickled.buffers and not pickled.contained:
        return [pickled.stream]
    parts: list[bytes | memoryview] = [_head(pickled), pickled.stream]
    offset = len(parts[0]) + len(parts[1])
    for buffer in pickled.buffers:
        parts.append(_PADDING[: -offset % _ALIGNMENT])
        parts.append(buffer)
        offset = aligned(offset) + buffer.nbytes
    return parts


def pack_into(pickled: Pickled, target: memoryview) -> None:
    """Write the payload into memory of ``pickled.nbytes`` bytes, whose start is aligned to 64 bytes."""
    offset = 0
    if pickled.buffers or pickled.contained:
        head = _head(pickled)
        offset = len(head)
        target[:offset] = head
    _copy(pickled.stream, target[offset : offset + len(pickled.stream)])
    offset += len(pickled.stream)
    for buffer in pickled.buffers:
        offset = aligned(offset)
        _copy(buffer, target[offset : offset + buffer.nbytes])
        offset += buffer.nbytes


def head_of_one(stream: bytes, nbytes: int) -> bytes:
    """The payload of a value with one buffer of this size, up to where the buffer begins."""
    head = struct.pack("<4sIQQ", MAGIC, 1, len(stream), nbytes) + stream
    return head + _PADDING[: -len(head) % _ALIGNMENT]


def unpack(payload: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The stream and the buffers of a payload that is not a bare stream, without a copy.

    Raises:
        ValueError: It is no payload.
    """
    magic, n_buffers, nbytes_stream = _HEADER.unpack_from(payload)
    if magic != MAGIC:
        raise ValueError(f"a payload of {len(payload)} bytes begins with {magic!r}, so that it is none of hpcfut's")
    sizes = struct.unpack_from(f"<{n_buffers}Q", payload, _HEADER.size)
    start = _HEADER.size + 8 * n_buffers
    offset = start + nbytes_stream
    stream = payload[start:offset]
    buffers = []
    for nbytes in sizes:
        offset = aligned(offset)
        buffers.append(payload[offset : offset + nbytes])
        offset += nbytes
    if offset > len(payload):
        raise ValueError(f"a payload of {offset} bytes has only {len(payload)} bytes")
    return stream, buffers


def _head(pickled: Pickled) -> bytes:
    sizes = [buffer.nbytes for buffer in pickled.buffers]
    return struct.pack(f"<4sIQ{len(sizes)}Q", MAGIC, len(sizes), len(pickled.stream), *sizes)


def aligned(offset: int) -> int:
    """Where the next buffer begins."""
    return (offset + _ALIGNMENT - 1) & -_ALIGNMENT


def _copy(source: bytes | memoryview, target: memoryview) -> None:
    if len(source) <= _NBYTES_COPY_HELD_MAX:
        target[:] = source
    else:
        import numpy  # NumPy lets go of the GIL, and is not loaded here for the sake of small values

        numpy.frombuffer(target, numpy.uint8)[:] = numpy.frombuffer(source, numpy.uint8)
