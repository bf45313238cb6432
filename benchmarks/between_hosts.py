"""A 64 MiB object from another host: `get` of it, beside what plain mpi4py does on the same link, in turn.

    python benchmarks/two_hosts.py --spmd benchmarks/between_hosts.py       (root)

Both ranks run this script. Each round moves the same number of bytes by `Isend` and `Irecv` and by `Rget`, with the
other rank inside MPI, in chunks of 16 MiB that are all under way at once; then, in a session, rank 0 gets objects of
rank 1 while that waits and while it runs a user's task; then the plain ways again, so that what else the machine does
meanwhile hits both. Ratios are those of each round.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import append_json_line, describe_spread, hash_of, parse_options, print_table
from mpi4py import MPI
from user_code import CODES as ALL_CODES

import hpcfut

NBYTES_CHUNK = 16 << 20
N_WARM_UP = 2
#: A session begins with memory that nobody has touched, and makes pages ready, and large, beside its first objects.
N_WARM_UP_OF_SESSION = 8
#: How the rank that holds the objects spends its time.
WAITING = "waits"
#: So long it is busy for one object at most.
BUSY_S = 0.6

CODES = {kind: ALL_CODES[kind] for kind in ("pure Python", "NumPy")}

on_holder = hpcfut.NodeAffinitySchedulingStrategy(1)


@hpcfut.remote(scheduling_strategy=on_holder)
def make(number: int, nbytes: int) -> Any:
    """An object on rank 1."""
    return np.full(nbytes // 8, number, np.float64)


@hpcfut.remote(scheduling_strategy=on_holder)
def be_busy(kind: str, duration_s: float) -> None:
    """A user's task on rank 1."""
    CODES[kind](time.monotonic() + duration_s)


class Raw:
    """Plain mpi4py between two ranks."""

    def __init__(self, nbytes: int) -> None:
        self.comm = MPI.COMM_WORLD.Dup()
        self.rank = self.comm.Get_rank()
        self.memory = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
        self.memory[:] = 1 - self.rank
        self._source = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
        self._source[:] = self.rank
        self.window = MPI.Win.Create(self._source, 1, comm=self.comm)
        self.window.Lock_all()
        self._chunks = range(0, nbytes, NBYTES_CHUNK)

    def two_sided(self) -> None:
        """The bytes of rank 1 come to rank 0."""
        if self.rank:
            requests = [self.comm.Isend(self._source[at : at + NBYTES_CHUNK], 0, 1) for at in self._chunks]
        else:
            requests = [self.comm.Irecv(self.memory[at : at + NBYTES_CHUNK], 1, 1) for at in self._chunks]
        MPI.Request.Waitall(requests)

    def one_sided(self) -> None:
        """Rank 0 reads the bytes of rank 1, which is inside MPI meanwhile."""
        if not self.rank:
            ends = [(at, min(at + NBYTES_CHUNK, len(self.memory))) for at in self._chunks]
            MPI.Request.Waitall(
                [self.window.Rget(self.memory[at:end], 1, (at, end - at, MPI.BYTE)) for at, end in ends]
            )
        self.comm.Barrier()

    def time(self, move: Callable[[], None], n_times: int) -> list[float]:
        """What it takes, in seconds, each time anew."""
        took_s = []
        for _ in range(n_times + N_WARM_UP):
            self.memory[:] = 77
            self.comm.Barrier()
            started = time.perf_counter()
            move()
            took_s.append(time.perf_counter() - started)
            assert self.rank or int(self.memory.max()) == int(self.memory.min()) == 1
        return took_s[N_WARM_UP:]

    def close(self) -> None:
        """Give everything back."""
        self.window.Unlock_all()
        self.window.Free()
        self.comm.Free()


def time_get(kind: str, nbytes: int, n_times: int) -> list[float]:
    """What `get` of objects of rank 1 takes, in seconds."""
    took_s = []
    for number in range(n_times + N_WARM_UP):
        ref = make.remote(number, nbytes)
        hpcfut.wait([ref], fetch_local=False)
        busy = None if kind == WAITING else be_busy.remote(kind, BUSY_S)
        time.sleep(0.02)
        started = time.perf_counter()
        value = hpcfut.get(ref)
        took_s.append(time.perf_counter() - started)
        if busy is not None:
            assert hpcfut.wait([busy], timeout=0)[1], "The holder was not busy for long enough."
            hpcfut.get(busy)
        assert float(value[0]) == float(value[-1]) == number
    return took_s[N_WARM_UP:]


def main() -> None:
    """Measure and print."""
    options = parse_options(__doc__ or "", 5)
    nbytes, n_times, n_warm_up = (1 << 20, 1, 1) if options.small else (64 << 20, 5, N_WARM_UP_OF_SESSION - N_WARM_UP)
    gb_s: dict[str, list[float]] = {}
    # Over TCP a holder that computes would serve a one-sided read for seconds; no job chooses that.
    kinds = (WAITING,) if os.environ.get("HPCFUT_ROUTE") == "rma" else (WAITING, *CODES)
    raw = Raw(nbytes)
    raw_ways = {"Isend/Irecv": raw.two_sided, "Rget": raw.one_sided}
    ratios: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        took = {name: raw.time(move, n_times) for name, move in raw_ways.items()}
        hpcfut.init()
        if not raw.rank:
            time_get(WAITING, nbytes, n_warm_up)
            took |= {f"get, holder {kind}": time_get(kind, nbytes, n_times) for kind in kinds}
        hpcfut.shutdown()
        for name, move in raw_ways.items():
            took[name] += raw.time(move, n_times)
        of_round = {name: statistics.median(times) for name, times in took.items()}
        for name, times in took.items():
            gb_s.setdefault(name, []).extend(nbytes / took_s / 1e9 for took_s in times)
            ratios.setdefault(name, []).append(min(of_round[way] for way in raw_ways) / of_round[name])
    raw.close()
    if raw.rank:
        return
    rows = [["measure", "GB/s", "of the best raw way", "best of both"]]
    for name, values in gb_s.items():
        of_best = max(values) / max(max(gb_s[way]) for way in raw_ways)
        rows.append([name, describe_spread(values, ".2f"), describe_spread(ratios[name], ".2f"), f"{of_best:.2f}"])
    print_table(rows)
    print(f"result hash {hash_of([nbytes, list(gb_s)])}")
    append_json_line(options.output, nbytes=nbytes, gb_s=gb_s, ratios=ratios)


if __name__ == "__main__":
    main()
