"""The object store under pressure, for seconds here; ``python -m hpcfut tests/stress/store.py 600`` runs for minutes.

Many times the memory goes through it, by all ways and on all ranks; every byte is looked at, every invariant of every
core checked in the end, and nothing may be left: no segment, no view, no loan, no file.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mpi.jobs import Mpi, run_job

pytestmark = pytest.mark.mpi

SECONDS = 4


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_much_more_than_memory_goes_through(mpi: Mpi, n_ranks: int) -> None:
    job = run_job(mpi, n_ranks, Path(__file__).with_name("store.py"), SECONDS, n_ranks)
    job.check(0)
    assert "with files" in job.stdout
