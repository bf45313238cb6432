"""The benchmarks' small sizes run and give the right results; their figures mean nothing here."""

from __future__ import annotations

import json
import re
from pathlib import Path

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


def test_the_runner_measures_every_system_that_is_there(mpi: Mpi, tmp_path: Path) -> None:
    what = ("--measures", "tasks", "calls", "importing", "core")
    job = run_job(mpi, 1, BENCHMARKS / "run.py", "--small", *what, "--output", tmp_path, how="python", timeout_s=120)
    results = json.loads((tmp_path / "results.json").read_text())
    systems = {"bare", "serving", "hpcfut", "mpi4py.futures", "ray", "charm4py", "dask"}
    assert results["rates"].keys() | results["missing"].keys() == systems, job.check().story()
    assert not results["failed"], job.story()
    assert all("hpcfut[bench]" in reason for reason in results["missing"].values())
    assert results["hashes"]["hpcfut"] == "a43338d433b81147"
    assert results["hashes"]["bare"] == results["hashes"]["serving"] == "fe4f9637e7294fa1"
    table = (tmp_path / "table.md").read_text()
    assert "| tasks one at a time, of the bare mpi4py loop | " in table
    assert "| import hpcfut | " in table


def test_a_busy_rank_answers_and_cuts_no_system_call_short(mpi: Mpi) -> None:
    assert find_hash(run_small(mpi, "busy.py")) == "69f0e58ec6ae3056"


def test_the_life_of_a_task(mpi: Mpi) -> None:
    assert find_hash(run_small(mpi, "task_life.py")) == "1e5b5a7ceb8fd7de"


def test_idle_ranks(mpi: Mpi) -> None:
    assert find_hash(run_small(mpi, "idle.py")) == "53e5f7c365a7fcc0"
