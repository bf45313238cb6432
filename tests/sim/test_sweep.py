"""The sweep: random programs on random worlds, each from one seed, under the eyes of every checker.

``pytest tests/sim/test_sweep.py --seeds 20000`` searches longer; ``--seed 4612`` runs one seed and prints its story.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator

import pytest

from hpcfut.sim.sweep import N_TASKS_MIN, Outcome, run_seed, world_of

N_PROCESSES = 2
#: Worlds have no actors: tests/core and tests/protocol take these rows.
MACHINES_ELSEWHERE = ("actor", "address", "resident")
ELSEWHERE = (("task", "pushed", "refuse"), ("ownership", "pending", "create"), ("ownership", "actor", "collect"))


@pytest.fixture(scope="module")
def outcomes(pytestconfig: pytest.Config) -> Iterator[list[Outcome]]:
    """What became of every seed; a seed that fails raises with its story."""
    if pytestconfig.getoption("seed") is not None:
        pytest.skip("One seed alone is run.")
    # Not forked: the process of the tests may have threads.
    with multiprocessing.get_context("spawn").Pool(N_PROCESSES) as pool:
        yield list(pool.imap(run_seed, range(pytestconfig.getoption("seeds")), chunksize=10))


def test_one_seed(pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]) -> None:
    seed = pytestconfig.getoption("seed")
    world = world_of(0 if seed is None else seed)
    try:
        world.run()
    finally:
        if seed is not None:
            with capsys.disabled():
                print("", *world.trace.lines(), sep="\n")


def test_every_seed_is_busy(outcomes: list[Outcome]) -> None:
    assert all(outcome.n_tasks >= N_TASKS_MIN and outcome.n_ranks >= 3 for outcome in outcomes)


def test_every_row_of_every_table_is_taken(outcomes: list[Outcome]) -> None:
    n_hits = Counter(row for outcome in outcomes for row in outcome.hits)
    if len(outcomes) < 1000:
        pytest.skip("Some rows are too rare for so few seeds.")
    rows = [row for row in world_of(0).rows if row[0] not in MACHINES_ELSEWHERE and row not in ELSEWHERE]
    missed = [row for row in rows if not n_hits[row]]
    assert not missed, f"No seed of {len(outcomes)} took these rows: {missed}"


def test_everything_is_done_often(outcomes: list[Outcome]) -> None:
    n_deeds: Counter[str] = Counter()
    for outcome in outcomes:
        n_deeds.update(outcome.deeds)
    rare = {deed: n for deed, n in n_deeds.items() if n < len(outcomes) / 10}
    assert not rare, f"In {len(outcomes)} seeds these were rare: {rare}"
