"""A driver's 20,000 tasks of 1 ms on 4 ranks of 2 cores: which share of the ideal is reached.

    hpcfut run -n 4 benchmarks/short_tasks.py --must

A task computes for 1 ms of processor time: it counts its own thread's, because with more ranks than
cores a task that looked at the wall's clock would also count the time in which others have the
core. So no arrangement can be faster than

    ideal = tasks x 1 ms / cores

and the share of it is what is left for the tasks' own work of all that the machine did meanwhile:
moving tasks, waiting, and whatever else ran on it. Other programs take from the share; so the table
also says how much of the cores went to them, and what the share is of the rest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from common import append_json_line, describe_spread, hash_of, print_table

import hpcfut

TASK_S = 0.001
SHARE_MUST = 0.85


@hpcfut.remote
def compute(seconds: float) -> tuple[int, float]:
    now = time.thread_time
    started = now()
    until = started + seconds
    while (at := now()) < until:
        pass
    return hpcfut.get_runtime_context().get_rank(), at - started


@hpcfut.remote
def processor_seconds_here() -> float:
    return time.process_time()


def processor_seconds(n_ranks: int) -> float:
    """What all ranks have used so far."""
    refs = [
        processor_seconds_here.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(rank)).remote()
        for rank in range(n_ranks)
    ]
    used: list[float] = hpcfut.get(refs)
    return sum(used)


def busy_seconds() -> float:
    """What all programs of this machine have used of its cores since it was started."""
    fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]))
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures several rounds, and with --must fails where the share is too small."""
    parser = argparse.ArgumentParser(description="Many tasks of 1 ms, as a share of the ideal.")
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--must", action="store_true", help="fail where the share is too small")
    parser.add_argument("--small", action="store_true", help="a check of the results in seconds")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line to it")
    options = parser.parse_args()
    n_tasks, n_rounds = (200, 1) if options.small else (options.tasks, options.rounds)
    n_ranks, n_cores = len(hpcfut.nodes()), len(os.sched_getaffinity(0))
    n_at_once = min(n_ranks, n_cores)
    hpcfut.get([compute.remote(TASK_S) for _ in range(100 * n_ranks)])
    shares, shares_of_rest, others, own_us, ran = [], [], [], [], Counter[int]()
    for _ in range(n_rounds):
        used_s, busy_s = processor_seconds(n_ranks), busy_seconds()
        started = time.perf_counter()
        results = hpcfut.get([compute.remote(TASK_S) for _ in range(n_tasks)])
        took_s = time.perf_counter() - started
        busy_s, used_s = busy_seconds() - busy_s, processor_seconds(n_ranks) - used_s
        if len(results) != n_tasks or any(seconds < 0.999 * TASK_S for _, seconds in results):
            sys.exit("Not every task computed for as long as it should.")
        ran.update(rank for rank, _ in results)
        ideal_s = n_tasks * TASK_S / n_at_once
        other_s = max(busy_s - used_s, 0.0) / n_at_once
        shares.append(ideal_s / took_s)
        shares_of_rest.append(ideal_s / (took_s - other_s))
        others.append(other_s / took_s)
        own_us.append((used_s / n_tasks - TASK_S) * 1e6)
    print(f"{n_rounds} rounds of {n_tasks} tasks of 1 ms on {n_ranks} ranks and {n_at_once} cores: median (range)")
    print_table(
        [
            ("share of the ideal", "other programs", "share of the rest", "hpcfut, µs a task", "must"),
            (
                describe_spread(shares, ".3f"),
                describe_spread(others, ".3f"),
                describe_spread(shares_of_rest, ".3f"),
                describe_spread(own_us, ".0f"),
                f">= {SHARE_MUST}",
            ),
        ]
    )
    print("tasks by rank: " + ", ".join(f"{rank}: {ran[rank]}" for rank in sorted(ran)))
    print(f"result hash {hash_of([n_tasks, n_ranks, sum(ran.values())])}")
    append_json_line(
        options.output,
        benchmark="short_tasks",
        n_tasks=n_tasks,
        n_ranks=n_ranks,
        n_cores=n_at_once,
        figures={
            "tasks of 1 ms, share of the ideal": shares,
            "tasks of 1 ms, share of other programs": others,
            "tasks of 1 ms, hpcfut's µs a task": own_us,
        },
    )
    share = statistics.median(shares)
    if options.must and not options.small and share < SHARE_MUST:
        sys.exit(f"The share of the ideal is {share:.3f} and must be {SHARE_MUST}.")


if __name__ == "__main__":
    main()
