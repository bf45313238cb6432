"""A driver queues a million tasks, and drops each result as it comes: what a queued task costs.

    hpcfut run -n 2 benchmarks/queued_tasks.py --must

No task can run before the last one has been submitted, because every other rank is held by a task
that waits for a file, and a driver's rank runs tasks only while its driver waits. So all tasks are
in the queue at once, each with its ref in a list of the driver's, and what the driver's process
has grown by is theirs. Then the ranks are let go, and the driver takes one result after the other
and drops its ref.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

from common import append_json_line, hash_of, print_table

import hpcfut

NBYTES_MUST = 2000
N_PARTS = 10


@hpcfut.remote
def task(number: int) -> int:
    return number + 1


@hpcfut.remote
def hold(started: str, gate: str) -> None:
    Path(started).touch()
    while not os.path.exists(gate):
        time.sleep(0.01)


def nbytes_of_process() -> int:
    """The resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def hold_ranks(folder: Path) -> list[hpcfut.ObjectRef[None]]:
    """Keep all ranks but this one busy until `folder/gate` is there."""
    holders = []
    for node in hpcfut.nodes()[1:]:
        rank = node["Rank"]
        strategy = hpcfut.NodeAffinitySchedulingStrategy(rank)
        holders.append(hold.options(scheduling_strategy=strategy).remote(str(folder / str(rank)), str(folder / "gate")))
    while len(os.listdir(folder)) < len(holders):
        hpcfut.wait(holders, num_returns=len(holders), timeout=0.01)
    return holders


def submit(n_tasks: int) -> tuple[list[hpcfut.ObjectRef[int]], list[float]]:
    """Submit all tasks; gives their refs, and the seconds that each tenth of them took."""
    refs: list[hpcfut.ObjectRef[int]] = []
    parts = []
    for part in range(N_PARTS):
        started = time.perf_counter()
        refs += [task.remote(number) for number in range(n_tasks * part // N_PARTS, n_tasks * (part + 1) // N_PARTS)]
        parts.append(time.perf_counter() - started)
    return refs, parts


def take(refs: list[hpcfut.ObjectRef[int]]) -> int:
    """Take all results in order, dropping each ref; gives their sum."""
    total = 0
    refs.reverse()
    while refs:
        total += hpcfut.get(refs.pop())
    return total


def main() -> None:
    """Measures once: a million tasks need no repetition."""
    parser = argparse.ArgumentParser(description="A million tasks queued by one driver.")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--must", action="store_true", help="fail where a queued task takes too much memory")
    parser.add_argument("--small", action="store_true", help="a check of the results in seconds")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line to it")
    options = parser.parse_args()
    n_tasks = 2000 if options.small else options.tasks
    hpcfut.get([task.remote(number) for number in range(200)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        holders = hold_ranks(folder)
        gc.collect()
        nbytes_before = nbytes_of_process()
        refs, parts = submit(n_tasks)
        nbytes_task = (nbytes_of_process() - nbytes_before) / n_tasks
        (folder / "gate").touch()
        started = time.perf_counter()
        total = take(refs)
        took_s = time.perf_counter() - started
        hpcfut.get(holders)
    if total != n_tasks * (n_tasks + 1) // 2:
        sys.exit(f"The sum of all results is {total}.")
    us = 1e6 / n_tasks
    rows = [
        ("", "first tenth", "last tenth", "all", "must"),
        (
            "submit, µs a task",
            f"{parts[0] * us * N_PARTS:.1f}",
            f"{parts[-1] * us * N_PARTS:.1f}",
            f"{sum(parts) * us:.1f}",
            "",
        ),
        ("take, µs a task", "", "", f"{took_s * us:.1f}", ""),
        ("bytes a queued task", "", "", f"{nbytes_task:.0f}", f"<= {NBYTES_MUST}"),
    ]
    print(f"{n_tasks:,} tasks on {len(hpcfut.nodes())} ranks")
    print_table(rows)
    print(f"result hash {hash_of(total)}")
    append_json_line(
        options.output,
        benchmark="queued_tasks",
        n_tasks=n_tasks,
        n_ranks=len(hpcfut.nodes()),
        figures={
            "bytes a queued task": [nbytes_task],
            "submit one of a million, µs": [part * us * N_PARTS for part in parts],
            "take one of a million, µs": [took_s * us],
        },
    )
    if options.must and not options.small and nbytes_task > NBYTES_MUST:
        sys.exit(f"A queued task takes {nbytes_task:.0f} bytes and may take {NBYTES_MUST}.")


if __name__ == "__main__":
    main()
