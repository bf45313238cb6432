"""What ranks say to each other while a replacement joins them; ``core/arrivals.py`` has the order."""

from __future__ import annotations

import msgspec

from hpcfut.model.ids import Rank
from hpcfut.model.roster import RankRecord


class LinkWanted(msgspec.Struct, array_like=True, tag=64, gc=False):
    """Rank 0 to a replacement: get ready to be linked with this rank."""

    rank: Rank


class PortOpened(msgspec.Struct, array_like=True, tag=65, gc=False):
    """A replacement to rank 0: this rank can reach it at the port."""

    rank: Rank
    port: str


class RankIntroduced(msgspec.Struct, array_like=True, tag=66, gc=False):
    """Rank 0 to another: a replacement waits at the port to be linked with the receiver."""

    record: RankRecord
    port: str


class RankLinked(msgspec.Struct, array_like=True, tag=67, gc=False):
    """To rank 0, by either of the two: the sender is linked with this rank."""

    rank: Rank


class DeathTold(msgspec.Struct, array_like=True, tag=68, gc=False):
    """Rank 0 says that a rank is dead with which the receiver may never have been linked."""

    record: RankRecord
    reason: str


class AllLinked(msgspec.Struct, array_like=True, tag=69, gc=False):
    """Rank 0 to a replacement: every living rank is linked with it."""


class RankActivated(msgspec.Struct, array_like=True, tag=70, gc=False):
    """A replacement to all: it takes tasks from now on."""


class ReplacementsOver(msgspec.Struct, array_like=True, tag=71, gc=False):
    """Rank 0 to all: no task is to wait for a replacement any more."""

    why: str


Joining = (
    LinkWanted | PortOpened | RankIntroduced | RankLinked | DeathTold | AllLinked | RankActivated | ReplacementsOver
)
