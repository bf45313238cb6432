"""Ranks that are killed: what that costs a chain of tasks, how soon others go on; and what sharing costs an owner.

    hpcfut run -n 8 --fault-tolerance on benchmarks/recovery.py

Two ranks die for each round. A chain of tasks of 10 ms runs on one rank, undisturbed, and then on another one that is
killed in the middle; both in the same round. Then a rank is killed while it runs a task, which another one runs again:
the time is that from the signal to the value. At last tasks borrow one ref, each for itself, and the messages that
come to the rank that owns it are counted.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import append_json_line, describe_spread, hash_of, parse_options, print_table

import hpcfut
from hpcfut.api import session

TASK_S = 0.01
OWNER = 1


@hpcfut.remote(max_retries=2)
def step(number: int) -> int:
    time.sleep(TASK_S)
    return number + 1


@hpcfut.remote(max_retries=2)
def work(mark: Path) -> bool:
    """The first attempt leaves a mark, and has to be killed; the second one gives its result."""
    if mark.exists():
        return True
    mark.touch()
    time.sleep(60)
    return False


def near(function: Any, rank: int) -> Any:
    """On this rank for as long as it lives, and then on any."""
    return function.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(rank, soft=True))


def pid_of(rank: int) -> int:
    (pid,) = [node["Pid"] for node in hpcfut.nodes() if node["Rank"] == rank]
    return int(pid)


def run_chain(rank: int, n_tasks: int, *, is_killed: bool) -> float:
    """How long a chain takes that begins on this rank, which may be killed when half of it is done."""
    task = near(step, rank)
    hpcfut.get(task.remote(0))
    started = time.monotonic()
    refs = [task.remote(0)]
    for _ in range(n_tasks - 1):
        refs.append(task.remote(refs[-1]))
    if is_killed:
        hpcfut.wait([refs[n_tasks // 2]])
        os.kill(pid_of(rank), signal.SIGKILL)
    if hpcfut.get(refs[-1]) != n_tasks:
        raise RuntimeError("The chain has gone wrong.")
    return time.monotonic() - started


def time_first_result(rank: int, folder: Path) -> float:
    """From the death of the rank that runs a task to the result, which another rank makes."""
    mark = folder / f"mark-{rank}"
    ref = near(work, rank).remote(mark)
    while not mark.exists():
        hpcfut.wait([ref], timeout=0.001)
    killed = time.monotonic()
    os.kill(pid_of(rank), signal.SIGKILL)
    if not hpcfut.get(ref):
        raise RuntimeError("The task has not been tried again.")
    return time.monotonic() - killed


@hpcfut.remote
def own() -> list[Any]:
    return [hpcfut.put("shared")]


@hpcfut.remote
def borrow(refs: list[Any]) -> str:
    return str(hpcfut.get(refs[0]))


class Counted:
    """Receives frames as before, and counts the messages that come in them."""

    def __init__(self, receive: Callable[[list[Any]], None]) -> None:
        self.receive = receive
        self.n_messages = 0

    def __call__(self, events: list[Any]) -> None:
        n_before = len(events)
        self.receive(events)
        self.n_messages += len(events) - n_before


@hpcfut.remote
def count_messages() -> int:
    """How many have come to this rank since the first call."""
    frames = session.current().engine.frames
    if not isinstance(frames.receive, Counted):
        setattr(frames, "receive", Counted(frames.receive))  # noqa: B010
    receive: Any = frames.receive
    return int(receive.n_messages)


def messages_per_borrower(n_borrowers: int) -> float:
    """To the owner of a ref that so many tasks borrow, of ranks other than the driver's and the owner's."""
    on_owner = hpcfut.NodeAffinitySchedulingStrategy(OWNER)
    counting = count_messages.options(scheduling_strategy=on_owner, num_cpus=0)
    refs = hpcfut.get(own.options(scheduling_strategy=on_owner).remote())
    ranks = [node["Rank"] for node in hpcfut.nodes() if node["Alive"] and node["Rank"] > OWNER]
    before = hpcfut.get(counting.remote())
    done = [near(borrow, ranks[number % len(ranks)]).remote(refs) for number in range(n_borrowers)]
    if set(hpcfut.get(done)) != {"shared"}:
        raise RuntimeError("A borrower has read something else.")
    return float(hpcfut.get(counting.remote()) - before) / n_borrowers


def main() -> None:
    options = parse_options(__doc__ or "", 3)
    hpcfut.init()
    n_ranks = len(hpcfut.nodes())
    n_rounds = min(options.rounds, (n_ranks - 3) // 2)
    if n_rounds < 1:
        sys.exit(f"{n_ranks} ranks are too few: two die for each round, and three must be left.")
    n_tasks, counts = (20, [10, 40]) if options.small else (200, [100, 300, 1000])
    counting = count_messages.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(OWNER), num_cpus=0)
    hpcfut.get(counting.remote())
    victims = iter(range(n_ranks - 1, OWNER, -1))
    figures: dict[str, list[float]] = {"chain, undisturbed, s": [], "chain, beyond that when killed, s": []}
    figures["first result after a kill, s"] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(n_rounds):
            plain_s = run_chain(OWNER, n_tasks, is_killed=False)
            figures["chain, undisturbed, s"].append(plain_s)
            killed_s = run_chain(next(victims), n_tasks, is_killed=True)
            figures["chain, beyond that when killed, s"].append(killed_s - plain_s)
            figures["first result after a kill, s"].append(time_first_result(next(victims), Path(folder)))
    for count in counts:
        figures[f"messages to the owner a borrower, of {count}"] = [messages_per_borrower(count)]
    print_table([("figure", "median (range)"), *((name, describe_spread(v, ".3f")) for name, v in figures.items())])
    n_dead = sum(not node["Alive"] for node in hpcfut.nodes())
    print(f"result hash {hash_of((n_tasks, n_rounds, n_dead == 2 * n_rounds))}")
    append_json_line(options.output, figures=figures)


if __name__ == "__main__":
    main()
