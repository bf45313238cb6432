"""Tasks that hold a resource while they wait for others that need it: told, and nobody else is harmed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcfut.model.config import Config
from hpcfut.model.failure import Failure
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Body, Make, Program, Sleep, Wait, get
from hpcfut.sim.world import Scenario, SimWorld

TAPE = (("CPU", RESOURCE_UNIT), ("tape", RESOURCE_UNIT))
N_RANKS = 3

Story = Callable[["Told"], Body]


class Told:
    """What the parents of one world were given."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.n_values = 0

    def hear(self, answer: list[tuple[int, object]]) -> None:
        for _, value in answer:
            if isinstance(value, Failure):
                self.failures.append(value.text)
            else:
                self.n_values += 1


def run(story: Story, *, n_tapes: int = 1, seed: int = 0, after_s: float = 0.01) -> Told:
    """A world in which each rank but the first has so many tapes."""
    told = Told()
    with_tapes = {"CPU": 4 * RESOURCE_UNIT, "tape": n_tapes * RESOURCE_UNIT}
    resources = ({"CPU": 4 * RESOURCE_UNIT}, with_tapes, with_tapes)
    config = Config(standstill_after_s=after_s, n_slots=2)
    world = SimWorld(N_RANKS, seed, story(told), Scenario(resources=resources, config=config))
    world.run()
    return told


def leaf(me: Frame) -> Program:
    yield Sleep(0.001)
    return [Make()]


def parent(told: Told, body: Body = leaf, *, resources: tuple[tuple[str, int], ...] = TAPE, n: int = 1) -> Body:
    """A task that waits for tasks of this body."""

    def run_children(me: Frame) -> Program:
        template_id = me.define(resources=resources)
        children = [me.submit(template_id, body)[0] for _ in range(n)]
        told.hear((yield get(*children, may_run=me.rng.random() < 0.5)))
        return [Make()]

    return run_children


def drive(body: Body, n: int, told: Told | None = None) -> Body:
    """A driver that has so many tasks of this body, each with a tape, and waits for all of them."""

    def script(me: Frame) -> Program:
        template_id = me.define(resources=TAPE)
        answer = yield get(*(me.submit(template_id, body)[0] for _ in range(n)))
        if told is not None:
            told.hear(answer)
        return []

    return script


@pytest.mark.parametrize("seed", range(10))
def test_every_tape_is_held_by_one_who_waits_for_a_tape(seed: int) -> None:
    # @remote(tape) def parent(): get(child.options(tape).remote())    # one on every rank that has a tape
    told = run(lambda told: drive(parent(told), 2), seed=seed)
    assert told.failures
    assert len(told.failures) + told.n_values == 2
    assert "asks for tape 1, but what there is of it is held by tasks that wait" in told.failures[0]
    assert "on rank 1 (tape 1)" in told.failures[0]


@pytest.mark.parametrize("seed", range(10))
def test_those_that_queue_behind_go_on(seed: int) -> None:
    driver, told = Told(), run(lambda told: drive(parent(told, n=3), 6), seed=seed)
    assert told.failures
    told = run(lambda told: drive(parent(told), 6, driver), seed=seed)
    assert (driver.n_values, driver.failures) == (6, []), "Only children were given up, and no parent."


@pytest.mark.parametrize("seed", range(10))
def test_the_one_in_between_holds_nothing(seed: int) -> None:
    # parent (tape) waits for between (cores), which waits for child (tape)
    cores = (("CPU", RESOURCE_UNIT),)
    told = run(lambda told: drive(parent(told, parent(told), resources=cores), 2), seed=seed)
    assert any("on rank 2 (tape 1)" in text for text in told.failures)


@pytest.mark.parametrize("seed", range(10))
def test_a_child_that_needs_the_result_of_one_that_cannot_start(seed: int) -> None:
    def family(told: Told) -> Body:
        def run_children(me: Frame) -> Program:
            (first,) = me.submit(me.define(resources=TAPE), leaf)
            (second,) = me.submit(me.define(), leaf, [first])
            told.hear((yield get(second, may_run=False)))
            return [Make()]

        return run_children

    assert run(lambda told: drive(family(told), 2), seed=seed).failures


@pytest.mark.parametrize("seed", range(10))
def test_a_ref_that_another_rank_owns(seed: int) -> None:
    # x is submitted by the driver, needs a tape, and is waited for by both who have one.
    def script_of(told: Told) -> Body:
        def script(me: Frame) -> Program:
            def wait_for_it(inner: Frame) -> Program:
                yield Sleep(0.02)
                told.hear((yield get(*inner.refs, may_run=False)))
                return [Make()]

            template_id = me.define(resources=TAPE)
            (x,) = me.submit(template_id, leaf, [me.submit(me.define(), slow)[0]])
            waiting = [me.submit(template_id, wait_for_it, nested=[x])[0] for _ in range(2)]
            yield get(*waiting, may_run=False)
            return []

        return script

    def slow(me: Frame) -> Program:
        yield Sleep(0.03)
        return [Make()]

    told = run(script_of, seed=seed)
    assert len(told.failures) == 2


@pytest.mark.parametrize("seed", range(10))
def test_nobody_is_given_up_who_may_go_on(seed: int) -> None:
    assert not run(lambda told: drive(parent(told, n=3), 2), n_tapes=2, seed=seed).failures, "There are tapes left."
    assert not run(lambda told: drive(parent(told, n=3), 1), seed=seed).failures, "Another rank has one."

    def patient(told: Told) -> Body:
        def run_child(me: Frame) -> Program:
            (child,) = me.submit(me.define(resources=TAPE), leaf)
            if (yield Wait([child], 1, may_run=False, timeout_s=0.3)) is None:
                me.release([child])
            else:
                told.n_values += 1
            return [Make()]

        return run_child

    assert not run(lambda told: drive(patient(told), 2), seed=seed).failures, "A wait with a timeout ends."

    def one_of_two(told: Told) -> Body:
        def run_children(me: Frame) -> Program:
            children = [me.submit(me.define(resources=TAPE), leaf)[0], me.submit(me.define(), slow)[0]]
            told.hear((yield Wait(children, 1, may_run=False)))
            return [Make()]

        return run_children

    def slow(me: Frame) -> Program:
        yield Sleep(0.2)
        return [Make()]

    assert not run(lambda told: drive(one_of_two(told), 2), seed=seed).failures, "The other one is enough."
