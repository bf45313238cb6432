"""Deaths across the cable, where a call to a dead rank may never return: its MPI is Open MPI with fault tolerance."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mpi.jobs import CHECKOUT, OPENMPI_SETTINGS, Mpi, job_command
from tests.testbed.hosts import TwoHosts

pytestmark = [pytest.mark.mpi, pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)]
RANKS = CHECKOUT / "tests" / "contract" / "dying_ranks.py"
DYING = CHECKOUT / "tests" / "testbed" / "dying.py"
NETWORK = "10.77.0.0/24"
#: Rounds of eight ranks and four spares, of which four die or more; twenty of them take some minutes.
N_ROUNDS = int(os.environ.get("HPCFUT_TEST_ROUNDS", "2"))


def test_the_living_go_on(mpi: Mpi, hosts: TwoHosts, tmp_path: Path) -> None:
    """Senders, receivers and unmatched receivers of large data die, and in the end all ranks of a host have."""
    there = hosts.seen(mpi)
    launch = [there.program("mpirun"), "--with-ft", "ulfm", "-n", "8", "--host", "host1:4,host2:4", "--map-by", "slot"]
    network = ["--prtemca", "prte_if_include", NETWORK, "--mca", "btl_tcp_if_include", NETWORK]
    command = [*launch, *network, there.program("python"), str(RANKS), str(tmp_path), "4"]
    settings = {key: value for key, value in OPENMPI_SETTINGS.items() if not key.startswith("PRTE_MCA")}
    crossed = hosts.nbytes_crossed()
    job = hosts.start(mpi, command, env={**settings, "OMPI_MCA_btl_tcp_flags": "send", "OMPI_MCA_osc": "^ucx"})
    job.check(0)
    assert job.stdout.count("is done") == 3, job.story()
    assert hosts.nbytes_crossed() - crossed > 50_000_000


@pytest.mark.parametrize("number", range(N_ROUNDS))
def test_the_job_goes_on(mpi: Mpi, hosts: TwoHosts, number: int) -> None:
    """In every other round all ranks of the second host die, which are four of eight and all spares."""
    kind = ("host", "some")[number % 2]
    command = job_command(
        hosts.seen(mpi), 8, DYING, kind, number, options=["--spares", "4", "--hosts", "host1:4,host2:8"]
    )
    job = hosts.start(mpi, command).check(0)
    assert "died, and all was right" in job.stdout, job.story()
