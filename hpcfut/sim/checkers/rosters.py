"""Everybody in the job is known to everybody; who has come is reached before he is spoken to, and joins in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.effects import SendObject
from hpcfut.core.replacements import IDLE, OVER
from hpcfut.sim.trace import SimulationError
from hpcfut.wire.messages import Message

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Rosters:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def on_message(self, rank: SimRank, destination: int, message: Message) -> None:
        """A message is about to leave."""
        self._check_way(rank, destination, type(message).__name__)

    def on_send(self, rank: SimRank, effect: SendObject) -> None:
        """Bulk data are about to leave."""
        self._check_way(rank, effect.rank, "bulk data")

    def _check_way(self, rank: SimRank, destination: int, what: str) -> None:
        if destination not in rank.reaches and destination not in rank.has_lost:
            raise SimulationError(f"Rank {rank.rank} sends {what} to rank {destination}, to which it has no way.")

    def at_rest(self) -> None:
        """Nobody is on his way any more, and all agree on who is there."""
        world, first = self._world, self._world.ranks[0].core
        alive = tuple(rank.rank for rank in world.survivors())
        for rank in world.survivors():
            members, arrivals = rank.core.membership, rank.core.deaths.arrivals
            who = f"At rest, rank {rank.rank}"
            if members.alive != alive or members.n_ranks != len(world.ranks):
                raise SimulationError(f"{who} knows of {members.n_ranks} ranks, of which {members.alive} live.")
            if members.joining or members.unlinked or arrivals.introduced:
                raise SimulationError(f"{who} waits for {members.joining}, {members.unlinked}, {arrivals.introduced}.")
            if list(members.active) != world.active(rank.news) or members.active != first.membership.active:
                raise SimulationError(f"{who} gives tasks to {members.active}, and heard {rank.news}.")
        state = first.deaths.replacements.state
        if state not in (IDLE, OVER):
            raise SimulationError(f"At rest, a replacement is {state}.")
        if state == IDLE and world.scenario.config.n_respawns_minute_max and first.membership.n_missing:
            raise SimulationError(f"At rest, {first.membership.n_missing} ranks have not been replaced.")
