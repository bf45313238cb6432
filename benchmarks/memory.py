"""What storing and viewing an object costs beside a plain copy, without MPI:  python benchmarks/memory.py

Everything is done in turn in each round: a copy between two private arrays, the same copy into the memory of this rank
(buffer, copy and seal), warm and fresh, views of it, and mapping the memory of another process.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import append_json_line, describe_spread, hash_of, parse_options, print_table

from hpcfut.edges.host.arena import HostArena
from hpcfut.model.place import Place
from hpcfut.model.segment import NBYTES_HEADER

NBYTES = 64 << 20
N_VIEWS = 10_000
N_COPIES = 15
#: What the neighbour runs: it tells its card, and stays until this process has closed its input.
NEIGHBOUR = """
import sys
from hpcfut.edges.host.arena import HostArena
arena = HostArena(1, int(sys.argv[1]))
arena.buffer(0, 8)[:] = b"neighbor"
arena.seal(0, 7, 8)
print(arena.card().hex(), flush=True)
sys.stdin.read()
"""


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Store:
    """The memory of this rank, and how an object gets there."""

    def __init__(self, source: np.ndarray, n_objects: int) -> None:
        self.source = source
        self.nbytes = source.nbytes
        self.arena = HostArena(0, n_objects * (self.nbytes + NBYTES_HEADER))

    def put(self, number: int) -> None:
        """As the ``number``-th segment."""
        offset = number * (self.nbytes + NBYTES_HEADER)
        np.frombuffer(self.arena.buffer(offset, self.nbytes), np.uint8)[:] = self.source
        self.arena.seal(offset, number + 1, self.nbytes)

    def view(self, number: int) -> memoryview:
        """The ``number``-th segment."""
        return self.arena.view(Place(number + 1, 0, number * (self.nbytes + NBYTES_HEADER), self.nbytes))


def measure_round(figures: dict[str, list[float]], source: np.ndarray, target: np.ndarray, n_views: int) -> None:
    """Everything once, in fresh memory."""
    store = Store(source, 4)
    first = seconds(lambda: store.put(0))
    time.sleep(2 * first)  # The next pages are made ready in the background.
    second = seconds(lambda: store.put(1))
    copies = [
        (seconds(lambda: target.__setitem__(slice(None), source)), seconds(lambda: store.put(0)))
        for _ in range(N_COPIES)
    ]
    copy, warm = (min(column) for column in zip(*copies, strict=True))
    gigabytes = source.nbytes / 1e9
    figures.setdefault("private copy, GB/s", []).append(gigabytes / copy)
    figures.setdefault("put into warm memory, of a private copy", []).append(copy / warm)
    figures.setdefault("put into fresh memory, GB/s", []).append(gigabytes / first)
    figures.setdefault("the next one, made ready meanwhile, GB/s", []).append(gigabytes / second)
    if not np.array_equal(np.frombuffer(store.view(0), np.uint8), source):
        raise RuntimeError("What was put does not come back.")
    viewed = seconds(lambda: deque((store.view(0) for _ in range(n_views)), maxlen=0))
    figures.setdefault("view and drop it, µs", []).append(viewed / n_views * 1e6)
    store.arena.close()


def measure_meeting(figures: dict[str, list[float]], nbytes: int) -> None:
    """Map the memory of another process, and view something there."""
    arena = HostArena(0, 4096)
    command = [sys.executable, "-c", NEIGHBOUR, str(nbytes)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as neighbour:
        assert neighbour.stdout is not None
        card = bytes.fromhex(neighbour.stdout.readline())
        met = seconds(lambda: arena.meet({1: card}))
        if bytes(arena.view(Place(7, 1, 0, 8))) != b"neighbor":
            raise RuntimeError("The neighbour's object cannot be read.")
        figures.setdefault("mapping the memory of a neighbour, ms", []).append(met * 1e3)
    arena.close()


def main() -> None:
    """All rounds."""
    options = parse_options("What storing and viewing an object costs beside a plain copy.", n_rounds=7)
    nbytes, n_views = (1 << 20, 100) if options.small else (NBYTES, N_VIEWS)
    source = np.random.default_rng(1).integers(0, 256, nbytes, np.uint8)
    target = np.zeros_like(source)
    figures: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        measure_round(figures, source, target, n_views)
        measure_meeting(figures, 16 * nbytes)
    header = (f"objects of {nbytes >> 20} MiB", "median (smallest to largest)")
    print_table([header, *((name, describe_spread(values, ",.2f")) for name, values in figures.items())])
    print(f"result hash {hash_of(list(figures))}")
    append_json_line(options.output, benchmark="memory", figures=figures)


if __name__ == "__main__":
    main()
