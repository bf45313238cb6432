"""Ranks without MPI that pass tokens to each other through a shared page, and sleep on their doorbells in between.

Usage: doorbell_ranks.py RANK N_RANKS FOLDER N_PASSES. A token is passed as a frame is: written first, and rung for
after that. The sleeps are long, so that a single ring that is lost fails the test.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hpcfut.edges.host.doorbell import HostDoorbell

DEADLINE_S = 60.0


def gather(folder: Path, what: str, rank: int, n_ranks: int, data: bytes) -> list[bytes]:
    """The bytes of all ranks, through files."""
    (folder / f"{what}-{rank}.part").write_bytes(data)
    (folder / f"{what}-{rank}.part").rename(folder / f"{what}-{rank}")
    paths = [folder / f"{what}-{other}" for other in range(n_ranks)]
    deadline = time.monotonic() + DEADLINE_S
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"Rank {rank} waits for {what}."
        time.sleep(0.001)
    return [path.read_bytes() for path in paths]


def hang_doorbell(folder: Path, rank: int, n_ranks: int) -> HostDoorbell:
    names = iter(("cards", "answers"))
    ranks = range(n_ranks)
    doorbell = HostDoorbell.among(ranks, rank, n_ranks, lambda data: gather(folder, next(names), rank, n_ranks, data))
    assert doorbell.reaches_all
    return doorbell


def sleep_until(doorbell: HostDoorbell, look: Callable[[], bool]) -> int:
    """As a rank does; returns how often it really slept."""
    n_sleeps = 0
    while True:
        doorbell.lie_down()
        if look() or look():
            doorbell.get_up()
            return n_sleeps
        assert doorbell.sleep(DEADLINE_S), "Nobody rang."
        doorbell.get_up()
        n_sleeps += 1


def main(rank: int, n_ranks: int, folder: Path, n_passes: int) -> None:
    doorbell = hang_doorbell(folder, rank, n_ranks)
    with (folder / "tokens").open("r+b") as file:
        page = mmap.mmap(file.fileno(), n_ranks * n_ranks * 4)
    # From the row of a rank to the column of another one: how many tokens were ever passed.
    passed = memoryview(page).cast("I", (n_ranks, n_ranks))
    taken = [0] * n_ranks
    choose = random.Random(rank)

    def look() -> bool:
        return any(passed[other, rank] > taken[other] for other in range(n_ranks))

    def give() -> None:
        other = choose.choice([other for other in range(n_ranks) if other != rank])
        passed[rank, other] += 1
        if doorbell.asleep[other]:
            doorbell.ring(other)

    give()
    n_sleeps, n_left = 0, n_passes
    while n_left:
        n_sleeps += sleep_until(doorbell, look)
        for other in range(n_ranks):
            while passed[other, rank] > taken[other]:
                taken[other] += 1
                n_left = max(n_left - 1, 0)
                # Now and then long enough for others to fall asleep.
                if not choose.randrange(50):
                    time.sleep(0.0005)
                give()
    # Its tokens would be missed by others.
    (folder / f"done-{rank}").touch()
    while not all((folder / f"done-{other}").exists() for other in range(n_ranks)):
        if look():
            for other in range(n_ranks):
                while passed[other, rank] > taken[other]:
                    taken[other] += 1
                    give()
        os.sched_yield()
    doorbell.close()
    print(f"rank {rank} slept {n_sleeps} times")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
