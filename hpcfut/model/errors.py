"""Errors that layers below the API raise; all messages are full sentences."""

from __future__ import annotations


class HpcfutError(Exception):
    """Base of everything that hpcfut raises."""


class CodecError(HpcfutError):
    """A frame could not be decoded: it is corrupt, truncated or of another version."""


class RankLostError(HpcfutError):
    """An edge has proof that a rank is dead."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(f"Rank {rank} is dead: {reason}")
        self.rank = rank
        self.reason = reason


class IllegalTransitionError(HpcfutError):
    """The core was told something that cannot follow from what it was told before; a bug in hpcfut."""


class InvariantError(HpcfutError):
    """A table of the core contradicts itself; a bug in hpcfut."""
