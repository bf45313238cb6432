"""Every rank but the first dies after every step of every small program, and the others hear of it in every way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import pytest

from hpcfut.core.burials import Burials
from hpcfut.core.references import References
from hpcfut.sim.cases import programs
from hpcfut.sim.crashes import NEWS, crashes, double_crashes, joining_crashes
from hpcfut.sim.trace import SimulationError
from tests.sim.processes import run_ahead

PROGRAMS = {
    f"{name}, {n_ranks} ranks": (n_ranks, script, scenario)
    for name, (script, scenario, numbers) in programs().items()
    for n_ranks in numbers
}
#: A ref goes from rank to rank, and two of them die.
CHAIN = PROGRAMS["hand on twice, 4 ranks"]


def n_deaths_of(name: str) -> list[int]:
    """How many ranks have died in each crash of a program."""
    return [len(crash.run().deaths.dead) for crash in crashes(*PROGRAMS[name])]


@pytest.fixture(scope="module")
def crashed(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[list[int]]]]:
    """The same of each program that was selected."""
    yield from run_ahead(request, test_a_rank_dies_after_every_step, "name", n_deaths_of)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_rank_dies_after_every_step(name: str, crashed: Mapping[str, Future[list[int]]]) -> None:
    n_deaths = crashed[name].result()
    assert n_deaths == [1] * len(n_deaths)
    assert len(n_deaths) >= 4 * len(NEWS), "So small is no program."


@pytest.mark.parametrize("seed", range(3))
def test_two_ranks_die_after_every_two_steps(seed: int) -> None:
    n_deaths = [len(crash.run().deaths.dead) for crash in double_crashes(*CHAIN, seed)]
    assert n_deaths.count(2) > 100


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_a_second_rank_dies_after_every_step_while_the_first_is_replaced(n_ranks: int) -> None:
    rows: dict[str, None] = {}
    for crash in joining_crashes(*PROGRAMS[f"replaced, {n_ranks} ranks"], seed=0):
        world = crash.run()
        assert len(world.deaths.dead) == 2
        assert sum(record.replaces >= 0 for record in world.roster) in (1, 2)
        rows |= {f"{state}, {happening}": None for machine, state, happening in world.hits if machine == "replacements"}
    assert {"activating, die", "activating, activate"} <= rows.keys()
    assert "linking, die" in rows or n_ranks == 2, "Of two ranks there is none to be linked with."


def first_failure() -> str:
    """What is told of the first crash that goes wrong."""
    for seed in range(3):
        for crash in double_crashes(*CHAIN, seed):
            try:
                crash.run()
            except SimulationError as error:
                return str(error)
    raise AssertionError("Nothing was noticed.")


def test_whose_task_was_at_a_dead_rank_must_report_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(References, "report_covered", lambda *_: None)
    told = first_failure()
    assert "Object 0.1 is held, but its owner forgot it." in told.splitlines()[0]
    assert "1 dies" in told
    assert "hears RankLost(rank=1" in told, "The story tells who has died, and who has heard of it."


def test_all_deaths_are_buried_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def bury_each(self: Burials) -> None:
        live = [rank for rank in range(self._context.n_ranks) if rank not in self._context.apart]
        done = [dead for dead in self.unburied if all(rank in self.noted.get(dead, ()) for rank in live)]
        self._references.bury(dict.fromkeys(done))
        for dead in done:
            del self.unburied[dead], self.noted[dead]

    monkeypatch.setattr(Burials, "_bury", bury_each)
    assert "Object 0.1 is held, but its owner forgot it." in first_failure().splitlines()[0]
