"""The floor that hpcfut is compared with: tasks between two ranks in plain mpi4py.

    mpirun -n 2 python benchmarks/bare_loop.py

A task is a pickled tuple out (number, function's name, args, kwargs), the call, and a pickled tuple
back (number, executing rank, value): one message each way, no ownership, no scheduling, no batches.
Rank 0 drives and rank 1 executes. The raw ping-pong beside it says whether the loop is a floor.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import append_json_line, check_results, describe_spread, print_table
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


class Floor:
    """The bare loop's figures, one of each kind a round."""

    def __init__(self, comm: MPI.Intracomm, n_tasks: int) -> None:
        self._comm = comm
        self._n_tasks = n_tasks
        self.ping_pong_us: list[float] = []
        self.sync_rates: list[float] = []
        self.async_rates: list[float] = []
        self.result_hash = ""

    def measure(self) -> None:
        """One round; the executing rank is in `serve` meanwhile."""
        n_tasks = self._n_tasks
        self.ping_pong_us.append(run_ping_pong(self._comm, n_tasks) / n_tasks * 1e6)
        for run, rates in ((run_sync, self.sync_rates), (run_async, self.async_rates)):
            duration_s, results = run(self._comm, n_tasks)
            self.result_hash = check_results(results, n_tasks, EXECUTOR)
            rates.append(n_tasks / duration_s)

    def n_ping_pongs(self) -> float:
        """How many raw ping-pongs one task takes, one at a time: the median of the rounds."""
        pairs = zip(self.sync_rates, self.ping_pong_us, strict=True)
        return statistics.median(1e6 / rate / ping_pong_us for rate, ping_pong_us in pairs)

    def complaint(self) -> str | None:
        """A sentence where the loop is too slow to be called a floor."""
        if self.n_ping_pongs() <= N_PING_PONGS_MAX:
            return None
        return (
            f"The bare loop takes {self.n_ping_pongs():.1f} ping-pongs a task, more than "
            f"{N_PING_PONGS_MAX:.0f}, and is no floor: see what else runs on these cores."
        )


def main() -> None:
    """Measures the bare loop by itself."""
    parser = argparse.ArgumentParser(description="The floor: a bare mpi4py task loop, 2 ranks.")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks a phase")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="a check of the results in a second")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line to it")
    options = parser.parse_args()
    comm = MPI.COMM_WORLD
    if comm.size != 2:
        sys.exit(f"The bare loop needs 2 ranks and got {comm.size}: start it with mpirun -n 2.")
    if comm.rank == EXECUTOR:
        serve(comm)
        return
    n_tasks, n_rounds = (200, 2) if options.small else (options.tasks, options.rounds)
    Floor(comm, min(n_tasks, 2000)).measure()  # A warm-up.
    floor = Floor(comm, n_tasks)
    for _ in range(n_rounds):
        floor.measure()
    comm.send(None, EXECUTOR)
    vendor = " ".join(map(str, MPI.get_vendor()))
    print(f"{vendor}, {n_rounds} rounds of {n_tasks} tasks: median (smallest to largest)")
    print_table(
        [
            ("bare mpi4py loop", ""),
            ("ping-pong of 64 B, µs", describe_spread(floor.ping_pong_us, ".2f")),
            ("one at a time, tasks/s", describe_spread(floor.sync_rates)),
            (f"{N_IN_FLIGHT} in flight, tasks/s", describe_spread(floor.async_rates)),
            ("ping-pongs a task", f"{floor.n_ping_pongs():.1f}"),
            ("result hash", floor.result_hash),
        ]
    )
    append_json_line(
        options.output,
        benchmark="bare_loop",
        mpi=vendor,
        n_ranks=comm.size,
        n_tasks=n_tasks,
        ping_pong_us=floor.ping_pong_us,
        sync_rates=floor.sync_rates,
        async_rates=floor.async_rates,
    )
    # The small size measures nothing: it is there for its results.
    if not options.small and (complaint := floor.complaint()):
        sys.exit(complaint)


if __name__ == "__main__":
    main()
