"""Works on two hosts while ranks are killed, four anywhere or all of the second host, and tells whether all was right.

Each host kills its own: a process that a task has left behind there does, because only there the ranks have the numbers
that they know of themselves.
"""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np

import hpcfut

KILLS = 4
LARGE = 4 << 20
WITHIN_S = 1.5


@hpcfut.remote(max_retries=20)
def fill(number: int) -> Any:
    return np.full(LARGE // 8, number)


@hpcfut.remote(max_retries=20)
def add(first: Any, second: Any) -> Any:
    return first + second


@hpcfut.remote(max_retries=20)
def total(array: Any) -> int:
    return int(array.sum())


@hpcfut.remote(max_retries=20)
def nest(numbers: list[int]) -> int:
    return int(sum(hpcfut.get([total.remote(fill.remote(number)) for number in numbers])))


def kill(pids: list[int], delays: list[float]) -> None:
    lines = [f"(sleep {delay:.3f}; kill -KILL {pid}) &" for pid, delay in zip(pids, delays, strict=True)]
    subprocess.Popen(["sh", "-c", "\n".join(lines)], start_new_session=True, stdin=subprocess.DEVNULL)


def choose(kind: str, chance: random.Random) -> list[dict[str, Any]]:
    nodes = [node for node in hpcfut.nodes() if node["Rank"]]
    if kind == "host":
        return [node for node in nodes if node["Host"] != hpcfut.nodes()[0]["Host"]]
    return chance.sample(nodes, KILLS)


def main(kind: str, seed: int) -> None:
    hpcfut.init()
    chance = random.Random(seed)
    doomed = choose(kind, chance)
    for host in sorted({node["Host"] for node in doomed}):
        pids = [node["Pid"] for node in doomed if node["Host"] == host]
        killer = next(node["Rank"] for node in hpcfut.nodes() if node["Host"] == host and not node["Spare"])
        there = hpcfut.NodeAffinitySchedulingStrategy(killer)
        delays = [chance.uniform(0.1, WITHIN_S) for _ in pids]
        hpcfut.get(hpcfut.remote(kill).options(scheduling_strategy=there, max_retries=0).remote(pids, delays))
    n_rounds = 0
    while n_rounds < 2 or sum(not node["Alive"] for node in hpcfut.nodes()) < len(doomed):
        arrays = [fill.remote(number) for number in range(12)]
        nested = [nest.remote(list(range(number, number + 3))) for number in range(6)]
        while len(arrays) > 1:
            arrays.append(add.remote(arrays.pop(0), arrays.pop(0)))
        assert hpcfut.get(total.remote(arrays[0])) == LARGE // 8 * sum(range(12))
        assert hpcfut.get(nested) == [LARGE // 8 * (3 * number + 3) for number in range(6)]
        n_rounds += 1
    print(f"{len(doomed)} died, and all was right")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
