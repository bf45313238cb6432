"""Crash points: a small program is run again and again, and each time a rank dies one step later.

A step is whatever a rank tells or hears; it dies right after it, in the middle of a turn if need be. So of all that
others can know of it, each beginning is tried. That they hear of the death at once, or late, with what was under way
arriving or not, is tried for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from hpcfut.sim.deaths import Death
from hpcfut.sim.ops import Body
from hpcfut.sim.world import Scenario, SimWorld

#: How the others hear of a death: within how many seconds, and the chance that what was under way is lost before.
NEWS: Final = {
    "at once": ((0.0,), 0.0),
    "soon": ((1e-4, 1e-3), 0.5),
    "late": ((5.0,), 0.0),
    "late, and hear nothing before": ((5.0,), 1.0),
}
#: The same where two ranks die: some hear of the one before the other, some the other way round.
MIXED_NEWS: Final = (0.0, 1e-4, 1e-3, 1.0)
#: After so many steps the first of two ranks dies that is to be replaced: it has been given tasks.
N_STEPS_FIRST: Final = 3


class Crash(msgspec.Struct, frozen=True):
    """One or two of them, in one run."""

    n_ranks: int
    script: Body
    scenario: Scenario
    deaths: tuple[Death, ...]
    seed: int = 0

    def run(self) -> SimWorld:
        """Run it to its end; raises ``SimulationError`` with the story if anything is wrong."""
        scenario = msgspec.structs.replace(self.scenario, deaths=self.deaths)
        world = SimWorld(self.n_ranks, self.seed, self.script, scenario)
        world.run()
        return world


def crashes(n_ranks: int, script: Body, scenario: Scenario) -> Iterator[Crash]:
    """Every rank but the first, after every step of the undisturbed run, and with all kinds of news."""
    scenario = _mortal(scenario)
    for rank, n_steps in enumerate(_steps(n_ranks, script, scenario)):
        for n_boundaries in range(1, n_steps + 1) if rank else ():
            for notices_s, p_cut_off in NEWS.values():
                death = Death(ranks=(rank,), n_boundaries=n_boundaries, notices_s=notices_s, p_cut_off=p_cut_off)
                yield Crash(n_ranks, script, scenario, (death,))


def double_crashes(n_ranks: int, script: Body, scenario: Scenario, seed: int) -> Iterator[Crash]:
    """Ranks 1 and 2, each after every step that it takes if nobody dies."""
    scenario = _mortal(scenario)
    _, n_first, n_second, *_ = _steps(n_ranks, script, scenario)
    for first in range(1, n_first + 1):
        for second in range(1, n_second + 1):
            deaths = (
                Death(ranks=(1,), n_boundaries=first, notices_s=MIXED_NEWS, p_cut_off=0.0),
                Death(ranks=(2,), n_boundaries=second, notices_s=MIXED_NEWS, p_cut_off=0.0),
            )
            yield Crash(n_ranks, script, scenario, deaths, seed)


def joining_crashes(n_ranks: int, script: Body, scenario: Scenario, seed: int) -> Iterator[Crash]:
    """Rank 1 dies and is replaced; then its replacement, or another rank, dies after every step that it takes."""
    scenario = _mortal(scenario)
    first = Death(ranks=(1,), n_boundaries=N_STEPS_FIRST, notices_s=(1e-4,), p_cut_off=0.0)
    n_steps = _steps(n_ranks, script, scenario, first, seed=seed)
    for rank in (*range(2, n_ranks), n_ranks):
        for n_boundaries in range(1, n_steps[rank] + 1):
            for notices_s, p_cut_off in (NEWS["at once"], NEWS["late, and hear nothing before"]):
                second = Death(ranks=(rank,), n_boundaries=n_boundaries, notices_s=notices_s, p_cut_off=p_cut_off)
                yield Crash(n_ranks, script, scenario, (first, second), seed)


def _mortal(scenario: Scenario) -> Scenario:
    config = msgspec.structs.replace(scenario.config, survives_deaths=True)
    return msgspec.structs.replace(scenario, config=config, n_turns_a_deep_check=1)


def _steps(n_ranks: int, script: Body, scenario: Scenario, *deaths: Death, seed: int = 0) -> list[int]:
    """How many steps each rank takes if no other deaths happen."""
    world = Crash(n_ranks, script, scenario, deaths, seed).run()
    return [rank.n_boundaries for rank in world.ranks]
