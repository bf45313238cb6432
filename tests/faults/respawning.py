"""A script whose ranks are killed one after another, and replaced each time, in two sessions."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np

import hpcfut
from tests.mpi.support import WAIT_S, assert_nothing_left, until

N_LARGE = 200_000
#: Kills in the first session and in the second one.
N_KILLS = (7, 3)


@hpcfut.remote(max_retries=20)
def make(number: int) -> Any:
    return np.full(N_LARGE, number)


@hpcfut.remote(max_retries=20)
def add(arrays: list[Any]) -> int:
    return int(sum(array[0] for array in hpcfut.get(arrays)))


@hpcfut.remote(max_retries=20)
def split(number: int) -> int:
    """A task with tasks of its own, which hands refs on."""
    arrays = [make.remote(number + index) for index in range(3)]
    return int(hpcfut.get(add.remote(arrays)))


@hpcfut.remote(num_cpus=0)
def own_pid() -> int:
    return os.getpid()


def nodes() -> list[dict[str, Any]]:
    """The ranks that live and may be given tasks."""
    return [node for node in hpcfut.nodes() if node["Alive"] and not node["Spare"]]


def work_until(are_so: Any) -> None:
    """The job goes on all the time, with the right answers."""

    def look() -> bool:
        refs = [split.remote(number) for number in range(4)]
        assert hpcfut.get(refs, timeout=WAIT_S) == [3 * number + 3 for number in range(4)]
        return bool(are_so())

    until(look)


def kill_and_await_another(index: int) -> None:
    """A rank that is busy is killed; sooner or later there are as many as before, and the new one works."""
    before = nodes()
    victim = before[1 + index % (len(before) - 1)]
    refs = [split.remote(number) for number in range(8)]
    os.kill(victim["Pid"], signal.SIGKILL)
    assert hpcfut.get(refs, timeout=WAIT_S) == [3 * number + 3 for number in range(8)]
    work_until(lambda: len(nodes()) == len(before) and victim["Rank"] not in [node["Rank"] for node in nodes()])
    (new,) = [node for node in nodes() if node["Rank"] not in [old["Rank"] for old in before]]
    on_it = hpcfut.NodeAffinitySchedulingStrategy(new["Rank"])
    assert hpcfut.get(own_pid.options(scheduling_strategy=on_it).remote(), timeout=WAIT_S) == new["Pid"]


def main() -> None:
    for n_kills in N_KILLS:
        hpcfut.init()
        work_until(lambda: len(nodes()) == 3)
        for index in range(n_kills):
            kill_and_await_another(index)
        assert_nothing_left()
        assert len(nodes()) == 3
        print("three ranks")
        hpcfut.shutdown()
    # A rank is killed, and the session ends while another one is being started.
    hpcfut.init()
    work_until(lambda: len(nodes()) == 3)
    os.kill(nodes()[1]["Pid"], signal.SIGKILL)
    hpcfut.get([split.remote(number) for number in range(8)], timeout=WAIT_S)
    sys.exit(7)


if __name__ == "__main__":
    main()
