"""Deaths of virtual ranks, which the job survives, and what each survivor hears of them and when.

A dead rank does nothing more. Of what it had sent, each survivor still hears a beginning, channel by channel; then,
sooner or later, its own edge has proof of the death (``RankLost``), and from then on it hears nothing of the dead. What
is sent to the dead goes nowhere. The memory of the dead stays readable for those of its host that have views of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hpcfut.core import events as e
from hpcfut.sim.fabric import Frame
from hpcfut.sim.trace import NeverHeard, RankDied

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld

#: Instead of a number of tasks: while the session comes to its end.
AT_THE_END = -1


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """Some ranks die at one instant: when so many tasks have been submitted, or so much has been said."""

    ranks: tuple[int, ...]
    #: Within ``delay_s`` after so many tasks have been submitted in the world.
    n_tasks: int = 0
    delay_s: float = 0.05
    #: Or right after the first of them has told and heard so much, in the middle of a turn if need be.
    n_boundaries: int = 0
    #: How late survivors hear of it at most: for each of them, and each rank, one of these.
    notices_s: tuple[float, ...] = (0.001, 0.012, 0.012, 3.0)
    #: Chance that a survivor hears nothing more of what was under way, long before it hears of the death.
    p_cut_off: float = 0.3


class Deaths:
    """Those of one world."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        planned = world.scenario.deaths
        self._by_n_tasks = {death.n_tasks: death for death in planned if death.n_tasks}
        self._by_rank = {death.ranks[0]: death for death in planned if death.n_boundaries}
        #: Ranks that have died, in this order.
        self.dead: dict[int, None] = {}
        #: (dead, survivor) → from when on the survivor hears nothing of what was under way.
        self._cut_off_at: dict[tuple[int, int], float] = {}

    # -- when --------------------------------------------------------------------------------------------------------

    def note_submitted(self, n_tasks: int) -> None:
        """So many tasks have been submitted."""
        self._come(self._by_n_tasks.get(n_tasks))

    def note_end(self) -> None:
        """The session comes to its end."""
        self._come(self._by_n_tasks.get(AT_THE_END))

    def _come(self, death: Death | None) -> None:
        if death is not None:
            self._world.n_faults_to_come += 1
            self._world.schedule(
                self._world.now + self._world.rng.random() * death.delay_s, self._strike_in_time, death
            )

    def note_boundary(self, rank: SimRank) -> None:
        """A rank has told, or heard, one thing more."""
        rank.n_boundaries += 1
        death = self._by_rank.get(rank.rank)
        if death is not None and death.n_boundaries == rank.n_boundaries:
            self._strike(death)

    # -- what happens ------------------------------------------------------------------------------------------------

    def _strike_in_time(self, death: Death) -> None:
        self._strike(death)
        self._world.n_faults_to_come -= 1

    def _strike(self, death: Death) -> None:
        """Ranks die; some may be dead already, or not there yet."""
        world = self._world
        dying = [rank for rank in death.ranks if rank < len(world.ranks) and rank not in self.dead]
        for rank in dying:
            self.kill(rank)
        for rank in dying:
            for survivor in world.survivors():
                if rank in survivor.reaches:
                    self._announce(survivor, rank, death)

    def _announce(self, survivor: SimRank, dead: int, death: Death) -> None:
        """A survivor will hear of a death, sooner or later."""
        world, rng = self._world, self._world.rng
        at = world.now + rng.random() * rng.choice(death.notices_s)
        if rng.random() < death.p_cut_off:
            self._cut_off_at[dead, survivor.rank] = world.now + rng.random() * (at - world.now)
        world.n_faults_to_come += 1
        world.schedule(at, self.notice_in_time, (survivor, dead))

    def tell(self, survivor: SimRank, dead: int) -> None:
        """A survivor has got a way to a rank that is dead by now, and will hear so."""
        self._announce(survivor, dead, Death(ranks=(dead,)))

    def kill(self, dead: int) -> None:
        """A rank dies, at whatever it is."""
        world = self._world
        self.dead[dead] = None
        rank = world.ranks[dead]
        world.trace.entries.append((world.now, dead, [RankDied()], []))
        rank.die()
        world.transfers.stop(dead)
        world.truth.note_death(dead)
        world.forget_actions()

    def notice_in_time(self, what: tuple[SimRank, int]) -> None:
        """The same, as somebody waits for."""
        self.notice(what)
        self._world.n_faults_to_come -= 1

    def notice(self, what: tuple[SimRank, int]) -> None:
        """The edge of a survivor has proof of a death; it ends all requests with the dead first, or then."""
        survivor, dead = what
        if survivor.is_dead or dead in survivor.has_lost:
            return
        world = self._world
        world.truth.note_lost(survivor.rank, dead)
        survivor.news.append((dead, False))
        world.note_hopeless(survivor)
        is_late = world.rng.random() < 0.3
        if not is_late:
            world.transfers.end_with(survivor, dead)
        survivor.has_lost[dead] = None
        survivor.post(e.RankLost(dead, "its connection was closed"))
        if is_late:
            world.transfers.end_with(survivor, dead)
        world.forget_actions()

    def is_heard(self, frame: Frame) -> bool:
        """Whether a frame reaches its receiver."""
        world, source = self._world, frame.source
        receiver = world.ranks[frame.destination]
        if receiver.is_dead:
            return False
        if source not in self.dead:
            return True
        cut_off_at = self._cut_off_at.get((source, frame.destination), world.now)
        if source not in receiver.has_lost and world.now <= cut_off_at:
            return True
        # Nothing that it sent later is heard either.
        self._cut_off_at[source, frame.destination] = -1.0
        world.trace.entries.append((world.now, receiver.rank, [NeverHeard(source, frame.messages)], []))
        return False
