"""Two jobs at once on one host: each sees its own ranks only, and the death of one is not the other's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.support import Faults, Victim, check_end, check_name
from tests.mpi.jobs import How, Mpi

pytestmark = pytest.mark.mpi

WAITS = """
@hpcfut.remote
def look(rank):
    return rank, os.getpid(), bytes(200_000)

def ask():
    refs = [look.options(scheduling_strategy=on(rank)).remote(rank) for rank in range(n_ranks)]
    return [(rank, pid) for rank, pid, _ in hpcfut.get(refs)]

before = ask()
mark("ready")
deadline = time.monotonic() + 60
while not os.path.exists(os.path.join(folder, "go on")) and time.monotonic() < deadline:
    assert ask() == before
assert ask() == before
print(n_ranks)
"""


@pytest.mark.parametrize("how", ["mpirun python -m hpcfut", "hpcfut run"])
def test_a_neighbour_dies(mpi: Mpi, tmp_path: Path, how: How) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one, other = Faults(mpi, tmp_path / "one"), Faults(mpi, tmp_path / "other")
    with ThreadPoolExecutor(1) as pool:
        living = pool.submit(one.run, how, 2, WAITS, lambda victim: None)

        def kill_beside(victim: Victim) -> None:
            # Both are in the middle of their work.
            for mark in ("ready", "rank-0", "rank-1"):
                victim.job.wait_for(one.folder / mark)
            victim.kill_rank(2)

        try:
            dead = other.run(how, 3, WAITS, kill_beside)
        finally:
            (one.folder / "go on").touch()
        survivor = living.result()
    check_end(dead)
    check_name(dead, mpi, how, 2, other.pid(2))
    survivor.check()
    assert survivor.stdout == "2\n", survivor.story()
    assert len({one.pid(0), one.pid(1), other.pid(0), other.pid(1), other.pid(2)}) == 5
