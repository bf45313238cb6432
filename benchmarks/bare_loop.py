"""The floor that hpcfut is compared with: tasks between two ranks in plain mpi4py.

    mpirun -n 2 python benchmarks/bare_loop.py

A task is a pickled tuple out (number, function's name, args, kwargs), the call, and a pickled tuple
back (number, executing rank, value): one message each way, no ownership, no scheduling, no batches.
Rank 0 drives and rank 1 executes. The raw ping-pong beside it says whether the loop is a floor.

This loop blocks in MPI and knows its one peer. Beside it stands the serving loop (`serving_loop.py`), which does
neither, as any executor of several peers must. Ratios are to the blocking one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import serving_loop
from common import append_json_line, check_results, describe_spread, parse_options, print_table
from mpi4py import MPI

EXECUTOR = 1
# The fastest of 8 to 1,000: beyond about 200 the queues of unexpected messages cost more than waiting.
N_IN_FLIGHT = 64
NBYTES_PING = 64
N_PING_PONGS_MAX = 6.0

Results = list[tuple[int, int]]


def task(number: int) -> int:
    return number + 1


FUNCTIONS: dict[str, Callable[..., Any]] = {"task": task}


def serve(comm: MPI.Intracomm) -> None:
    """What the executing rank does: the phases that rank 0 names, until it names none."""
    while (phase := comm.recv(None, 0)) is not None:
        if phase == "tasks":
            _execute(comm)
        elif phase == "serve any":
            serving_loop.serve_any(comm, [task])
        else:
            _bounce(comm, phase, peer=0, first=False)


def _execute(comm: MPI.Intracomm) -> None:
    rank = comm.rank
    while (message := comm.recv(None, 0)) is not None:
        number, name, args, kwargs = message
        comm.send((number, rank, FUNCTIONS[name](*args, **kwargs)), 0)


def run_sync(comm: MPI.Intracomm, n_tasks: int) -> tuple[float, Results]:
    """Tasks one at a time: seconds for all of them, and their results."""
    results: Results = []
    comm.send("tasks", EXECUTOR)
    started = time.perf_counter()
    for number in range(n_tasks):
        comm.send((number, "task", (number,), {}), EXECUTOR)
        _, rank, value = comm.recv(None, EXECUTOR)
        results.append((rank, value))
    duration_s = time.perf_counter() - started
    comm.send(None, EXECUTOR)
    return duration_s, results


def run_async(comm: MPI.Intracomm, n_tasks: int) -> tuple[float, Results]:
    """Tasks with many in flight: seconds for all of them, and their results."""
    results: Results = [(-1, -1)] * n_tasks
    comm.send("tasks", EXECUTOR)
    started = time.perf_counter()
    n_sent = 0
    for n_received in range(n_tasks):
        while n_sent < n_tasks and n_sent - n_received < N_IN_FLIGHT:
            comm.send((n_sent, "task", (n_sent,), {}), EXECUTOR)
            n_sent += 1
        number, rank, value = comm.recv(None, EXECUTOR)
        results[number] = (rank, value)
    duration_s = time.perf_counter() - started
    comm.send(None, EXECUTOR)
    return duration_s, results


def run_ping_pong(comm: MPI.Intracomm, n_rounds: int) -> float:
    """Seconds for raw round trips of 64 bytes."""
    comm.send(n_rounds, EXECUTOR)
    started = time.perf_counter()
    _bounce(comm, n_rounds, peer=EXECUTOR, first=True)
    return time.perf_counter() - started


def _bounce(comm: MPI.Intracomm, n_rounds: int, peer: int, first: bool) -> None:
    ping, pong = bytearray(NBYTES_PING), bytearray(NBYTES_PING)
    for _ in range(n_rounds):
        if first:
            comm.Send(ping, peer)
        # MPICH's blocking Recv waits twice as long as a loop of Test, and Open MPI's as long.
        is_done = comm.Irecv(pong, peer).Test
        while not is_done():
            pass
        if not first:
            comm.Send(ping, peer)


def run_serving_sync(comm: MPI.Intracomm, n_tasks: int) -> tuple[float, Results]:
    """The same by the serving loop."""
    comm.send("serve any", EXECUTOR)
    return serving_loop.run_sync(comm, n_tasks)


def run_serving_async(comm: MPI.Intracomm, n_tasks: int) -> tuple[float, Results]:
    """The same by the serving loop."""
    comm.send("serve any", EXECUTOR)
    return serving_loop.run_async(comm, n_tasks)


FORMS = {
    "one at a time": run_sync,
    f"{N_IN_FLIGHT} in flight": run_async,
    "serving loop, one at a time": run_serving_sync,
    f"serving loop, {N_IN_FLIGHT} in flight": run_serving_async,
}


def n_ping_pongs(rates: Sequence[float], ping_pong_us: Sequence[float]) -> float:
    """How many raw ping-pongs one task takes: the median of the rounds."""
    return statistics.median(1e6 / rate / us for rate, us in zip(rates, ping_pong_us, strict=True))


def complaint(rates: Sequence[float], ping_pong_us: Sequence[float]) -> str | None:
    """A sentence where the loop, one task at a time, is too slow to be called a floor."""
    n = n_ping_pongs(rates, ping_pong_us)
    if n <= N_PING_PONGS_MAX:
        return None
    return (
        f"The bare loop takes {n:.1f} ping-pongs a task, more than {N_PING_PONGS_MAX:.0f}, and is no floor: see what "
        f"else runs on these cores."
    )


def main() -> None:
    """Measures the bare loop by itself."""
    options = parse_options("The floor: a bare mpi4py task loop, 2 ranks.", n_rounds=9)
    comm = MPI.COMM_WORLD
    if comm.size != 2:
        sys.exit(f"The bare loop needs 2 ranks and got {comm.size}: start it with mpirun -n 2.")
    if comm.rank == EXECUTOR:
        serve(comm)
        return
    n_tasks = 200 if options.small else 20_000
    ping_pong_us: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in FORMS}
    result_hash = ""
    for number in range(options.rounds + 1):
        ping_pong_us.append(run_ping_pong(comm, n_tasks) / n_tasks * 1e6)
        for name, run in FORMS.items():
            duration_s, results = run(comm, n_tasks)
            result_hash = check_results(results, n_tasks, EXECUTOR)
            rates[name].append(n_tasks / duration_s)
        if number == 0:  # A warm-up.
            for values in (ping_pong_us, *rates.values()):
                values.clear()
    comm.send(None, EXECUTOR)
    vendor = " ".join(map(str, MPI.get_vendor()))
    print(f"{vendor}, {options.rounds} rounds of {n_tasks} tasks: median (smallest to largest)")
    print(f"ping-pong of 64 B: {describe_spread(ping_pong_us, '.2f')} µs")
    rows = [("bare mpi4py loop", "tasks/s", "ping-pongs a task")]
    for name, values in rates.items():
        rows.append((name, describe_spread(values), f"{n_ping_pongs(values, ping_pong_us):.1f}"))
    print_table(rows)
    print(f"result hash {result_hash}")
    append_json_line(options.output, benchmark="bare_loop", mpi=vendor, ping_pong_us=ping_pong_us, rates=rates)
    # The small size measures nothing: it is there for its results.
    if not options.small and (sentence := complaint(rates["one at a time"], ping_pong_us)):
        sys.exit(sentence)


if __name__ == "__main__":
    main()
