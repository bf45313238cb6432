"""Ranks that die where the job survives it: Open MPI with fault tolerance, real SIGKILLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.support import Faults, check_end
from tests.mpi.jobs import CHECKOUT, How, Mpi, run_job

pytestmark = [pytest.mark.mpi, pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)]
SCRIPT = Path(__file__).with_name("surviving.py")
TOLERANT = ("--fault-tolerance", "on")


def test_all_but_two_ranks_die(mpi: Mpi, tmp_path: Path) -> None:
    """Who executes, who holds, who owns and borrows, several at once, and one more while what another held is made."""
    job = run_job(mpi, 9, SCRIPT, tmp_path, options=TOLERANT, env={"PYTHONPATH": str(CHECKOUT)}, timeout_s=90)
    job.check(7)
    assert job.stdout == "it ends well\n", job.story()
