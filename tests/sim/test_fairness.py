"""Owners share the ranks: one with very many tasks starves nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from itertools import product
from typing import NamedTuple

import pytest

from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Make, Program, Sleep, get
from hpcfut.sim.world import Scenario, SimWorld
from tests.sim.processes import run_ahead

#: Of the crowd's owner; far more than can be done before the others come.
N_TASKS = 1000
COMES_AT_S = 0.1


def latencies(task_s: float, n_ranks: int, n_asking: int, seed: int, *, may_run: bool) -> list[float]:
    """How long the single tasks took of tasks on some ranks, while rank 0 has a crowd of tasks everywhere.

    Those that ask sit on ranks of their own, and keep these busy with waiting only.
    """
    took: list[float] = []
    scenario = Scenario(resources=({"CPU": RESOURCE_UNIT},), n_steps_max=2_000_000)

    def short(me: Frame) -> Program:
        yield Sleep(task_s)
        return [Make()]

    def ask(me: Frame) -> Program:
        yield Sleep(COMES_AT_S)
        for _ in range(3):
            came_at = world.now
            (ref,) = me.submit(me.define(), short)
            yield get(ref, may_run=False)
            took.append(world.now - came_at)
        return [Make()]

    def script(me: Frame) -> Program:
        asking = [me.submit(me.define(affinity=rank), ask)[0] for rank in range(1, n_asking + 1)]
        yield Sleep(COMES_AT_S - 0.05)
        template_id = me.define()
        refs = [me.submit(template_id, short)[0] for _ in range(min(N_TASKS, int(10 + n_ranks / task_s)))]
        yield get(*asking, *refs, may_run=may_run)
        return []

    world = SimWorld(n_ranks, seed, script, scenario)
    world.run()
    return took


class Crowd(NamedTuple):
    """What the tasks are like, how many ask for single ones, and whether the crowd's owner may run tasks meanwhile."""

    task_s: float
    n_asking: int
    may_run: bool


CROWDS = [Crowd(*each) for each in product((0.0005, 0.002, 0.015, 0.05, 0.4), (1, 3), (False, True))]


def latencies_in(crowd: Crowd) -> list[list[float]]:
    """The latencies with each of two seeds."""
    return [latencies(crowd.task_s, 4, crowd.n_asking, seed, may_run=crowd.may_run) for seed in range(2)]


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Iterator[Mapping[Crowd, Future[list[list[float]]]]]:
    """Those of each crowd that was selected."""
    yield from run_ahead(request, test_a_single_task_has_its_turn_among_very_many, "crowd", latencies_in)


@pytest.mark.parametrize("crowd", CROWDS, ids=str)
def test_a_single_task_has_its_turn_among_very_many(
    crowd: Crowd, found: Mapping[Crowd, Future[list[list[float]]]]
) -> None:
    task_s, n_asking, _ = crowd
    for took in found[crowd].result():
        assert len(took) == 3 * n_asking
        # Its own time, a turn of every owner before it, and what is queued where tasks are short.
        assert max(took) <= (n_asking + 2) * task_s + 0.02, took
