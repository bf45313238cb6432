"""Ranks with nothing to do: the CPU that they take, and how soon one of them answers.

    hpcfut run -n 2 benchmarks/idle.py

After a burst of tasks the driver sleeps in `time.sleep` and rank 1 waits for work. The CPU is that of all threads of
a process, from one second after the burst on. Then one task after the other goes to rank 1, which has been idle for
100 ms each time.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from common import append_json_line, check_results, describe_spread, parse_options, percentile, print_table

import hpcfut

EXECUTOR = 1
N_BURST = 10_000
IDLE_S = 0.1


@hpcfut.remote
def task(number: int) -> tuple[int, int]:
    return hpcfut.get_runtime_context().get_rank(), number + 1


@hpcfut.remote
def own_pid() -> int:
    return os.getpid()


def cpu_s(pid: int) -> float:
    """Seconds of CPU that all threads of a process of this host have had."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def main() -> None:
    """The CPU of both ranks, and round trips to one that idles."""
    options = parse_options("Ranks with nothing to do.", n_rounds=3)
    nodes = hpcfut.nodes()
    if len(nodes) != 2 or nodes[0]["Host"] != nodes[1]["Host"]:
        raise SystemExit("This needs 2 ranks on one host: hpcfut run -n 2 benchmarks/idle.py")
    window_s, n_burst, n_trips = (0.5, 500, 3) if options.small else (10.0, N_BURST, 100)
    there = task.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(EXECUTOR))
    pid = hpcfut.get(own_pid.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(EXECUTOR)).remote())
    figures: dict[str, list[float]] = {"waiting worker, % of a core": [], "driver in time.sleep, % of a core": []}
    trips: dict[str, list[float]] = {"task to an idle rank, median µs": [], "task to an idle rank, p95 µs": []}
    result_hash = ""
    for _ in range(options.rounds):
        results = hpcfut.get([there.remote(number) for number in range(n_burst)])
        result_hash = check_results(results, n_burst, EXECUTOR)
        time.sleep(min(1.0, window_s))
        before = cpu_s(pid), cpu_s(os.getpid())
        started = time.monotonic()
        time.sleep(window_s)
        after = cpu_s(pid), cpu_s(os.getpid())
        duration_s = time.monotonic() - started
        for name, one, other in zip(figures, before, after, strict=True):
            figures[name].append((other - one) / duration_s * 100)
        found: list[float] = []
        for number in range(n_trips):
            time.sleep(IDLE_S)
            started = time.perf_counter()
            result = hpcfut.get(there.remote(number))
            found.append((time.perf_counter() - started) * 1e6)
            check_results([result], 1, EXECUTOR, first=number)
        trips["task to an idle rank, median µs"].append(statistics.median(found))
        trips["task to an idle rank, p95 µs"].append(percentile(found, 0.95))
    figures |= trips
    print_table(
        [("ranks with nothing to do", "median (smallest to largest)")]
        + [(name, describe_spread(values, ".2f")) for name, values in figures.items()]
    )
    print(f"result hash {result_hash}")
    append_json_line(options.output, benchmark="idle", figures=figures)


if __name__ == "__main__":
    main()
