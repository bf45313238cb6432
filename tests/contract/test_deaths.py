"""The contract of `ports.Transport` where ranks die: real ones, killed, under an MPI with fault tolerance."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mpi.jobs import CHECKOUT, OPENMPI_SETTINGS, Mpi, run_command

RANKS = Path(__file__).with_name("dying_ranks.py")
ULFM = {
    **OPENMPI_SETTINGS,
    "OMPI_MCA_btl_tcp_flags": "send",
    "OMPI_MCA_osc": "^ucx",
    "PYTHONPATH": str(CHECKOUT),
}


@pytest.mark.mpi
@pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)
def test_the_living_go_on(mpi: Mpi, tmp_path: Path) -> None:
    """One rank dies that is idle, one amid large frames, two at once amid large data, one while others wait for it."""
    command = [mpi.program("mpirun"), "--with-ft", "ulfm", "-n", "8", mpi.program("python"), RANKS, tmp_path, 8]
    job = run_command([str(word) for word in command], env=ULFM, timeout_s=90)
    job.check(0)
    assert job.stdout.count("is done") == 3, job.story()


@pytest.mark.mpi
def test_stand_ins_are_seen_through(mpi: Mpi) -> None:
    """Every mpi4py has the calls of fault tolerance, also where nothing tells of deaths."""
    text = "from hpcfut.edges.mpi.start import start_mpi; from hpcfut.edges.mpi.deaths import tells_of_deaths; " + (
        "world = start_mpi(); print(tells_of_deaths()); world.finalize()"
    )
    command = [mpi.program("mpiexec"), "-n", "1", mpi.program("python"), "-c", text]
    settings = ULFM if mpi.name == "openmpi" else {"PYTHONPATH": str(CHECKOUT)}
    job = run_command(command, env=settings, timeout_s=60)
    job.check(0)
    assert job.stdout.split() == ["False"], job.story()
