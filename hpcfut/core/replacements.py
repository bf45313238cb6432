"""Replacements: rank 0 has ranks started for those that have died, one after another; ``arrivals.py`` has the rest.

One is wanted while fewer ranks may be given tasks than at the start, so not while a spare stands in. A program whose
tasks kill the ranks that run them would have replacements started for ever; therefore only so many are within a minute,
and none any more when several in a row have died before they could be used. Then the job goes on with fewer ranks.

Tasks that only a dead rank could run wait for its replacement (``Membership.is_awaited``), until rank 0 says that none
comes any more, or that one is late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from hpcfut.core.arrivals import Arrivals
from hpcfut.core.context import Context, Handler
from hpcfut.core.effects import Announce, SpawnRank
from hpcfut.core.events import LinkMade, PortReady, RankArrived, SpawnFailed
from hpcfut.core.membership import Membership
from hpcfut.model.roster import N_REPLACEMENTS_MAX, RankRecord
from hpcfut.wire.joining import (
    AllLinked,
    DeathTold,
    LinkWanted,
    PortOpened,
    RankActivated,
    RankIntroduced,
    RankLinked,
    ReplacementsOver,
)

#: So many replacements in a row may die before they are activated.
N_IN_VAIN_MAX: Final = 3
#: After this time a replacement is late.
WITHIN_S: Final = 60.0
_MINUTE_S: Final = 60.0

IDLE: Final = "idle"
SPAWNING: Final = "spawning"
LINKING: Final = "linking"
ACTIVATING: Final = "activating"
OVER: Final = "over"

TRANSITIONS: Final = {
    (IDLE, "spawn"): SPAWNING,
    (SPAWNING, "fail"): IDLE,
    (SPAWNING, "arrive"): LINKING,
    (LINKING, "link all"): ACTIVATING,
    (LINKING, "die"): IDLE,
    (ACTIVATING, "activate"): IDLE,
    (ACTIVATING, "die"): IDLE,
    (IDLE, "give up"): OVER,
}


class Replacements:
    """Rank 0: wants them, introduces them, and gives up."""

    def __init__(self, context: Context, membership: Membership, arrivals: Arrivals) -> None:
        self._context = context
        self._next = context.make_table("replacements", TRANSITIONS)
        self._membership = membership
        self._arrivals = arrivals
        self.state = IDLE
        #: The one that is on its way, if the state is not idle.
        self.record: RankRecord | None = None
        #: Who has not been introduced to it; with whom it is being linked; who of the two has not said that it is.
        self._waiting: deque[int] = deque()
        self._linking = -1
        self._missing: dict[int, None] = {}
        self._n_in_vain = 0
        #: When the one that is on its way will be late.
        self.late_at: float | None = None
        #: When the last of them were wanted.
        self._wanted_at: deque[float] = deque()

    def events(self) -> dict[type, Handler]:
        """What is done about each event of an arrival."""
        return {
            RankArrived: self.on_arrived,
            SpawnFailed: self.on_failed,
            PortReady: self._arrivals.on_port_ready,
            LinkMade: self._arrivals.on_link_made,
        }

    def messages(self) -> dict[type, Callable[[int, Any], None]]:
        """What is done about each message of one."""
        return {
            LinkWanted: self._arrivals.on_link_wanted,
            PortOpened: self.on_port_opened,
            RankIntroduced: self._arrivals.on_introduced,
            RankLinked: self.on_linked,
            AllLinked: lambda _, message: self._arrivals.on_all_linked(),
            RankActivated: self.on_activated,
            ReplacementsOver: lambda _, message: self._arrivals.on_over(message),
        }

    def on_death(self, dead: int, reason: str) -> None:
        """A rank has died, and the job goes on."""
        if self.state in (LINKING, ACTIVATING):
            assert self.record is not None
            if dead == self.record.rank:
                for rank in self._membership.alive:
                    if rank:
                        self._context.send(rank, DeathTold(self.record, reason))
                self._end("die")
                self._n_in_vain += 1
            else:
                self._tell_death(dead, reason)
                if dead == self._linking:
                    self._link_next()
        self._want()

    def _tell_death(self, dead: int, reason: str) -> None:
        assert self.record is not None
        self._context.send(self.record.rank, DeathTold(self._membership.roster[dead], reason))

    def _want(self) -> None:
        config, membership, now = self._context.config, self._membership, self._context.now
        is_mine = self._context.rank == 0 and config.n_respawns_minute_max
        if not is_mine or self.state != IDLE or not membership.n_missing:
            return
        while self._wanted_at and self._wanted_at[0] < now - _MINUTE_S:
            self._wanted_at.popleft()
        if self._n_in_vain > N_IN_VAIN_MAX:
            self._give_up(f"The last {self._n_in_vain} replacements for ranks that died could not be used")
        elif (n_replaced := sum(record.replaces >= 0 for record in membership.roster)) >= N_REPLACEMENTS_MAX:
            self._give_up(f"{n_replaced} ranks that died have been replaced, which is the most")
        elif len(self._wanted_at) >= config.n_respawns_minute_max:
            self._give_up(f"{len(self._wanted_at)} ranks that died were replaced within a minute")
        else:
            self.state = self._next[self.state, "spawn"]
            self._wanted_at.append(now)
            self.late_at = now + WITHIN_S
            self._context.wake_at(self.late_at)
            place = membership.roster[membership.vacancy()]
            rank = self._context.n_ranks
            self.record = msgspec.structs.replace(place, rank=rank, replaces=place.place, pid=0, is_spare=False)
            self._context.effects.append(SpawnRank(self.record))

    def _give_up(self, why: str) -> None:
        self.state = self._next[self.state, "give up"]
        sentence = f"{why}, so no more are started."
        n_ranks = len(self._membership.active)
        self._context.effects.append(Announce(f"{sentence} The job goes on with {n_ranks} ranks."))
        self._let_nobody_wait(sentence)

    def tick(self) -> None:
        """The one that is on its way is late; it may still come, but nobody knows when."""
        self.late_at = None
        sentence = f"A replacement for a rank that died has not come within {WITHIN_S:g} s."
        self._context.effects.append(Announce(f"{sentence} Nothing waits for it any more."))
        self._let_nobody_wait(sentence)

    def _let_nobody_wait(self, why: str) -> None:
        for rank in self._membership.alive:
            self._context.send(rank, ReplacementsOver(why))

    def _end(self, how: str) -> None:
        self.state = self._next[self.state, how]
        self.record, self._linking, self.late_at = None, -1, None
        self._waiting.clear()
        self._missing.clear()

    def on_failed(self, event: SpawnFailed) -> None:
        """The edge could not start one."""
        self._end("fail")
        self._n_in_vain += 1
        self._context.effects.append(Announce(f"A rank that died could not be replaced. {event.reason}"))
        self._want()

    def on_arrived(self, event: RankArrived) -> None:
        """It is there, and linked with rank 0."""
        self.state = self._next[self.state, "arrive"]
        self.record = event.record
        self._arrivals.admit(event.record)
        self._arrivals.link(event.record.rank, is_neighbour=event.is_neighbour)
        for dead, reason in self._membership.deaths.items():
            self._tell_death(dead, reason)
        self._waiting.extend(rank for rank in self._membership.alive if rank not in (0, event.record.rank))
        self._link_next()

    def _link_next(self) -> None:
        assert self.record is not None
        while self._waiting:
            rank = self._waiting.popleft()
            if rank not in self._context.apart:
                self._linking = rank
                self._missing = {rank: None, self.record.rank: None}
                self._context.send(self.record.rank, LinkWanted(rank))
                return
        self._linking = -1
        self.state = self._next[self.state, "link all"]
        self._context.send(self.record.rank, AllLinked())

    def on_port_opened(self, source: int, message: PortOpened) -> None:
        """The replacement waits for a rank."""
        if self.record is None or source != self.record.rank or message.rank != self._linking:
            self._context.count_stale("port for a rank that is dead")
        else:
            self._context.send(message.rank, RankIntroduced(self.record, message.port))

    def on_linked(self, source: int, message: RankLinked) -> None:
        """One of the two says that they are linked."""
        pair = () if self.record is None else (self.record.rank, self._linking)
        if (source, message.rank) not in (pair, pair[::-1]):
            self._context.count_stale("link of a rank that is dead")
            return
        self._missing.pop(source, None)
        if not self._missing:
            self._link_next()

    def on_activated(self, source: int, _: RankActivated) -> None:
        """A replacement takes tasks; on any rank."""
        self._arrivals.activate(source)
        if self.record is not None and source == self.record.rank:
            self._end("activate")
            self._n_in_vain = 0
            self._want()
