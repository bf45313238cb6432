"""Recruiting: what a rank does so that a replacement for a dead rank joins; when, and with whom, the core says.

A process is spawned, and two processes meet, by calls that take a while, or never return if the other one has died. So
each is made on a thread of its own, which is given up then; it stays inside MPI until the process ends. What it has
made is offered to the transport, and told.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from hpcfut.core.effects import Announce, DeclareDead, Effect, LinkRank, OpenPort, SpawnRank, UseLink
from hpcfut.core.events import LinkMade, PortReady, RankArrived, SpawnFailed
from hpcfut.model.roster import RankRecord
from hpcfut.ports import Arena, Doorbell, Links, Pair, Ways
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.spawning import Spawning
from hpcfut.wire.codec import encode_frame, prefix_of
from hpcfut.wire.messages import JobEnded
from hpcfut.wire.sessions import Arrival, Cards, Invitation, SessionOpened

#: Spawning a process takes about a second; so long the end of a session waits for one that is under way.
LAST_WITHIN_S: Final = 10.0

_encode: Final = msgspec.msgpack.Encoder().encode


class Recruiting:
    """Of one rank, for all its sessions."""

    def __init__(
        self,
        ways: Ways,
        links: Links,
        doorbell: Doorbell,
        arena: Arena,
        roster: list[RankRecord],
        event_queues: Callable[[], Sequence[int]],
    ) -> None:
        """Be ready.

        Args:
            ways: How processes meet.
            links: The transport of this rank.
            doorbell: Rings ranks that sleep.
            arena: The memory of this rank, until the first session begins.
            roster: All ranks of the job; it grows.
            event_queues: Those on which a sleeping rank hears what comes through a network.
        """
        self._ways = ways
        self._links = links
        self._doorbell = doorbell
        self._arena = arena
        self._roster = roster
        self._event_queues = event_queues
        self._folder = os.getcwd()
        self._engine: Engine
        self._opening: SessionOpened
        self._spawning: Spawning[Pair, Arrival | None] | None = None
        self._is_over = False
        self._perform: dict[type, Callable[[Any], None]] = {
            SpawnRank: self._start_spawning,
            OpenPort: lambda effect: self._start(self._accept, effect.rank),
            LinkRank: lambda effect: self._start(self._connect, effect.record.rank, effect.port),
            UseLink: self._use,
            DeclareDead: lambda effect: self._links.declare_dead(effect.rank, effect.reason),
            Announce: lambda effect: print(f"hpcfut: {effect.sentence}", file=sys.stderr, flush=True),
        }

    def begin(self, engine: Engine, arena: Arena, opening: SessionOpened) -> None:
        """A session begins; replacements are told of it as others were."""
        self._engine, self._arena, self._opening = engine, arena, opening
        self._is_over, self._spawning = False, None
        engine.on_arrival = self.perform

    def cards(self) -> Cards:
        """How ranks of the same host find the memory and the bell of this one."""
        return Cards(self._arena.card(), self._doorbell.card())

    def find(self, rank: int, cards: Cards) -> bool:
        """Find those of a rank that has come, or was there before this one; gives whether its memory can be viewed."""
        self._doorbell.admit(rank, cards.bell)
        # Its frames come through TCP, later than it rings: as those of other hosts they must be heard.
        self._doorbell.reaches_all = False
        self._doorbell.hear(self._event_queues())
        return self._arena.admit(rank, cards.arena)

    def _invite(self, record: RankRecord) -> Invitation:
        """What a replacement must know; its record is that of the start, as are all in this roster."""
        place = self._roster[record.replaces]
        own = msgspec.structs.replace(place, rank=record.rank, replaces=record.replaces, pid=0, is_spare=False)
        self._roster[record.rank :] = [own]
        environ = {name: value for name, value in os.environ.items() if name.startswith("HPCFUT_")}
        opening = msgspec.structs.replace(self._opening, roster=list(self._roster))
        return Invitation(own, opening, self.cards(), environ)

    def perform(self, effect: Effect) -> None:
        """Do what the core wants."""
        self._perform[type(effect)](effect)

    def _start(self, act: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=act, args=arguments, name="hpcfut-recruiting", daemon=True).start()

    def _start_spawning(self, effect: SpawnRank) -> None:
        engine, record, invitation = self._engine, effect.record, self._invite(effect.record)
        self._spawning = Spawning(
            lambda path, has_ended: self._ways.spawn(("-m", "hpcfut", "--replacement", path), self._folder, has_ended),
            lambda pair: self._greet(pair, invitation),
            lambda pair, arrival: self._take(engine, record, pair, arrival),
            lambda pair: pair.send(b""),
            lambda reason: engine.post(SpawnFailed(record.rank, reason)),
        )

    def _greet(self, pair: Pair, invitation: Invitation) -> Arrival | None:
        if self._is_over:
            pair.send(b"")
            return None
        pair.send(_encode(invitation))
        return msgspec.msgpack.decode(pair.receive(), type=Arrival)

    def _take(self, engine: Engine, record: RankRecord, pair: Pair, arrival: Arrival | None) -> None:
        if arrival is None:
            return
        is_neighbour = self.find(record.rank, arrival.cards)
        self._links.offer(record.rank, pair.link(record.rank, self._doorbell))
        record = msgspec.structs.replace(record, pid=arrival.pid, host_key=arrival.host_key)
        engine.post(RankArrived(record, is_neighbour))

    def _accept(self, rank: int) -> None:
        engine = self._engine
        port = self._ways.open_port()
        engine.post(PortReady(rank, port))
        self._make_link(engine, rank, lambda: self._ways.accept(port))

    def _connect(self, rank: int, port: str) -> None:
        self._make_link(self._engine, rank, lambda: self._ways.connect(port))

    def _make_link(self, engine: Engine, rank: int, meet: Callable[[], Pair]) -> None:
        try:
            pair = meet()
            pair.send(_encode(self.cards()))
            is_neighbour = self.find(rank, msgspec.msgpack.decode(pair.receive(), type=Cards))
            self._links.offer(rank, pair.link(rank, self._doorbell))
        except Exception:  # The other one has died, of which rank 0 will tell.
            return
        engine.post(LinkMade(rank, is_neighbour))

    def _use(self, effect: UseLink) -> None:
        self._links.use(effect.rank)
        self._engine.frames.look_up()

    def declare_dead(self, deaths: Mapping[int, str]) -> None:
        """Between sessions: these ranks are dead, be they linked with this one or not."""
        for rank, reason in deaths.items():
            self._links.declare_dead(rank, reason)

    def close(self) -> None:
        """Rank 0: the session has ended, and who has not joined it by now goes away again."""
        self._is_over = True
        if self._spawning is not None:
            self._spawning.wait(LAST_WITHIN_S)
        self._links.dismiss(encode_frame(0, [JobEnded(0, "", is_final=True)], prefix_of(self._opening.number)))
        members = self._engine.core.membership
        self.declare_dead(dict.fromkeys(members.joining, "The session had ended before it could join it."))
        for record in members.roster:
            self._roster[record.rank] = msgspec.structs.replace(self._roster[record.rank], pid=record.pid)
        del self._roster[members.n_ranks :]
