"""A program that goes on while ranks are killed under it, one after the other; and a look at what is left of it.

    python benchmarks/soak.py --seconds 600 --ranks 8 --spares 4

Starts a job of itself. A thread of the driver kills a random rank other than rank 0 every now and then, while more than
three live; on one host others are started in their place. Meanwhile tasks call tasks, and pass large arrays on, and
every answer is known. In the end each rank that lives must have nothing in its tables any more; and when the job is
over, no process of it, no shared segment and no file may be left.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from common import hash_of
from jobs import program

import hpcfut
from hpcfut.api import session

MARKER = "HPCFUT_SOAK"
N_LEFT_MIN = 3
N_LEAVES, DEPTH = 3, 2
EMPTY_WITHIN_S = 20.0
ENDS_WITHIN_S = 120.0
LEFT_WITHIN_S = 5.0


# -- the program -------------------------------------------------------------------------------------------------------


@hpcfut.remote(max_retries=20)
def tree(depth: int, seed: int) -> int:
    """The sum of the leaves, each of which is its number."""
    if depth == 0:
        return seed
    refs = [tree.remote(depth - 1, seed * N_LEAVES + leaf) for leaf in range(N_LEAVES)]
    return int(sum(hpcfut.get(refs)))


@hpcfut.remote(max_retries=20)
def fill(seed: int, n: int) -> Any:
    return np.full(n, seed, dtype="i8")


@hpcfut.remote(max_retries=20)
def add(first: Any, second: Any) -> Any:
    return first + second


@hpcfut.remote(max_retries=20)
def total(array: Any) -> int:
    return int(array.sum())


def expected_of_tree(depth: int, seed: int) -> int:
    if depth == 0:
        return seed
    return sum(expected_of_tree(depth - 1, seed * N_LEAVES + leaf) for leaf in range(N_LEAVES))


def run_round(seed: int, n: int) -> None:
    """Some of everything; raises if an answer is wrong."""
    trees = [tree.remote(DEPTH, seed + number) for number in range(4)]
    arrays = [fill.remote(seed + number, n) for number in range(6)]
    while len(arrays) > 1:
        arrays.append(add.remote(arrays.pop(0), arrays.pop(0)))
    summed = total.remote(arrays.pop())
    wanted = [expected_of_tree(DEPTH, seed + number) for number in range(4)]
    found = hpcfut.get(trees)
    if found != wanted:
        raise RuntimeError(f"The trees of round {seed} gave {found} and not {wanted}.")
    if hpcfut.get(summed) != n * sum(seed + number for number in range(6)):
        raise RuntimeError(f"The arrays of round {seed} were not what they should have been.")


class Killer(threading.Thread):
    """Kills a rank every now and then, of those that live then and while enough do, until it is told to stop."""

    def __init__(self, every_s: float, seed: int) -> None:
        super().__init__(name="killer", daemon=True)
        self._every_s = every_s
        self._random = random.Random(seed)
        self._is_over = threading.Event()
        self.killed: list[int] = []

    def run(self) -> None:
        while not self._is_over.wait(self._random.uniform(0.5, 1.5) * self._every_s):
            nodes = [node for node in hpcfut.nodes() if node["Alive"] and node["Rank"] not in self.killed]
            if len(nodes) > N_LEFT_MIN:
                node = self._random.choice([node for node in nodes if node["Rank"]])
                self.killed.append(node["Rank"])
                os.kill(node["Pid"], signal.SIGKILL)

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def tables() -> dict[str, int]:
    """What this rank has in its tables, but for remote functions, and leases, which stay a moment."""
    gc.collect()
    engine = session.current().engine
    engine.hear_now()
    engine.core.check()
    statistics = engine.core.statistics()
    ignored = ("n_templates", "n_leases", "n_grants", "n_runs")
    names = [name for name in statistics.__struct_fields__ if name.startswith("n_") and name not in ignored]
    sizes = {name: getattr(statistics, name) for name in names}
    sizes["segments"] = engine.core.copies.arena.n_segments
    sizes["spilled files"] = engine.spilling.n_files
    return {name: size for name, size in sizes.items() if size}


def demand_empty_tables() -> None:
    """Raises if a rank that lives goes on to have something in its tables."""
    deadline = time.monotonic() + EMPTY_WITHIN_S
    while True:
        own = tables()
        ranks = [node["Rank"] for node in hpcfut.nodes() if node["Alive"] and node["Rank"]]
        asked = hpcfut.remote(tables).options(num_cpus=0)
        refs = [
            asked.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(rank)).remote() for rank in ranks
        ]
        left = {rank: sizes for rank, sizes in zip([0, *ranks], [own, *hpcfut.get(refs)], strict=True) if sizes}
        del refs
        if not left:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"Ranks have something in their tables in the end: {left}.")
        time.sleep(0.05)  # Releases are told to others in batches.


def run_program(options: argparse.Namespace) -> None:
    hpcfut.init()
    print(f"the spare ranks are {[node['Rank'] for node in hpcfut.nodes() if node['Spare']]}")
    killer = Killer(options.every, options.seed)
    killer.start()
    until, n_rounds = time.monotonic() + options.seconds, 0
    while time.monotonic() < until:
        run_round(n_rounds, options.elements)
        n_rounds += 1
    killer.stop()
    # A death of just now may not have been heard of.
    while sum(not node["Alive"] for node in hpcfut.nodes()) < len(killer.killed):
        run_round(n_rounds, options.elements)
    demand_empty_tables()
    print(f"{n_rounds} rounds, while {len(killer.killed)} ranks were killed: {killer.killed}")
    print(f"result hash {hash_of(('right', bool(n_rounds), bool(killer.killed)))}")


# -- round the job -----------------------------------------------------------------------------------------------------


def processes_of(marker: str) -> list[int]:
    wanted, found = f"{MARKER}={marker}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # It has ended meanwhile, or is another user's.
            continue
    return found


def segments_that_nobody_has() -> set[str]:
    """Names in /dev/shm; those of other jobs, which have them mapped, do not count."""
    found = {entry.name for entry in Path("/dev/shm").iterdir() if entry.is_file()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            maps = (folder / "maps").read_text(errors="replace")
        except OSError:  # It has ended meanwhile, or is another user's.
            continue
        found = {name for name in found if f"/dev/shm/{name}" not in maps}
    return found


def run_job(options: argparse.Namespace) -> None:
    marker, segments = uuid.uuid4().hex, segments_that_nobody_has()
    with tempfile.TemporaryDirectory() as scratch:
        command = [program("hpcfut"), "run", "-n", str(options.ranks), "--spares", str(options.spares)]
        command += ["--fault-tolerance", "on", __file__, *sys.argv[1:], "--inside"]
        environ = {**os.environ, MARKER: marker, "TMPDIR": scratch}
        status = subprocess.run(command, env=environ, timeout=options.seconds + ENDS_WITHIN_S, check=False).returncode
        deadline = time.monotonic() + LEFT_WITHIN_S
        while left := [*os.listdir(scratch), *(segments_that_nobody_has() - segments), *processes_of(marker)]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)  # A segment of another job may have been made just now, and be mapped a moment later.
    if status:
        sys.exit(f"The job ended with {status}.")
    if left:
        sys.exit(f"The job has left these files, segments or processes: {left}.")
    print("nothing is left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills, in the mean")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--spares", type=int, default=4)
    parser.add_argument("--elements", type=int, default=1 << 19, help="of an array, of 8 bytes each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    (run_program if options.inside else run_job)(options)


if __name__ == "__main__":
    main()
