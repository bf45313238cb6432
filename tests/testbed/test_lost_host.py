"""A host that is lost with the launcher's own process there."""

from __future__ import annotations

import pytest

from tests.mpi.jobs import CHECKOUT, Mpi
from tests.testbed.hosts import TwoHosts

pytestmark = [pytest.mark.mpi, pytest.mark.testbed]

LOSING = CHECKOUT / "tests" / "testbed" / "losing.py"


def test_it_ends_the_job_with_a_sentence(hosts: TwoHosts, mpi: Mpi) -> None:
    if mpi.name != "openmpi":
        pytest.skip(f"{mpi.name} ends a job when a rank dies.")
    job = hosts.run(mpi, 4, LOSING).check(None)
    assert job.returncode != 0, job.story()
    assert "not reached" not in job.stdout, job.story()
    assert "hpcfut: Host host2 is lost, or cannot be reached any more" in job.stderr, job.story()
