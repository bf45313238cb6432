"""Ranks of one host that do as if they shared no memory, so that all objects travel: awkward moments of that."""

from __future__ import annotations

import re

import pytest

from tests.mpi.jobs import CHECKOUT, Mpi, run_job

APART = CHECKOUT / "tests" / "mpi" / "apart.py"


@pytest.mark.mpi
@pytest.mark.parametrize("route", ["two-sided", "rma"])
def test_large_objects_at_awkward_moments(mpi: Mpi, route: str) -> None:
    env = {"HPCFUT_ONE_HOST": "no", "HPCFUT_ROUTE": route, "PYTHONPATH": str(CHECKOUT)}
    job = run_job(mpi, 2, APART, env=env, timeout_s=90).check()
    ends_s = [float(took_s) for took_s in re.findall(r"ended within (.*) s", job.stdout)]
    # A rank that waits for what does not come gives up after 4.5 s, and ends the job.
    assert len(ends_s) == 2, job.story()
    assert max(ends_s) < 3.0, job.story()
