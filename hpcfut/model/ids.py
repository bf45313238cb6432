"""Identifiers: one 64-bit integer that names its creator.

    63        44 43        38 37                                    0
    +-----------+------------+--------------------------------------+
    | rank (20) | incarn. (6)| sequence (38)                        |
    +-----------+------------+--------------------------------------+

The rank is the owner, so nobody has to be asked who owns an object. 20 bits hold a million ranks; 38 bits of
sequence last 15 days at 100,000 ids a second, because the upper half of them belongs to what is made again: what a
lost object is made anew under has an id of its own. A task's id is the id of its first return value (a task without
return values, and a generator, takes an id all the same). Id 0 is never given out and means "none".
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

SEQUENCE_BITS: Final = 38
INCARNATION_BITS: Final = 6
RANK_BITS: Final = 20

RANK_SHIFT: Final = SEQUENCE_BITS + INCARNATION_BITS
N_RANKS_MAX: Final = 1 << RANK_BITS
N_INCARNATIONS_MAX: Final = 1 << INCARNATION_BITS
NO_ID: Final = 0

#: What a message may say; decoding refuses everything else.
Rank = Annotated[int, msgspec.Meta(ge=0, lt=N_RANKS_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0)]

_AGAIN: Final = 1 << (SEQUENCE_BITS - 1)
_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1
_INCARNATION_MASK: Final = (1 << INCARNATION_BITS) - 1


def first_id(rank: int, incarnation: int) -> int:
    """The first id that this rank may give out; the next ones count up from it."""
    return (rank << RANK_SHIFT) | (incarnation << SEQUENCE_BITS) | 1


def owner_of(some_id: int) -> int:
    """The rank that made this id and owns what it names."""
    return some_id >> RANK_SHIFT


def incarnation_of(some_id: int) -> int:
    """The incarnation of the owner at the time when it made this id."""
    return (some_id >> SEQUENCE_BITS) & _INCARNATION_MASK


def sequence_of(some_id: int) -> int:
    """The position of this id in its creator's count."""
    return some_id & _SEQUENCE_MASK


def id_again(some_id: int, n: int) -> int:
    """The n-th id for what is made again, of the owner of an id."""
    return some_id & ~_SEQUENCE_MASK | _AGAIN | n


def is_again(some_id: int) -> bool:
    """Whether this id stands for what is made again."""
    return bool(some_id & _AGAIN)


def name_of(some_id: int) -> str:
    """A short text for people: ``2.17`` is the 17th id of rank 2, ``2'1.17`` that of its second incarnation.

    ``2.again5`` is the fifth of what rank 2 has had made again.
    """
    incarnation = incarnation_of(some_id)
    rank = str(owner_of(some_id)) if not incarnation else f"{owner_of(some_id)}'{incarnation}"
    sequence = sequence_of(some_id)
    return f"{rank}.{sequence}" if sequence < _AGAIN else f"{rank}.again{sequence - _AGAIN}"
