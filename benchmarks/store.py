"""Large objects on one host: reading, storing and passing on arrays, beside what NumPy and mpi4py.futures take.

    hpcfut run -n 2 benchmarks/store.py

Rank 1 makes arrays and rank 0 reads them. Everything is measured in turn, round by round. A private array has the same
size and values as the one that it stands beside, and its memory was written before. "Both awake" means that a few small
tasks went to rank 1 and back just before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from common import append_json_line, describe_spread, hash_of, parse_options, print_table

import hpcfut

Array = npt.NDArray[Any]

OTHER = 1
NBYTES = 64 << 20
IDLE_S = 0.1
N_WAKING = 20
SMALL_NBYTES = 1 << 20


def array_of(nbytes: int) -> Array:
    return np.arange(nbytes // 8, dtype="i8")


@hpcfut.remote
def make(nbytes: int) -> Array:
    return array_of(nbytes)


@hpcfut.remote
def build(nbytes: int) -> Array:
    array: Array = hpcfut.empty(nbytes // 8, "i8")
    array[:] = 1
    return array


@hpcfut.remote
def leave_raw(nbytes: int) -> Array:
    """As ``build``, and nobody writes it."""
    array: Array = hpcfut.empty(nbytes // 8, "i8")
    return array


@hpcfut.remote
def nothing() -> None:
    pass


@hpcfut.remote
def take(array: Array) -> None:
    pass


@hpcfut.remote
def serve_futures() -> None:
    """Rank 1 as the worker of a pool of mpi4py.futures, until rank 0 leaves it."""
    from mpi4py import MPI
    from mpi4py.futures import MPICommExecutor

    with MPICommExecutor(MPI.COMM_WORLD, root=0):
        pass


@contextmanager
def futures() -> Iterator[Any]:
    """Gives a pool of mpi4py.futures with rank 1 as its worker, which runs nothing else meanwhile."""
    from mpi4py import MPI
    from mpi4py.futures import MPICommExecutor

    serving = there(serve_futures).remote()
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
        yield pool
    hpcfut.get(serving)


def there(function: Any) -> Any:
    return function.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(OTHER))


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class Round:
    """One value of each measure."""

    def __init__(self, nbytes: int, n_times: int, idle_s: float) -> None:
        self.nbytes, self.n_times, self.idle_s = nbytes, n_times, idle_s
        self.found: dict[str, float] = {}
        self.sums: list[int] = []

    def reads(self) -> None:
        """``get`` and sums of an array that the other rank has made; each time another one."""
        private = array_of(self.nbytes)
        times: dict[str, list[float]] = {}

        def note(name: str, value: float) -> None:
            times.setdefault(name, []).append(value)

        for _ in range(self.n_times):
            for name, pause_s in (("both awake", 0.0), ("owner idle for 100 ms", self.idle_s)):
                ref = there(make).remote(self.nbytes)
                hpcfut.wait([ref])
                if pause_s:
                    time.sleep(pause_s)
                else:  # Both ranks have just had to do with each other, and the caches are warm.
                    for _ in range(N_WAKING):
                        hpcfut.get(there(nothing).remote())
                started = time.perf_counter()
                array = hpcfut.get(ref)
                got_s = time.perf_counter() - started
                note(f"get, {name}, µs", got_s * 1e6)
                if not pause_s:
                    again_s = seconds(lambda ref=ref: hpcfut.get(ref))  # type: ignore[misc]
                    first_s, second_s = seconds(array.sum), seconds(array.sum)
                    private.sum()
                    private_s = seconds(private.sum)
                    note("get again, µs", again_s * 1e6)
                    note("get and first sum, of a private sum", (got_s + first_s) / private_s)
                    note("second sum, of a private sum", second_s / private_s)
                self.sums.append(int(array.sum()))
                del array, ref
        self._take_medians(times)

    def puts(self) -> None:
        """Storing arrays into warm memory, beside a copy into warm memory; and arrays that are built in place."""
        source, target = array_of(self.nbytes), array_of(self.nbytes)
        times: dict[str, list[float]] = {}
        for _ in range(self.n_times):
            put_s = seconds(lambda: hpcfut.put(source))
            copy_s = seconds(lambda: np.copyto(target, source))
            times.setdefault("put, GB/s", []).append(self.nbytes / put_s / 1e9)
            times.setdefault("put, of a copy's bandwidth", []).append(copy_s / put_s)
            for nbytes in (self.nbytes // 64, self.nbytes):
                array = hpcfut.empty(nbytes // 8, "i8")
                array[:] = 3
                put_s = seconds(lambda array=array: hpcfut.put(array))  # type: ignore[misc]
                times.setdefault(f"put of empty, {nbytes >> 10} KiB, µs", []).append(put_s * 1e6)
                del array
        self._take_medians(times)

    def passes(self) -> None:
        """From a task to a consumer on another rank, with its sum, beside mpi4py.futures; and built, and not read."""
        nbytes = self.nbytes
        times: dict[str, list[float]] = {}
        for _ in range(self.n_times):
            times.setdefault("task to consumer, ms", []).append(
                1e3 * seconds(lambda: self.sums.append(int(hpcfut.get(there(make).remote(nbytes)).sum())))
            )
            times.setdefault("the same, built with empty, ms", []).append(
                1e3 * seconds(lambda: hpcfut.get(there(build).remote(nbytes)).sum())
            )
            times.setdefault("the same, built with empty, neither written nor read, ms", []).append(
                1e3 * seconds(lambda: hpcfut.get(there(leave_raw).remote(nbytes)))
            )
        with futures() as pool:
            for _ in range(self.n_times):
                times.setdefault("mpi4py.futures, ms", []).append(
                    1e3 * seconds(lambda: self.sums.append(int(pool.submit(np.arange, nbytes // 8).result().sum())))
                )
        self._take_medians(times)
        found = self.found
        peer = found["mpi4py.futures, ms"]
        found["mpi4py.futures, of task to consumer"] = peer / found["task to consumer, ms"]
        raw = found["the same, built with empty, neither written nor read, ms"]
        found["mpi4py.futures, of the same built with empty, not read"] = peer / raw

    def tasks(self) -> None:
        """Tasks with an object of 1 MiB as argument, and without."""
        n_tasks = 100 * self.n_times
        ref = hpcfut.put(array_of(SMALL_NBYTES))
        with_ref, without = there(take), there(nothing)
        hpcfut.get([with_ref.remote(ref), without.remote()])
        without_s = seconds(lambda: hpcfut.get([without.remote() for _ in range(n_tasks)]))
        with_s = seconds(lambda: hpcfut.get([with_ref.remote(ref) for _ in range(n_tasks)]))
        self.found["tasks with a stored argument, of tasks without"] = without_s / with_s

    def _take_medians(self, times: dict[str, list[float]]) -> None:
        self.found |= {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """All measures, round by round."""
    options = parse_options("Large objects on one host.", n_rounds=3)
    nodes = hpcfut.nodes()
    if len(nodes) != 2 or nodes[0]["Host"] != nodes[1]["Host"]:
        raise SystemExit("This needs 2 ranks on one host: hpcfut run -n 2 benchmarks/store.py")
    nbytes, n_times, idle_s = (4 << 20, 2, 0.01) if options.small else (NBYTES, 15, IDLE_S)
    figures: dict[str, list[float]] = {}
    sums: list[int] = []
    for number in range(-1, options.rounds):
        one = Round(nbytes, n_times, idle_s)
        one.reads()
        one.puts()
        one.passes()
        one.tasks()
        sums += one.sums
        if number >= 0 or options.small:  # The first round warms the memory.
            for name, value in one.found.items():
                figures.setdefault(f"store: {name}", []).append(value)
    n = nbytes // 8
    if set(sums) != {n * (n - 1) // 2}:
        raise RuntimeError(f"Some sums are wrong: {sorted(set(sums))}.")
    print_table(
        [("large objects on one host", "median (smallest to largest)")]
        + [(name.removeprefix("store: "), describe_spread(values, ",.3g")) for name, values in figures.items()]
    )
    print(f"result hash {hash_of([*figures, *sums])}")
    append_json_line(options.output, benchmark="store", figures=figures)


if __name__ == "__main__":
    main()
