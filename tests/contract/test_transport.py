"""The contract of `ports.Transport`, over the loopback and over MPI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpcfut.edges.host.loopback import LoopbackTransport
from hpcfut.model.errors import HpcfutError
from hpcfut.ports import Transport
from tests.contract.transport_body import BODY, check_barrier
from tests.mpi.jobs import CHECKOUT, OPENMPI_SETTINGS, Mpi, run_job

RANKS = Path(__file__).with_name("transport_ranks.py")


@pytest.mark.parametrize("check", BODY, ids=lambda check: check.__name__)
def test_loopback(check: Callable[[Transport], None], tmp_path: Path) -> None:
    transport = LoopbackTransport()
    check(transport)
    assert not transport.is_busy
    check_barrier(transport, tmp_path)
    transport.close()


def test_loopback_has_one_rank() -> None:
    with pytest.raises(HpcfutError, match="the job has one rank"):
        LoopbackTransport().send(1, b"")


def run_ranks(mpi: Mpi, n_ranks: int, who: str, folder: Path, route: str = "two-sided", **env: str) -> None:
    env |= {**OPENMPI_SETTINGS, "PYTHONPATH": str(CHECKOUT), "OMPI_MCA_osc": "^ucx"}
    job = run_job(mpi, n_ranks, RANKS, folder, who, route, how="mpirun python", env=env, timeout_s=120)
    job.check()
    assert job.stdout.count("is done") == n_ranks, job.story()


@pytest.mark.mpi
@pytest.mark.parametrize(("n_ranks", "who"), [(2, "ours"), (3, "ours"), (2, "users")])
def test_mpi(mpi: Mpi, n_ranks: int, who: str, tmp_path: Path) -> None:
    run_ranks(mpi, n_ranks, who, tmp_path)


@pytest.mark.mpi
@pytest.mark.parametrize("n_ranks", [2, 3])
def test_mpi_one_sided(mpi: Mpi, n_ranks: int, tmp_path: Path) -> None:
    """Data are read out of windows; the ranks are inside MPI all the time, which it may need on one host."""
    run_ranks(mpi, n_ranks, "ours", tmp_path, "one-sided")


@pytest.mark.mpi
@pytest.mark.parametrize("mpi", ["mpich"], indirect=True)
def test_mpi_that_takes_each_rank_for_a_host(mpi: Mpi, tmp_path: Path) -> None:
    """The way that frames take between hosts, where there is one only."""
    run_ranks(mpi, 3, "ours", tmp_path, MPIR_CVAR_NOLOCAL="1")
