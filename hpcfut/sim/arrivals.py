"""Arrivals of virtual ranks: processes that are started, ports that are opened, and links that are made.

Rank 0 has a process started, which may fail, and is linked with it by that. Two ranks meet at a port; each of them
hears of that in its own time, and what one says to the other before is kept for when that uses the link. Who dies meets
nobody any more; but a rank may have met it, and hear of that only then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from hpcfut.core import effects as f
from hpcfut.core import events as e
from hpcfut.model.roster import RankRecord
from hpcfut.sim.fabric import Frame
from hpcfut.sim.trace import RankStarted, SimulationError
from hpcfut.wire.joining import AllLinked, RankActivated, ReplacementsOver
from hpcfut.wire.messages import JobEnded

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld

#: How long two ranks take to meet, or one to open a port, at most.
MEET_S = 0.002


class Link(msgspec.Struct, gc=False):
    """A way to another rank, that has been made and is not used yet."""

    is_neighbour: bool


class Arrivals:
    """Those of one world."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        #: How many processes could not be started, and how often rank 0 has said that nobody is to wait for one.
        self.n_failed = 0
        self.n_given_up = 0

    def effects(self, rank: SimRank) -> dict[type, Callable[[Any], None]]:
        """How a rank does what is wanted while another one joins."""
        return {
            f.SpawnRank: self._spawn,
            f.OpenPort: lambda effect: self._soon(self._open_port, (rank, effect.rank)),
            f.LinkRank: lambda effect: self._link(rank, effect),
            f.UseLink: lambda effect: self._use(rank, effect.rank),
            f.DeclareDead: lambda effect: self._declare_dead(rank, effect.rank),
            f.Announce: lambda effect: self._announce(rank, effect),
        }

    def _soon(self, action: Callable[[Any], None], what: tuple[SimRank, int]) -> None:
        self._world.schedule(self._world.now + self._world.rng.random() * MEET_S, action, what)

    # -- a process is started ----------------------------------------------------------------------------------------

    def _spawn(self, effect: f.SpawnRank) -> None:
        world = self._world
        at = world.now + world.rng.random() * world.scenario.spawn_s
        world.schedule(at, self.end_spawn, (effect.record,))

    def end_spawn(self, what: tuple[RankRecord]) -> None:
        """A process has been started, or cannot be."""
        (record,) = what
        world = self._world
        first = world.ranks[0]
        if first.ended is not None:
            return
        if world.rng.random() < world.scenario.p_spawn_fails:
            self.n_failed += 1
            first.post(e.SpawnFailed(record.rank, "There is no room for another process."))
            return
        host = world.rng.choice((record.host_key, record.host_key, first.host))
        record = msgspec.structs.replace(record, pid=1000 + record.rank, host=host, host_key=host)
        rank = world.add_rank(record)
        world.trace.entries.append((world.now, record.rank, [RankStarted(record.replaces)], []))
        rank.reaches[0] = None
        is_neighbour = self._are_near(first, rank)
        first.offered[record.rank] = Link(is_neighbour)
        first.post(e.RankArrived(record, is_neighbour))
        world.deaths.note_boundary(rank)

    @staticmethod
    def _are_near(one: SimRank, other: SimRank) -> bool:
        return one.host == other.host

    # -- two of them meet --------------------------------------------------------------------------------------------

    def _open_port(self, what: tuple[SimRank, int]) -> None:
        rank, other = what
        if not rank.is_dead:
            rank.post(e.PortReady(other, f"{rank.rank} for {other}"))
            self._world.deaths.note_boundary(rank)

    def _link(self, rank: SimRank, effect: f.LinkRank) -> None:
        other = self._world.ranks[effect.record.rank]
        if effect.port != f"{other.rank} for {rank.rank}":
            raise SimulationError(f"Rank {rank.rank} looks for rank {other.rank} at port {effect.port!r}.")
        if not other.is_dead:
            self._soon(self._meet, (rank, other.rank))
            self._soon(self._meet, (other, rank.rank))

    def _meet(self, what: tuple[SimRank, int]) -> None:
        """One of two ranks that meet has done so; the other one may have died before, or right afterwards."""
        rank, number = what
        other = self._world.ranks[number]
        if rank.is_dead or (other.is_dead and self._world.rng.random() < 0.5):
            return
        is_neighbour = self._are_near(rank, other)
        rank.offered[number] = Link(is_neighbour)
        rank.post(e.LinkMade(number, is_neighbour))
        self._world.deaths.note_boundary(rank)

    def _use(self, rank: SimRank, number: int) -> None:
        """From now on a rank hears another one, and of its death."""
        world = self._world
        link = rank.offered.pop(number, None)
        if link is None:
            raise SimulationError(f"Rank {rank.rank} uses a link with rank {number} that has not been made.")
        rank.reaches[number] = None
        if link.is_neighbour:
            rank.neighbours[number] = None
        for frame in rank.unheard.pop(number, ()):
            world.deliver(frame)
        if number in world.deaths.dead:
            world.deaths.tell(rank, number)

    # -- and one of them is not there --------------------------------------------------------------------------------

    def _declare_dead(self, rank: SimRank, number: int) -> None:
        world = self._world
        if number not in world.deaths.dead or number in rank.reaches:
            raise SimulationError(f"Rank {rank.rank} is told of the death of rank {number}, which it would hear of.")
        rank.unheard.pop(number, None)
        world.deaths.notice((rank, number))

    def dismiss(self, first: SimRank) -> None:
        """The session has ended for rank 0: who has just arrived there goes away again."""
        for number in first.offered:
            self._world.deliver(Frame(0, number, 0, [JobEnded(0, "", is_final=True)]))
        first.offered.clear()

    def _announce(self, rank: SimRank, effect: f.Announce) -> None:
        """Rank 0 says something to the user."""
        if "no more are started" in effect.sentence or "Nothing waits for it any more" in effect.sentence:
            self.n_given_up += 1
            self._note_over(rank)

    # -- what is known -----------------------------------------------------------------------------------------------

    def note_heard(self, receiver: SimRank, frame: Frame) -> None:
        """A rank is about to hear this, perhaps that a replacement takes tasks."""
        for message in frame.messages:
            if isinstance(message, RankActivated):
                receiver.news.append((frame.source, True))
            elif isinstance(message, AllLinked):
                receiver.news.append((receiver.rank, True))
            elif isinstance(message, ReplacementsOver):
                self._note_over(receiver)

    def _note_over(self, rank: SimRank) -> None:
        rank.awaits_nobody = True
        self._world.note_hopeless(rank)
