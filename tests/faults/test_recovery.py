"""What goes on while ranks die: the small sizes of the benchmarks, which check every answer, and what is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.support import Faults
from tests.mpi.jobs import CHECKOUT, Mpi, run_job

pytestmark = pytest.mark.mpi

BENCHMARKS = CHECKOUT / "benchmarks"
ON = ("--fault-tolerance", "on")


@pytest.fixture
def open_mpi(mpi: Mpi) -> Mpi:
    if mpi.name != "openmpi":
        pytest.skip(f"{mpi.name} ends a job when a rank dies.")
    return mpi


def test_a_chain_and_a_task_whose_ranks_are_killed(open_mpi: Mpi) -> None:
    job = run_job(open_mpi, 5, BENCHMARKS / "recovery.py", "--small", options=ON).check()
    assert "result hash 4b217d7a7d83fccd" in job.stdout, job.story()


def test_a_short_soak(open_mpi: Mpi) -> None:
    soak = ("--inside", "--seconds", "6", "--every", "1", "--elements", "50000")
    job = run_job(open_mpi, 4, BENCHMARKS / "soak.py", *soak, options=(*ON, "--spares", "2")).check()
    assert "the spare ranks are [4, 5]\n" in job.stdout, job.story()
    assert "result hash ab4ab48f07b73e0e" in job.stdout, job.story()
    said = re.search(r"ranks were killed: \[(.+)\]", job.stdout)
    assert said is not None, job.story()
    named = re.findall(r"hpcfut: Rank (\d+) \(process \d+ on host \S+\) has died; the other ranks go on", job.stderr)
    assert sorted(named) == sorted(said.group(1).split(", ")), job.story()


@pytest.mark.parametrize("how", ["os._exit(3)", "ctypes.CDLL(None).exit(3)"])
def test_a_rank_that_leaves_without_a_word(open_mpi: Mpi, tmp_path: Path, how: str) -> None:
    job = (
        Faults(open_mpi, tmp_path)
        .run(
            "hpcfut run",
            3,
            f"""
        @hpcfut.remote(max_retries=0)
        def leave():
            {how}

        try:
            hpcfut.get(leave.options(scheduling_strategy=on(2)).remote())
        except hpcfut.exceptions.WorkerCrashedError:
            print("crashed", hpcfut.get(hpcfut.remote(lambda: "and gone on").remote()))
        mark("ready")
        sys.exit(5)
        """,
            lambda victim: None,
            options=ON,
        )
        .check(5)
    )
    assert job.stdout == "crashed and gone on\n", job.story()
    assert job.stderr.count("hpcfut: Rank 2 (process") == 1, job.story()
    assert "MPI_ABORT" not in job.stderr, job.story()
