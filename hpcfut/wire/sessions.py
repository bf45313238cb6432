"""How rank 0 opens a session on the other ranks, before their cores exist, and what is said after they have ended.

These records travel as frames of the transport, like messages, and cannot be mistaken for them: their magic differs.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hpcfut.model.config import Config
from hpcfut.model.errors import CodecError
from hpcfut.model.roster import RankRecord

_MAGIC: Final = b"hs"


class SessionOpened(msgspec.Struct, tag="opened"):
    """A session begins; ``number`` counts them from 1, and is the incarnation of every rank in it."""

    number: int
    config: Config
    #: ``sys.path`` and ``sys.argv`` of the driver, for importing what it imports.
    path: list[str]
    argv: list[str]
    #: All ranks, if some have come for others that have died; and how those of them died that are dead.
    roster: list[RankRecord] = []
    deaths: dict[int, str] = {}


class JobClosed(msgspec.Struct, tag="closed"):
    """No session will follow; leave."""

    status: int


class EndHindered(msgspec.Struct, tag="hindered"):
    """A rank cannot leave the session that has ended, for the reason that this sentence gives."""

    sentence: str


class Cards(msgspec.Struct, array_like=True):
    """How a rank of the same host finds the memory and the bell of another one."""

    arena: bytes
    bell: bytes


class Invitation(msgspec.Struct):
    """Rank 0 to a process that has been spawned for a dead rank: who it is, and the session that it joins."""

    record: RankRecord
    opening: SessionOpened
    cards: Cards
    #: Variables that all ranks have.
    environ: dict[str, str]


class Arrival(msgspec.Struct):
    """What it answers."""

    pid: int
    host_key: str
    cards: Cards


SessionRecord = SessionOpened | JobClosed | EndHindered

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(SessionRecord).decode


def encode_session(record: SessionRecord) -> bytes:
    """Make a frame of the record."""
    return _MAGIC + _encode(record)


def is_session(frame: bytes | bytearray | memoryview) -> bool:
    """Whether this frame is such a record."""
    return bytes(frame[:2]) == _MAGIC


def decode_session(source: int, frame: bytes | bytearray | memoryview) -> SessionRecord:
    """Read the record that the rank ``source`` sent.

    Raises:
        CodecError: The frame is damaged.
    """
    try:
        record: SessionRecord = _decode(bytes(frame[2:]))
    except Exception as error:
        raise CodecError(
            f"Rank {source} sent a frame about a session that is damaged ({type(error).__name__}: {error}). Unless a "
            "memory or a network is faulty, this is a bug in hpcfut; please report it."
        ) from error
    return record
