"""The benchmarks' small sizes run and give the right results; their figures mean nothing here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.mpi.jobs import CHECKOUT, Mpi, run_job

pytestmark = pytest.mark.mpi

BENCHMARKS = CHECKOUT / "benchmarks"
#: All but those on two hosts, which tests/testbed runs.
OWN = (
    "busy",
    "idle",
    "queued",
    "short",
    "many-actors",
    "task-life",
    "importing",
    "store",
    "spill",
    "core",
    "arena",
    "memory",
    "wire",
    "transport",
)
MEASURES = ("tasks", "actors", "calls", *OWN)
SYSTEMS = {"bare", "serving", "hpcfut", "mpi4py.futures", "ray", "charm4py", "dask"}
HASHES = {
    "bare": "4b38e248787e69d3",
    "serving": "4b38e248787e69d3",
    "hpcfut": "7996b6ad07bbe078",
    "mpi4py.futures": "98012db125df76cd",
    # No system call of the user's was cut short.
    "busy": "69f0e58ec6ae3056",
    "idle": "53e5f7c365a7fcc0",
    "queued": "4ec835c7ca49d02c",
    "short": "af8ea11fadfadb9f",
    "many-actors": "84bff275fb03db84",
    "task-life": "6b377d395c9a13ba",
    "importing": "0faa6dd30c7fa1cc",
    "store": "4798a42493f97f2c",
    "spill": "5765d0c62e429e81",
    "core": "93c47eef4203d0a1",
    "arena": "ceafed8f51beff89",
    "memory": "a322dea2c59a73db",
    "wire": "d543e6cd4dd040d9",
    "transport": "4eafc9fc47b707ba",
}


@pytest.fixture(scope="module")
def folder(mpi: Mpi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runner leaves after all of them."""
    path = tmp_path_factory.mktemp(mpi.name)
    options = ("--small", "--measures", *MEASURES, "--output", path)
    run_job(mpi, 1, BENCHMARKS / "run.py", *options, how="python", timeout_s=400).check()
    return path


@pytest.fixture
def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_all_results_are_right(results: dict[str, Any]) -> None:
    assert not results["failed"]
    assert {name: results["hashes"].get(name) for name in HASHES} == HASHES


def test_every_system_is_measured_or_said_to_be_missing(results: dict[str, Any]) -> None:
    assert results["rates"].keys() | results["missing"].keys() == SYSTEMS
    assert all("hpcfut[bench]" in reason for reason in results["missing"].values())
    assert results["versions"].keys() == results["rates"].keys()


def test_the_table_has_a_row_for_each_goal(results: dict[str, Any], folder: Path) -> None:
    """But for what needs a peer that is not there, and the second host."""
    n_rows = {"here": 26, "ray": 10, "charm4py": 3}
    expected = sum(n for name, n in n_rows.items() if name not in results["missing"])
    assert len(results["table"]) == expected, [row["measure"] for row in results["table"]]
    table = (folder / "table.md").read_text()
    assert all(f"| {row['measure']} | " in table for row in results["table"])


def test_the_floor(mpi: Mpi) -> None:
    job = run_job(mpi, 2, BENCHMARKS / "bare_loop.py", "--small", how="mpirun python").check()
    assert "result hash d5b052809a8c1b5c" in job.stdout, job.story()
