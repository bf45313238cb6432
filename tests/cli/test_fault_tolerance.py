"""Whether a job is to go on when ranks die: what the user wants, and what the MPI can do."""

from __future__ import annotations

import pytest

from hpcfut.cli.fault_tolerance import is_one_host, settle
from hpcfut.cli.launchers import Launcher

OPENMPI = Launcher("openmpi", "/env/bin/mpiexec", "5.0.11")
MPICH = Launcher("mpich", "/env/bin/mpiexec", "5.0.2")


def settled(
    wish: str = "auto",
    launcher: Launcher | None = OPENMPI,
    *,
    n_spares: int = 0,
    is_spmd: bool = False,
    has_rdma: bool = False,
    is_one_host: bool = True,
    **environ: str,
) -> tuple[bool, str]:
    return settle(wish, n_spares, launcher, environ, is_spmd=is_spmd, has_rdma=has_rdma, is_one_host=is_one_host)


def test_it_is_on_where_it_costs_nothing() -> None:
    assert settled() == (True, "")
    assert settled(has_rdma=True) == (True, "")
    assert settled(is_one_host=False) == (True, "")
    assert settled(n_spares=2) == (True, "")
    assert settled("off") == (False, "")


def test_it_is_off_where_it_would_cost_the_fast_path_unless_it_is_wanted() -> None:
    assert settled(has_rdma=True, is_one_host=False) == (False, "")
    assert settled("on", has_rdma=True, is_one_host=False) == (True, "")
    assert settled(OMPI_MCA_pml="ucx") == (False, "")


def test_it_means_nothing_to_one_rank() -> None:
    assert settled("on", None) == (False, "")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"launcher": MPICH}, "MPICH ends a job when a rank dies. Take Open MPI 5"),
        ({"launcher": Launcher("openmpi", "/usr/bin/mpiexec", "4.1.4")}, "take version 5"),
        ({"is_spmd": True}, "every rank runs the script"),
        ({"HPCFUT_ROUTE": "rma"}, "Leave one of the two out"),
        ({"OMPI_MCA_btl_tcp_flags": "put"}, "Set it to send"),
    ],
)
def test_it_is_off_where_it_cannot_be_and_refused_if_it_is_wanted(how: dict[str, object], words: str) -> None:
    assert settled(**how) == (False, "")  # type: ignore[arg-type]
    is_on, sentence = settled("on", **how)  # type: ignore[arg-type]
    assert not is_on
    assert sentence.startswith("--fault-tolerance on cannot be: ")
    assert words in sentence
    is_on, sentence = settled(n_spares=1, **how)  # type: ignore[arg-type]
    assert not is_on
    assert sentence.startswith("--spares 1 needs fault tolerance")
    assert words in sentence


def test_spare_ranks_need_it() -> None:
    assert "rules out" in settled("off", n_spares=1)[1]
    assert "Say --fault-tolerance on" in settled(n_spares=1, has_rdma=True, is_one_host=False)[1]


def test_hosts_are_counted_as_far_as_can_be() -> None:
    assert is_one_host("", "", {})
    assert is_one_host("a:2,a:2", "", {"SLURM_JOB_NUM_NODES": "2"})
    assert is_one_host("", "", {"SLURM_JOB_NUM_NODES": "1"})
    assert not is_one_host("a:2,b", "", {})
    assert not is_one_host("", "--hostfile hosts", {})
    assert not is_one_host("", "", {"SLURM_JOB_NUM_NODES": "2"})
    assert not is_one_host("", "", {"PBS_NODEFILE": "/nodes"})
