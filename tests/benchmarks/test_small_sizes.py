"""The benchmarks' small sizes run and give the right results; their figures mean nothing here."""

from __future__ import annotations

import re

import pytest

from tests.mpi.jobs import CHECKOUT, CompletedJob, How, Mpi, run_job

pytestmark = pytest.mark.mpi

BENCHMARKS = CHECKOUT / "benchmarks"


def run_small(mpi: Mpi, name: str, how: How = "hpcfut run") -> CompletedJob:
    return run_job(mpi, 2, BENCHMARKS / name, "--small", how=how, timeout_s=60).check()


def find_hash(job: CompletedJob) -> str:
    found = re.search(r"result hash\s+([0-9a-f]{16})$", job.stdout, re.MULTILINE)
    assert found, job.story()
    return found[1]


def test_the_floor(mpi: Mpi) -> None:
    job = run_small(mpi, "bare_loop.py", "mpirun python")
    assert find_hash(job) == "d5b052809a8c1b5c"


def test_tasks_give_what_the_floor_gives(mpi: Mpi) -> None:
    job = run_small(mpi, "tasks.py")
    assert find_hash(job) == "d5b052809a8c1b5c"


def test_latency(mpi: Mpi) -> None:
    assert "wait 1k refs" in run_small(mpi, "latency.py").stdout


def test_a_busy_rank_answers_and_cuts_no_system_call_short(mpi: Mpi) -> None:
    assert find_hash(run_small(mpi, "busy.py")) == "69f0e58ec6ae3056"


def test_idle_ranks(mpi: Mpi) -> None:
    assert find_hash(run_small(mpi, "idle.py")) == "53e5f7c365a7fcc0"
