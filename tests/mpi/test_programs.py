"""Every case of `programs/`, under each MPI and on several numbers of ranks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.mpi.jobs import Mpi
from tests.mpi.shared import DURATION_S, JOB_ENDS_WELL, SharedJob, SharedJobs, find_cases

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="session")
def shared_jobs(request: pytest.FixtureRequest) -> SharedJobs:
    """Jobs of what was selected, so that `-k` and a single test id start no more than they need."""
    wanted: dict[tuple[str, int], list[str]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == test_case.__name__:
            params: dict[str, Any] = dict(item.callspec.params)
            wanted.setdefault((params["mpi"], params["n_ranks"]), []).append(params["case"])
    return SharedJobs(wanted)


@pytest.fixture
def shared_job(mpi: Mpi, n_ranks: int, shared_jobs: SharedJobs) -> SharedJob:
    """The job that has the case; it is run before the first of its cases is asked for."""
    return shared_jobs.job(mpi, n_ranks)


@pytest.mark.parametrize("case", [*find_cases(), JOB_ENDS_WELL])
@pytest.mark.parametrize("n_ranks", [1, 2, 5])
def test_case(case: str, shared_job: SharedJob, request: pytest.FixtureRequest) -> None:
    request.node.stash[DURATION_S] = shared_job.outcome(case).duration_s
    shared_job.check(case)
