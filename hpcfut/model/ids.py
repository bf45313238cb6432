"""Identifiers: one 64-bit integer that names its creator.

    63        44 43        38 37                                    0
    +-----------+------------+--------------------------------------+
    | rank (20) | incarn. (6)| sequence (38)                        |
    +-----------+------------+--------------------------------------+

The rank is the owner, so nobody has to be asked who owns an object. 20 bits hold a million ranks; 38 bits of
sequence last 31 days at 100,000 ids a second. The upper half of the sequence space belongs to the core, which
names the items of generators; the lower half belongs to the API. A task's id is the id of its first return value
(a task without return values takes an id all the same). Id 0 is never given out and means "none".
"""

from __future__ import annotations

from typing import Final

SEQUENCE_BITS: Final = 38
INCARNATION_BITS: Final = 6
RANK_BITS: Final = 20

RANK_SHIFT: Final = SEQUENCE_BITS + INCARNATION_BITS
N_RANKS_MAX: Final = 1 << RANK_BITS
N_INCARNATIONS_MAX: Final = 1 << INCARNATION_BITS
CORE_SEQUENCE_START: Final = 1 << (SEQUENCE_BITS - 1)
NO_ID: Final = 0

_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1
_INCARNATION_MASK: Final = (1 << INCARNATION_BITS) - 1


def first_id(rank: int, incarnation: int) -> int:
    """The first id that the API of this rank may give out; the next ones count up from it."""
    return (rank << RANK_SHIFT) | (incarnation << SEQUENCE_BITS) | 1


def first_core_id(rank: int, incarnation: int) -> int:
    """The first id that the core of this rank may give out by itself (items of generators)."""
    return (rank << RANK_SHIFT) | (incarnation << SEQUENCE_BITS) | CORE_SEQUENCE_START


def owner_of(some_id: int) -> int:
    """The rank that made this id and owns what it names."""
    return some_id >> RANK_SHIFT


def incarnation_of(some_id: int) -> int:
    """The incarnation of the owner at the time when it made this id."""
    return (some_id >> SEQUENCE_BITS) & _INCARNATION_MASK


def sequence_of(some_id: int) -> int:
    """The position of this id in its creator's count."""
    return some_id & _SEQUENCE_MASK


def name_of(some_id: int) -> str:
    """A short text for people: ``2.17`` is the 17th id of rank 2, ``2.g3`` the third generator item there."""
    sequence = sequence_of(some_id)
    text = f"g{sequence - CORE_SEQUENCE_START}" if sequence >= CORE_SEQUENCE_START else str(sequence)
    incarnation = incarnation_of(some_id)
    return f"{owner_of(some_id)}.{text}" if incarnation == 0 else f"{owner_of(some_id)}'{incarnation}.{text}"
