"""Sweeps: for each seed a scenario, a random program on it, and what became of it."""

from __future__ import annotations

from random import Random

import msgspec

from hpcfut.core.effects import ReadSource, RestoreObject, SendMessage, SpillObjects
from hpcfut.core.events import WaitStarted, WatchStarted
from hpcfut.model.config import Config
from hpcfut.model.template import RESOURCE_UNIT, STREAMING
from hpcfut.sim.deaths import AT_THE_END, Death
from hpcfut.sim.fabric import Weather
from hpcfut.sim.programs import Mix, RandomProgram
from hpcfut.sim.trace import NeverHeard
from hpcfut.sim.window import NBYTES_STORED
from hpcfut.sim.world import Row, Scenario, SimWorld
from hpcfut.wire.messages import (
    ArgumentsFollow,
    LoanRecalled,
    LoanReturned,
    Message,
    ReadRedirected,
    TaskPushed,
)

#: What every seed submits at least.
N_TASKS_MIN = 50

WEATHERS = (
    Weather(),
    Weather(slow=0.1),
    Weather(slow=0.1, stuck=0.01),
    Weather(latency_s=2e-3, slow=0.2, slow_s=0.05),
    Weather(latency_s=2e-6, stuck=0.05, stuck_s=2.0),
)


class Outcome(msgspec.Struct):
    """What a seed came to."""

    seed: int
    n_tasks: int
    n_ranks: int
    n_steps: int
    hits: list[Row]
    #: How often the program did what: see ``deeds_of``.
    deeds: dict[str, int]


def scenario_of(seed: int, n_ranks: int | None = None) -> tuple[int, Scenario, Mix]:
    """The number of ranks, the world and the mix of programs for a seed."""
    rng = Random(seed)
    n_ranks = rng.choice((3, 3, 4, 4, 5, 6)) if n_ranks is None else n_ranks
    n_drivers = n_ranks if rng.random() < 0.1 else 1
    config = Config(
        n_slots=rng.choice((1, 1, 1, 2)),
        lease_linger_s=rng.choice((0.5, 0.005)),
        lease_depth_max=rng.choice((256, 2)),
        hand_back_after_s=rng.choice((0.02, 0.002)),
        n_blocked_max=rng.choice((256, 256, 256, 3)),
        driver_lends_after_s=rng.choice((0.001, 0.0, 0.02)),
        standstill_after_s=rng.choice((0.5, 0.01)),
        store_full_after_s=rng.choice((1.0, 0.05)),
        nbytes_spill_file=rng.choice((3000, 100)),
        nbytes_lineage_max=Random(seed).choice((1 << 28, 1 << 28, 5000)),
    )
    is_cut = n_ranks > 1 and rng.random() < 0.1
    extra = ("GPU",) if rng.random() < 0.5 else ()
    resources = tuple(
        {"CPU": RESOURCE_UNIT * rng.choice((1, 2, 4))} | ({"GPU": RESOURCE_UNIT} if extra and rank else {})
        for rank in range(n_ranks)
    )
    has_losses = Random(seed).random() < 0.5
    scenario = Scenario(
        weather=rng.choice(WEATHERS),
        config=config,
        resources=resources,
        n_drivers=n_drivers,
        cut_at_n_tasks=rng.randrange(N_TASKS_MIN, N_TASKS_MIN + 15) if is_cut else 0,
        dies=rng.randrange(-1, n_ranks) if is_cut else -1,
        turn_delay_s=rng.choice((1e-6, 10e-6, 300e-6)),
        p_broken_read=0.15 if rng.random() < 0.3 else 0.0,
        loses=has_losses,
        uses_codec=rng.random() < 0.1,
    )
    mix = Mix(
        n_tasks_min=N_TASKS_MIN,
        depth_max=rng.choice((2, 4, 8)),
        p_raise=rng.choice((0.02, 0.1)),
        p_stored=max(rng.choice((0.0, 0.3, 0.6)), 0.5 * has_losses),
        compute_long_s=rng.choice((0.03, 0.2)),
        extra=extra,
        weights={"cancel": rng.choice((0, 1, 4))},
        n_retries=(0, 1, 3, 9) if has_losses else (0, 0, 1, 3),
    )
    if rng.random() < 0.3:
        scenario = msgspec.structs.replace(scenario, nbytes_store=rng.choice((3, 6, 12)) * (NBYTES_STORED + 100))
        scenario = msgspec.structs.replace(scenario, p_disk_full=rng.choice((0.0, 0.0, 0.3, 1.0)))
    scenario = msgspec.structs.replace(scenario, n_ranks_on_host=rng.choice((1, 2, 2, 3)))
    scenario = msgspec.structs.replace(scenario, n_spilled_max=rng.choice((0, 0, 3)))
    if scenario.dies < 0 and n_drivers == 1 and n_ranks > 1:
        scenario, mix = _with_deaths(Random(f"deaths of {seed}"), n_ranks, scenario, mix)
        scenario = _with_arrivals(Random(f"arrivals of {seed}"), n_ranks, scenario)
    slow = Random(f"slow rank of {seed}")
    if slow.random() < 0.2:
        slow_rank = slow.randrange(n_ranks)
        scenario = msgspec.structs.replace(scenario, slow_rank=slow_rank, slow_turn_s=slow.choice((0.005, 0.3)))
    return n_ranks, scenario, mix


def _with_deaths(rng: Random, n_ranks: int, scenario: Scenario, mix: Mix) -> tuple[Scenario, Mix]:
    """The same world, in which perhaps ranks die, or pause for longer than anybody would wait."""
    replace = msgspec.structs.replace
    if rng.random() < 0.2:
        pauses = tuple(
            (rng.randrange(1, N_TASKS_MIN), rng.randrange(n_ranks), rng.choice((0.05, 5.0, 100.0)))
            for _ in range(rng.randrange(1, 4))
        )
        scenario = replace(scenario, pauses=pauses)
    if rng.random() < 0.5:
        return scenario, mix
    n_spares = rng.choice((0, 0, 0, 1, 2)) if n_ranks > 3 else 0
    deaths: list[Death] = []
    for n_tasks in rng.sample(range(3, N_TASKS_MIN + 1), rng.choice((1, 1, 2, 4))):
        # One rank, some, or all of a host.
        ranks = [rng.randrange(1, n_ranks)]
        draw = rng.random()
        if draw < 0.2:
            ranks = rng.sample(range(1, n_ranks), rng.randrange(1, n_ranks))
        elif draw < 0.4:
            host = ranks[0] // scenario.n_ranks_on_host
            ranks = [rank for rank in range(1, n_ranks) if rank // scenario.n_ranks_on_host == host]
        notices_s = rng.choice(((0.012,), (0.001, 0.012, 3.0), (0.0,), (1e-4,), (0.2, 20.0)))
        delay_s = rng.choice((0.0, 0.001, 0.05))
        when = rng.random()
        if when < 0.1:
            death = Death(ranks=tuple(ranks), n_tasks=AT_THE_END, delay_s=0.001, notices_s=notices_s)
        elif when < 0.3:
            n_boundaries = rng.randrange(1, 200)
            death = Death(ranks=tuple(ranks), n_boundaries=n_boundaries, notices_s=notices_s)
        else:
            death = Death(ranks=tuple(ranks), n_tasks=n_tasks, delay_s=delay_s, notices_s=notices_s)
        deaths.append(death)
    config = replace(scenario.config, survives_deaths=True)
    # With losses besides, programs are made so that much is made again.
    mix = replace(mix, n_retries=rng.choice(((0, 1, 3, 9), (3, 9), mix.n_retries)))
    return replace(scenario, deaths=tuple(deaths), n_spares=n_spares, config=config), mix


def _with_arrivals(rng: Random, n_ranks: int, scenario: Scenario) -> Scenario:
    """The same world, in which perhaps ranks that die are replaced, and these may die in turn, at whatever step."""
    if not scenario.deaths or rng.random() < 0.2:
        return scenario
    replace, deaths = msgspec.structs.replace, list(scenario.deaths)
    for rank in range(n_ranks, n_ranks + 5):
        if rng.random() < 0.6:
            # Until it takes tasks it tells and hears some six things for each rank that is there.
            n_boundaries = rng.randrange(1, rng.choice((8, 6 * n_ranks, 6 * n_ranks, 100)))
            notices_s = rng.choice(((0.0,), (0.0,), (1e-4,), (0.001, 0.012, 3.0)))
            deaths.append(Death(ranks=(rank,), n_boundaries=n_boundaries, notices_s=notices_s))
    if rng.random() < 0.3:
        # While others join, one of the start dies.
        deaths.append(Death(ranks=(rng.randrange(1, n_ranks),), n_boundaries=rng.randrange(50, 500)))
    config = replace(scenario.config, n_respawns_minute_max=rng.choice((30, 30, 30, 2)))
    return replace(
        scenario,
        deaths=tuple(deaths),
        config=config,
        # So late that nobody waits any more, now and then.
        spawn_s=rng.choice((1e-3, 0.02, 0.02, 1.0, 150.0)),
        p_spawn_fails=rng.choice((0.0, 0.2, 0.8)),
    )


def world_of(seed: int, n_ranks: int | None = None) -> SimWorld:
    """The world of a seed, before it has begun."""
    n_ranks, scenario, mix = scenario_of(seed, n_ranks)
    return SimWorld(n_ranks, seed, RandomProgram(mix).driver, scenario)


def run_seed(seed: int, n_ranks: int | None = None) -> Outcome:
    """Run one seed to its end; raises ``SimulationError`` with the story if anything is wrong."""
    world = world_of(seed, n_ranks)
    world.run()
    return Outcome(seed, len(world.truth.specs), len(world.ranks), world.n_steps, list(world.hits), deeds_of(world))


def deeds_of(world: SimWorld) -> dict[str, int]:
    """How much of everything that user code can do with futures was done in a world."""
    specs, values = world.truth.specs.values(), world.truth.values.values()
    passed_on = {object_id for value in values if value.task_id for object_id in value.contained}
    return {
        "nested tasks": sum(spec.parent is not None for spec in specs),
        "refs as arguments": sum(len(spec.arguments) for spec in specs),
        "nested refs": sum(len(spec.nested) for spec in specs),
        "refs returned": len(passed_on),
        "refs returned and passed on": sum(object_id in passed_on for spec in specs for object_id in spec.nested),
        "waits": sum(type(event) is WaitStarted for entry in world.trace.entries for event in entry[2]),
        "watches": sum(type(event) is WatchStarted for entry in world.trace.entries for event in entry[2]),
        "cancels": sum(spec.is_cancelled for spec in specs),
        "generators": sum(spec.n_returns == STREAMING for spec in specs),
        "application errors": sum(len(spec.failures) for spec in specs),
        "retries": sum(max(spec.n_attempts - 1, 0) for spec in specs),
        "standstills": len(world.truth.given_up),
        "reads without link": len(world.truth.injected),
        "tasks beside their bytes": sum(
            any(argument.payload is None and argument.rank == effect.rank for argument in effect.message.arguments)
            for entry in world.trace.entries
            for effect in entry[3]
            if type(effect) is SendMessage and type(effect.message) is TaskPushed
        ),
        "rooms denied": world.truth.n_denied,
        "objects spilled": _n_effects(world, SpillObjects),
        "objects restored": _n_effects(world, RestoreObject),
        "sources read": _n_effects(world, ReadSource),
        "loans recalled": _n_messages(world, LoanRecalled),
        "loans": _n_messages(world, LoanReturned),
        "reads redirected": _n_messages(world, ReadRedirected),
        "fetches ahead": _n_messages(world, ArgumentsFollow),
        "pauses": len(world.scenario.pauses),
        "slow ranks": int(world.scenario.slow_rank >= 0),
        "deaths": len(world.deaths.dead),
        "deaths heard of late": sum(type(event) is NeverHeard for entry in world.trace.entries for event in entry[2]),
        "tasks that crashed": sum(spec.n_crashes for spec in specs),
        "tasks run again": sum(spec.first is not None for spec in specs),
        "ranks replaced": sum(record.replaces >= 0 for record in world.roster),
        "replacements that died": sum(world.roster[rank].replaces >= 0 for rank in world.deaths.dead),
        "replacements that could not be started": world.arrivals.n_failed,
        "replacements given up": world.arrivals.n_given_up,
    }


def _n_messages(world: SimWorld, kind: type[Message]) -> int:
    return sum(
        type(effect) is SendMessage and type(effect.message) is kind
        for entry in world.trace.entries
        for effect in entry[3]
    )


def _n_effects(world: SimWorld, kind: type) -> int:
    return sum(type(effect) is kind for entry in world.trace.entries for effect in entry[3])
