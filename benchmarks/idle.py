"""Ranks with nothing to do: the CPU that they take, and how soon one of them answers.

    hpcfut run -n 2 benchmarks/idle.py

After a burst of tasks the driver sleeps in `time.sleep` and rank 1 waits for work. The CPU is that of all threads of
a process, from one second after the burst on. Then one task after the other goes to rank 1, which has been idle for
100 ms each time.

What the machine itself needs stands beside it, in turn with it and after pauses as long: a byte to another Python
process that sleeps in `read`, and back; and a round of a bare mpi4py loop with rank 1, which never sleeps in it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@hpcfut.remote
def serve_bare_loop() -> None:
    """Rank 1's part of a bare loop, until it gets None."""
    from mpi4py import MPI

    while (number := MPI.COMM_WORLD.recv(source=0)) is not None:
        MPI.COMM_WORLD.send((EXECUTOR, number + 1), dest=0)


def bare_trip(number: int) -> None:
    """A round of the bare loop."""
    from mpi4py import MPI

    MPI.COMM_WORLD.send(number, dest=EXECUTOR)
    check_results([MPI.COMM_WORLD.recv(source=EXECUTOR)], 1, EXECUTOR, first=number)


@contextmanager
def bare_loop() -> Iterator[Callable[[int], None]]:
    """Gives rounds of a bare mpi4py loop, while rank 1 runs nothing else."""
    from mpi4py import MPI

    serving = serve_bare_loop.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(EXECUTOR)).remote()
    yield bare_trip
    MPI.COMM_WORLD.send(None, dest=EXECUTOR)
    hpcfut.get(serving)


@contextmanager
def echo() -> Iterator[Callable[[int], None]]:
    """Gives round trips to a process that gives back every byte."""
    code = "import os\nwhile data := os.read(0, 1): os.write(1, data)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        there, back = process.stdin.fileno(), process.stdout.fileno()

        def trip(number: int) -> None:
            os.write(there, bytes([number % 256]))
            if os.read(back, 1) != bytes([number % 256]):
                raise RuntimeError("Another byte came back.")

        trip(0)
        yield trip
        process.stdin.close()


def take_times(trip: Callable[[int], None], n_trips: int) -> list[float]:
    """Microseconds of round trips, each after a pause."""
    found = []
    for number in range(n_trips):
        time.sleep(IDLE_S)
        started = time.perf_counter()
        trip(number)
        found.append((time.perf_counter() - started) * 1e6)
    return found


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
    names = "task to an idle rank", "byte to a sleeping process", "bare mpi4py loop after a pause"
    trips: dict[str, list[float]] = {f"{name}, {kind} µs": [] for name in names for kind in ("median", "p95")}

    def task_trip(number: int) -> None:
        check_results([hpcfut.get(there.remote(number))], 1, EXECUTOR, first=number)

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
        with echo() as echo_trip:
            times = [take_times(trip, n_trips) for trip in (task_trip, echo_trip)]
        with bare_loop() as trip:
            times.append(take_times(trip, n_trips))
        for name, found in zip(names, times, strict=True):
            trips[f"{name}, median µs"].append(statistics.median(found))
            trips[f"{name}, p95 µs"].append(percentile(found, 0.95))
    figures |= trips
    print_table(
        [("ranks with nothing to do", "median (smallest to largest)")]
        + [(name, describe_spread(values, ".2f")) for name, values in figures.items()]
    )
    print(f"result hash {result_hash}")
    append_json_line(options.output, benchmark="idle", figures=figures)


if __name__ == "__main__":
    main()
