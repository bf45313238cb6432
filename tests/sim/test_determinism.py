"""One seed, one trace: whatever the hashes of the process, and however often it is run."""

from __future__ import annotations

import os
import subprocess
import sys

from hpcfut.sim.sweep import scenario_of, world_of

N_SEEDS = 12

PRINT_DIGESTS = f"""
from hpcfut.sim.sweep import world_of
for seed in range({N_SEEDS}):
    world = world_of(seed)
    world.run()
    print(seed, len(world.trace.entries), world.trace.digest())
"""


def digests(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_DIGESTS], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_two_hash_seeds_give_one_trace() -> None:
    first = digests("1")
    assert first == digests("2")
    assert len(set(first.split())) > 2 * N_SEEDS, "Different seeds give different traces."


def test_the_codec_changes_nothing() -> None:
    traces = []
    for uses_codec in (False, True):
        world = world_of(3)
        world.fabric.uses_codec = uses_codec
        world.run()
        traces.append(world.trace.digest())
    assert traces[0] == traces[1]


def test_scenarios_differ() -> None:
    assert len({str(scenario_of(seed)) for seed in range(100)}) > 90
