"""Ranks that die and are replaced while the job goes on: Open MPI with fault tolerance, real SIGKILLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mpi.jobs import CHECKOUT, Mpi, run_job

pytestmark = [pytest.mark.mpi, pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)]
SCRIPT = Path(__file__).with_name("respawning.py")


def test_ten_ranks_in_a_row_are_killed_and_replaced(mpi: Mpi, tmp_path: Path) -> None:
    """Answers stay right, no table keeps an entry, and nothing of any process is left."""
    options = ("--fault-tolerance", "on", "--respawn")
    job = run_job(mpi, 3, SCRIPT, tmp_path, options=options, env={"PYTHONPATH": str(CHECKOUT)}, timeout_s=120)
    job.check(7)
    assert job.stdout == "three ranks\n" * 2, job.story()
