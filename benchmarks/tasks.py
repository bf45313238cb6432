"""Tasks of hpcfut against the bare mpi4py loop, in turn in one job on the same two processes.

    mpirun -n 2 python benchmarks/bare_loop.py --output floor.jsonl
    hpcfut run -n 2 benchmarks/tasks.py --must --floor floor.jsonl

All tasks run on rank 1, every result names the rank that made it, and that is checked. The bare
loop's side on rank 1 is a task of hpcfut that serves until rank 0 has enough; it uses MPI's world,
on which hpcfut itself sends nothing. The threads
of hpcfut slow that loop all the same, which flatters hpcfut: hence the second floor, measured in a
job of its own, and the musts hold against both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from bare_loop import EXECUTOR, Floor, Results, serve
from common import append_json_line, check_results, describe_spread, print_table
from mpi4py import MPI

import hpcfut

MUSTS = {"tasks_sync": 0.3, "tasks_async": 0.5}


@hpcfut.remote
def task(number: int) -> tuple[int, int]:
    return hpcfut.get_runtime_context().get_rank(), number + 1


@hpcfut.remote
def serve_bare_loop() -> None:
    MPI.COMM_WORLD.send("ready", 0)
    serve(MPI.COMM_WORLD)


on_executor = hpcfut.NodeAffinitySchedulingStrategy(EXECUTOR, soft=False)
pinned_task = task.options(scheduling_strategy=on_executor)
pinned_server = serve_bare_loop.options(scheduling_strategy=on_executor)


def measure_floor(floor: Floor) -> None:
    """One round of the bare loop, between two rounds of hpcfut."""
    comm = MPI.COMM_WORLD
    server = pinned_server.remote()
    # The driver waits in hpcfut and not in MPI until the task has begun: it may have to send it first.
    while not comm.Iprobe(EXECUTOR):
        if hpcfut.wait([server], timeout=0.01)[0]:
            hpcfut.get(server)
    comm.recv(None, EXECUTOR)
    floor.measure()
    comm.send(None, EXECUTOR)
    hpcfut.get(server)


def run_sync(n_tasks: int) -> tuple[float, Results]:
    """Tasks one at a time: seconds for all of them, and their results."""
    started = time.perf_counter()
    results = [hpcfut.get(pinned_task.remote(number)) for number in range(n_tasks)]
    return time.perf_counter() - started, results


def run_async(n_tasks: int) -> tuple[float, Results]:
    """Tasks all submitted before the first is waited for: seconds, and their results."""
    started = time.perf_counter()
    results = hpcfut.get([pinned_task.remote(number) for number in range(n_tasks)])
    return time.perf_counter() - started, results


def read_floor(path: Path, vendor: str) -> dict[str, list[float]]:
    """The rates of the newest bare loop in the file that ran alone under this MPI."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    found = [line for line in lines if line["benchmark"] == "bare_loop" and line["mpi"] == vendor]
    if not found:
        sys.exit(
            f"{path} holds no bare loop under {vendor}: mpirun -n 2 python benchmarks/bare_loop.py --output {path}"
        )
    return {"tasks_sync": found[-1]["sync_rates"], "tasks_async": found[-1]["async_rates"]}


def main() -> None:
    """Measures in turn, prints the ratios, and with --must fails where they are too small."""
    parser = argparse.ArgumentParser(description="Tasks of hpcfut against a bare mpi4py loop.")
    parser.add_argument("--tasks", type=int, default=5000, help="tasks a phase")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--must", action="store_true", help="fail where a ratio is too small")
    parser.add_argument("--small", action="store_true", help="a check of the results in seconds")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line to it")
    parser.add_argument("--floor", type=Path, metavar="FILE", help="what bare_loop.py wrote with --output")
    options = parser.parse_args()
    n_ranks = len(hpcfut.nodes())
    if n_ranks != 2:
        sys.exit(f"This needs 2 ranks and got {n_ranks}: hpcfut run -n 2 benchmarks/tasks.py")
    n_tasks, n_rounds = (200, 2) if options.small else (options.tasks, options.rounds)
    warm_up = Floor(MPI.COMM_WORLD, min(n_tasks, 500))
    measure_floor(warm_up)
    run_sync(min(n_tasks, 500))
    run_async(min(n_tasks, 500))
    floor = Floor(MPI.COMM_WORLD, n_tasks)
    rates: dict[str, list[float]] = {name: [] for name in MUSTS}
    result_hash = ""
    for _ in range(n_rounds):
        measure_floor(floor)
        for name, run in (("tasks_sync", run_sync), ("tasks_async", run_async)):
            duration_s, results = run(n_tasks)
            result_hash = check_results(results, n_tasks, EXECUTOR)
            rates[name].append(n_tasks / duration_s)

    vendor = " ".join(map(str, MPI.get_vendor()))
    print(f"{vendor}, {n_rounds} rounds of {n_tasks} tasks: median (smallest to largest)")
    bare = {"tasks_sync": floor.sync_rates, "tasks_async": floor.async_rates}
    alone = read_floor(options.floor, vendor) if options.floor else {}
    table: list[tuple[str, ...]] = [("tasks/s", "bare loop", "hpcfut", "ratio", "bare loop alone", "ratio", "must")]
    complaints = [floor.complaint()]
    for name, must in MUSTS.items():
        ratio = statistics.median(a / b for a, b in zip(rates[name], bare[name], strict=True))
        row = [name, describe_spread(bare[name]), describe_spread(rates[name]), f"{ratio:.3f}", "not given", ""]
        if alone:
            ratio_alone = statistics.median(rates[name]) / statistics.median(alone[name])
            row[4:] = [describe_spread(alone[name]), f"{ratio_alone:.3f}"]
            ratio = min(ratio, ratio_alone)
        table.append((*row, f">= {must}"))
        if options.must and ratio < must:
            complaints.append(f"{name} reaches {ratio:.3f} of the bare loop and must reach {must}.")
    print_table(table)
    print(
        f"The raw ping-pong took {describe_spread(floor.ping_pong_us, '.2f')} µs, "
        f"and a task of the bare loop {floor.n_ping_pongs():.1f} of them."
    )
    print(f"result hash {result_hash}")
    append_json_line(
        options.output,
        benchmark="tasks",
        mpi=vendor,
        n_ranks=n_ranks,
        n_tasks=n_tasks,
        ping_pong_us=floor.ping_pong_us,
        bare=bare,
        hpcfut=rates,
        alone=alone,
    )
    # The small size measures nothing: it is there for its results.
    missed = [] if options.small else [complaint for complaint in complaints if complaint]
    if missed:
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
