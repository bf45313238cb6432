"""Tasks with pairs of large arguments, in stores that have room for hardly more than one: none starts without them."""

from __future__ import annotations

from random import Random

import pytest

from hpcfut.core.effects import RunTask, SpillObjects
from hpcfut.model.config import Config
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.sim.frame import Frame
from hpcfut.sim.ops import Body, Make, Program, Put, Sleep, Wait, get
from hpcfut.sim.sweep import WEATHERS
from hpcfut.sim.window import NBYTES_STORED
from hpcfut.sim.world import Scenario, SimWorld

N_SEEDS = 40


def make(me: Frame) -> Program:
    """Returns a large value."""
    yield Sleep(me.rng.random() * 1e-4)
    return [Make(is_stored=True)]


def use(me: Frame) -> Program:
    """Reads two large values for a while, and may want room for a third."""
    yield Sleep(me.rng.random() * me.rng.choice((1e-5, 1e-3, 0.03)))
    if me.rng.random() < 0.2:
        yield Put()
    return [Make(is_stored=me.rng.random() < 0.2)]


def pass_on(me: Frame) -> Program:
    """Waits for a task with the two objects that it was given refs of."""
    (result,) = me.submit(me.define(), use, me.refs[:2])
    yield get(result)
    return [Make()]


def pairs(rng: Random) -> Body:
    """A driver that makes large values, and has tasks read two of them at a time."""
    n_objects, n_tasks, p_cancel = rng.choice((3, 5, 8)), rng.choice((4, 8)), rng.choice((0.0, 0.0, 0.3))

    def driver(me: Frame) -> Program:
        for _ in range(rng.choice((1, 2))):
            template_id = me.define()
            objects: list[int] = []
            for _ in range(n_objects):
                objects += me.submit(template_id, make)
            tasks: list[int] = []
            for n in range(n_tasks):
                pair = [objects[n % n_objects], objects[(n + 1 + me.rng.randrange(2)) % n_objects]]
                if me.rng.random() < 0.1:
                    tasks += me.submit(template_id, pass_on, nested=pair)
                else:
                    tasks += me.submit(template_id, use, pair)
                if me.rng.random() < 0.2:
                    yield Wait([me.rng.choice(objects)], 1, may_run=False, timeout_s=0.05)
            for task in tasks:
                if me.rng.random() < p_cancel:
                    me.cancel(task)
            if me.rng.random() < 0.5:
                yield get(*tasks, may_run=me.rng.random() < 0.7)
            else:
                for task in tasks:
                    yield get(task)
            me.release(list(me.refs))
        return []

    return driver


def world_of(seed: int) -> SimWorld:
    rng = Random(seed)
    config = Config(
        n_slots=rng.choice((1, 1, 2)),
        lease_depth_max=rng.choice((256, 2)),
        hand_back_after_s=rng.choice((0.02, 0.002)),
        driver_lends_after_s=rng.choice((0.001, 0.0, 0.02)),
        store_full_after_s=rng.choice((1.0, 0.05, 0.01)),
        nbytes_spill_file=rng.choice((3000, 100)),
    )
    scenario = Scenario(
        weather=rng.choice(WEATHERS),
        config=config,
        resources=({"CPU": RESOURCE_UNIT * rng.choice((1, 2))},),
        turn_delay_s=rng.choice((1e-6, 10e-6, 300e-6)),
        nbytes_store=int(NBYTES_STORED * rng.choice((1.6, 2.3, 3.4))),
        n_ranks_on_host=rng.choice((3, 3, 2)),
        n_drivers=rng.choice((1, 1, 3)),
        p_disk_full=rng.choice((0.0, 0.0, 0.3)),
        n_spilled_max=rng.choice((0, 2, 3)),
    )
    return SimWorld(3, seed, pairs(rng), scenario)


@pytest.mark.parametrize("part", range(4))
def test_every_task_has_its_arguments_and_comes_to_an_end(part: int) -> None:
    n_runs = n_exchanges = 0
    for seed in range(part, N_SEEDS, 4):
        world = world_of(seed)
        world.run()
        effects = [effect for entry in world.trace.entries for effect in entry[3]]
        n_runs += sum(isinstance(effect, RunTask) and len(effect.places) == 2 for effect in effects)
        n_exchanges += sum(isinstance(effect, SpillObjects) and effect.in_place_of is not None for effect in effects)
    assert n_runs > N_SEEDS // 4
    assert n_exchanges > 0
