"""Spilling beside plain file writes and reads of the same bytes:  python benchmarks/spill.py [--folder FOLDER]

A dataset of three times what is kept in memory is written, and then read back. Every write is followed by `fdatasync`,
and what the kernel keeps of the files in memory is dropped before reading, on both sides; the plain side has no
checksums. Both take one thread, group by group in turn, on the file system of one folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from common import append_json_line, describe_spread, hash_of, print_table

from hpcfut.edges.host.spill_files import SpillFiles
from hpcfut.edges.host.spill_folder import find_spill_folder

MIB = 1 << 20
N_TIMES = 3
N_OBJECTS_FILE = 4


def drop_cache(folder: Path) -> None:
    """Make the kernel forget what is in the files of this folder that are open here."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # The one that listed them.
        if path.startswith(f"{folder}/"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


class Plain:
    """One file a group of objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[int] = []

    def write(self, group: list[memoryview]) -> None:
        """A group, to the disk."""
        fd = os.open(self.folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        self.files.append(fd)
        for data in group:
            n_written = 0
            while n_written < data.nbytes:
                n_written += os.write(fd, data[n_written:])
        os.fdatasync(fd)

    def read(self, file: int, number: int, target: memoryview) -> None:
        """An object of a group."""
        n_read = 0
        while n_read < target.nbytes:
            n_read += os.preadv(self.files[file], [target[n_read:]], number * target.nbytes + n_read)

    def close(self) -> None:
        """Give the room back."""
        for fd in self.files:
            os.close(fd)


class Spilled:
    """The same through hpcfut."""

    def __init__(self, folder: Path) -> None:
        self.store = SpillFiles(find_spill_folder(str(folder), {}))
        self.files: list[int] = []

    def write(self, group: list[memoryview]) -> None:
        """A group, to the disk."""
        self.files.append(self.store.write(list(enumerate(group))).file_id)

    def read(self, file: int, number: int, target: memoryview) -> None:
        """An object of a group."""
        self.store.read(self.files[file], number, target)

    def close(self) -> None:
        """Give the room back."""
        self.store.close()


class Clock:
    """Adds up the seconds of each side."""

    def __init__(self) -> None:
        self.seconds = {Plain: 0.0, Spilled: 0.0}

    def time(self, side: Plain | Spilled, work: Callable[[], None]) -> None:
        """Do it."""
        started = time.perf_counter()
        work()
        self.seconds[type(side)] += time.perf_counter() - started


def measure(folder: Path, groups: list[list[memoryview]]) -> tuple[Clock, Clock, int]:
    """Seconds of writing and of reading, and what came back; group by group in turn, as the disk has its moods."""
    sides: list[Plain | Spilled] = [Plain(folder), Spilled(folder)]
    target = np.zeros(groups[0][0].nbytes, np.uint8).data
    writing, reading, found = Clock(), Clock(), 0
    try:
        for file, group in enumerate(groups):
            for side in sides[:: (-1) ** file]:
                writing.time(side, partial(side.write, group))
        drop_cache(folder)
        for file in range(len(groups)):
            for side in sides[:: (-1) ** file]:
                for number in range(N_OBJECTS_FILE):
                    reading.time(side, partial(side.read, file, number, target))
                    found += target[0] + target[-1]
    finally:
        for side in sides:
            side.close()
    return writing, reading, found


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Spilling beside plain file writes and reads.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="a check of the results, whose figures mean nothing")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--mib", type=int, default=512, help="kept in memory; three times as much is written")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line to it")
    options = parser.parse_args()
    if options.small:
        options.rounds, options.mib = 1, 16
    return options


def main() -> None:
    """Round after round."""
    options = parse()
    folder = find_spill_folder(str(options.folder or ""), os.environ)
    print(f"in {folder.path} ({folder.file_system or 'unknown'}) {folder.trouble}".rstrip())
    nbytes = options.mib * MIB // 8
    store = np.random.default_rng(1).integers(0, 256, options.mib * MIB, np.uint8)
    objects = [store.data[first : first + nbytes] for first in range(0, store.nbytes, nbytes)]
    groups = [objects[first : first + N_OBJECTS_FILE] for first in range(0, len(objects), N_OBJECTS_FILE)] * N_TIMES
    figures: dict[str, list[float]] = {}
    sums = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=folder.path) as made:
            writing, reading, found = measure(Path(made), groups)
        sums.append(found)
        for name, clock in (("write", writing), ("read", reading)):
            for kind, side in (("plain", Plain), ("spill", Spilled)):
                rate = N_TIMES * store.nbytes / 1e9 / clock.seconds[side]
                figures.setdefault(f"{kind} {name}, GB/s", []).append(rate)
        plain_s, spill_s = (writing.seconds[side] + reading.seconds[side] for side in (Plain, Spilled))
        figures.setdefault("spill write and read, of plain", []).append(plain_s / spill_s)
    print_table(
        [(f"{N_TIMES} × {options.mib} MiB", "median (smallest to largest)")]
        + [(name, describe_spread(values, ".2f")) for name, values in figures.items()]
    )
    print(f"of plain: {statistics.median(figures['spill write and read, of plain']):.2f} (must 0.7, goal 0.9)")
    print(f"result hash {hash_of(sorted(set(sums)))}")
    append_json_line(options.output, benchmark="spill", figures=figures)


if __name__ == "__main__":
    main()
