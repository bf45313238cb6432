"""Small programs in every order of events, under the eyes of every checker: the numbers of their states are committed.

Where a change of the core makes other numbers right, ``python -m hpcfut.sim --write tests/sim/states.json`` counts
anew; ``python -m hpcfut.sim WORDS`` explores whatever is named like that, committed or not. What takes longer, up to a
minute each, is explored by hand, with ``--write tests/sim/states_by_hand.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from hpcfut.core.references import References
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.tasks import Tasks
from hpcfut.sim import explorer
from hpcfut.sim.__main__ import main
from hpcfut.sim.cases import CASES, decode_counts
from hpcfut.sim.explored import EVERYWHERE
from hpcfut.sim.explorer import Counts
from hpcfut.sim.trace import SimulationError
from hpcfut.sim.world import SimWorld
from tests.sim.processes import run_ahead

STATES = Path(__file__).parent / "states.json"
COMMITTED = decode_counts(STATES.read_bytes())
#: Explored to the end, with these numbers, but not by this test.
BY_HAND = decode_counts((Path(__file__).parent / "states_by_hand.json").read_bytes())
#: What is explored by hand without any death.
TAKE_LONGER = {"recall a pair, 4 ranks", "scatter, 3 ranks"}
#: What has not been explored to the end with one death, and why; smaller programs of the same kind have been.
UNFINISHED = {
    "owner dies, 3 ranks, one death": "Five frames cross, and each task goes to any rank: 13,000 states in a minute, "
    "and no end; the owner of a put, and that of a result, die in programs of their own.",
    "scatter, 3 ranks, one death": "Three tasks, each on any rank, and made again on any other: 8,000 states in a "
    "minute, and no end; there is one with two tasks.",
}
#: More states than any of these programs has.
N_STATES_MAX = 5000


def explore(name: str) -> Counts:
    """All states of a case."""
    found = CASES[name].explorer()
    assert found.explore(N_STATES_MAX), f"There are more than {N_STATES_MAX} states."
    return found.counts


@pytest.fixture(scope="module")
def explored(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Counts]]]:
    """What was found of each case that was selected."""
    yield from run_ahead(request, test_every_order_is_right, "name", explore)


@pytest.mark.parametrize("name", COMMITTED)
def test_every_order_is_right(name: str, explored: Mapping[str, Future[Counts]]) -> None:
    assert explored[name].result() == COMMITTED[name]


def test_every_program_is_explored() -> None:
    explored, all_cases = ({name for name in names if name.endswith("ranks")} for names in (COMMITTED, CASES))
    assert all_cases - explored == TAKE_LONGER
    assert explored <= all_cases
    suffixes = {name.partition(" ranks")[2] for name in COMMITTED}
    assert suffixes == {"", ", slow turns", ", one early deadline", ", one death"}


def test_what_is_explored_by_hand_is_too_large_for_this_test() -> None:
    assert all(name in CASES and name not in COMMITTED for name in (*BY_HAND, *UNFINISHED))
    assert not BY_HAND.keys() & UNFINISHED.keys()
    assert min(counts.n_states for counts in BY_HAND.values()) > max(each.n_states for each in COMMITTED.values())


@pytest.mark.parametrize("name", ["borrow passed on, 3 ranks", "fetch, 3 ranks", "cancel, 2 ranks, slow turns"])
def test_actions_of_different_ranks_commute(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without sleep sets every way is gone, and leads nowhere else.
    monkeypatch.setattr(explorer, "commute", lambda one, other: False)
    found, committed = explore(name), COMMITTED[name]
    assert (found.n_states, found.n_ends) == (committed.n_states, committed.n_ends)
    assert found.n_actions > committed.n_actions


def test_what_happens_everywhere_commutes_with_nothing() -> None:
    assert explorer.commute((0, "hears rank", 1), (1, "hears rank", 0))
    assert not explorer.commute((0, "hears rank", 1), (0, "takes its turn", 0))
    assert not explorer.commute((0, "hears rank", 1), (EVERYWHERE, "time passes", 0))


# -- faults that are planted -------------------------------------------------------------------------------------------


def test_a_borrower_that_nobody_holds_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rule 4 of borrowing: who reports a borrower holds on until the owner has counted it.
    def report(self: References, object_id: int, borrower: int) -> None:
        n_held = self.ensure(object_id).n_uses
        right(self, object_id, borrower)
        self.ensure(object_id).n_uses = n_held

    right = References.report
    monkeypatch.setattr(References, "report", report)
    monkeypatch.setattr(References, "on_borrow_confirmed", lambda self, message: None)
    with pytest.raises(SimulationError, match=r"its owner forgot it|was collected|counted 'ref to a collected object'"):
        explore("borrow passed on, 4 ranks")


def loses_leases_of_cancelled_retries(right: Callable[..., Any]) -> Callable[..., Any]:
    """A lease is forgotten if the second attempt of a task ends after the task has been cancelled."""

    def wrong(self: Tasks, source: int, message: Any) -> None:
        task = self.tasks[message.task_id]
        if task.n_retries and task.is_cancelled:
            task.lease_id = 0
        right(self, source, message)

    return wrong


def test_what_no_seed_finds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tasks, "on_raised", loses_leases_of_cancelled_retries(Tasks.on_raised))
    case = CASES["cancel, 2 ranks"]
    # With a seed the script cancels at once, whatever the weather: the second attempt has never begun.
    for seed in range(100):
        SimWorld(case.n_ranks, seed, case.script, case.scenario).run()
    with pytest.raises(SimulationError, match=r"At rest, rank 0 still has .*n_leases=1"):
        explore("cancel, 2 ranks")


def test_a_deadlock_is_told_as_a_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(References, "on_asked", lambda self, source, message: None)
    with pytest.raises(SimulationError) as caught:
        explore("nested borrow, 2 ranks")
    told = str(caught.value)
    assert told.startswith("In one order of ")
    assert "was never woken; it waits for ['" in told.splitlines()[0]
    assert "\nThe story of " in told
    assert "hears from 0: TaskPushed" in told


def test_going_round_in_circles_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A rank that admits nothing: its tasks are handed back, and come again.
    monkeypatch.setattr(Scheduler, "admits", lambda self, run: False)
    with pytest.raises(SimulationError, match=r"comes back to where it was|does not come to rest"):
        explore("retry, 2 ranks")


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_counts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "states.json"
    assert main(["returned borrow", "2 ranks", "--write", str(file), "--states", "100"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "returned borrow, 2 ranks: 58 states, 62 actions" in said
    assert any(line.startswith("returned borrow, 2 ranks, slow turns: more than ") for line in said)
    written = decode_counts(file.read_bytes())
    assert written == {"returned borrow, 2 ranks": COMMITTED["returned borrow, 2 ranks"]}
    # Without words it is about what the file names.
    assert main(["--write", str(file)]) == 0
    assert decode_counts(file.read_bytes()) == written
