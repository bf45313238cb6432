"""Who started a process, and what is wrong with that, from recorded environments."""

from __future__ import annotations

import pytest

from hpcfut.edges.host.launch_environment import (
    Launch,
    mismatch,
    recognise_launch,
    recognise_library,
    singletons,
    typed_alone,
)

ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}
STEP = {**ALLOCATION, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"}
OPENMPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "PMIX_RANK": "3"}
HYDRA = {"PMI_SIZE": "4", "PMI_RANK": "2", "HYDI_CONTROL_FD": "9"}


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, Launch("none")),
        (ALLOCATION, Launch("none")),
        (OPENMPI, Launch("openmpi", 3, 4)),
        # Launch daemons are started by srun themselves, and what they start sees that.
        ({**STEP, **OPENMPI}, Launch("openmpi", 3, 4)),
        (HYDRA, Launch("mpich", 2, 4)),
        ({**STEP, **HYDRA}, Launch("mpich", 2, 4)),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, Launch("mpich", 2, 4)),
        # Both languages: Flux, say.
        ({"PMI_SIZE": "4", "PMI_RANK": "2", "PMIX_RANK": "2"}, Launch("other", 2, 4)),
        # How many processes there are, only MPI can tell.
        ({"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-a@1"}, Launch("prrte", 1, 0)),
        (STEP, Launch("slurm", 5, 8)),
        # A shell that `srun --pty` opened.
        ({**STEP, "SLURM_PTY_PORT": "40000"}, Launch("none")),
        ({**STEP, "SLURM_PTY_PORT": "40000", "PMIX_RANK": "0"}, Launch("slurm", 5, 8, "pmix")),
        ({**STEP, "PMIX_RANK": "5"}, Launch("slurm", 5, 8, "pmix")),
        ({**STEP, "PMI_SIZE": "8", "PMI_RANK": "5"}, Launch("slurm", 5, 8, "pmi")),
        ({**STEP, "PMI_FD": "8"}, Launch("slurm", 5, 8, "pmi")),
    ],
)
def test_launch_is_recognised(environ: dict[str, str], launch: Launch) -> None:
    assert recognise_launch(environ) == launch


@pytest.mark.parametrize(
    ("version", "family"),
    [
        ("Open MPI v5.0.11, package: Open MPI user@localhost", "openmpi"),
        ("MPICH Version:      5.0.2", "mpich"),
        ("CRAY MPICH version 8.1.28.15 (ANL base 3.4a2)", "mpich"),
        ("Intel(R) MPI Library 2021.14 for Linux* OS", "other"),
    ],
)
def test_library_is_recognised(version: str, family: str) -> None:
    assert recognise_library(version) == family


def test_what_fits_is_not_complained_about() -> None:
    assert not mismatch(Launch("none"), "openmpi")
    assert not mismatch(Launch("openmpi", 0, 4), "openmpi")
    assert not mismatch(Launch("mpich", 0, 4), "mpich")
    assert not mismatch(Launch("mpich", 0, 4), "other")
    assert not mismatch(Launch("prrte", 0, 0), "openmpi")
    assert not mismatch(Launch("other", 0, 4), "openmpi")
    assert not mismatch(Launch("other", 0, 4), "mpich")
    assert not mismatch(Launch("slurm", 0, 4, "pmix"), "openmpi")
    assert not mismatch(Launch("slurm", 0, 4, "pmi"), "mpich")
    # One process in a step is a script with the whole allocation to itself.
    assert not mismatch(Launch("slurm", 0, 1), "openmpi")


def test_mixtures_are_named() -> None:
    told = mismatch(Launch("openmpi", 3, 4), "mpich")
    assert "Open MPI's mpirun started this job, but mpi4py loads MPICH on rank 3" in told
    assert "mpi4py loads Open MPI" in mismatch(Launch("mpich", 0, 4), "openmpi")
    assert "prterun started this job, but mpi4py loads MPICH" in mismatch(Launch("prrte", 0, 0), "mpich")
    assert "--mpi=pmix" in mismatch(Launch("slurm", 0, 8), "openmpi")
    assert "--mpi=pmi2" in mismatch(Launch("slurm", 0, 8), "mpich")
    assert "PMI-2, which Open MPI 5 does not speak" in mismatch(Launch("slurm", 0, 8, "pmi"), "openmpi")


def test_singletons_are_named() -> None:
    launch = Launch("slurm", 0, 8, "pmix")
    told = singletons(launch, "mpich", 1)
    assert "srun started 8 processes, but each of them sees itself as the only one" in told
    assert "Say `srun --mpi=pmi2`" in told
    assert not singletons(launch, "openmpi", 8)
    assert not singletons(Launch("none"), "openmpi", 1)
    assert not singletons(Launch("prrte", 0, 0), "openmpi", 1)


def test_what_is_typed_reaches_one_rank_alone_unless_srun_gives_it_to_all() -> None:
    assert "`mpirun -n 4 python -i -c " in typed_alone(recognise_launch(OPENMPI))
    assert "MPICH's mpiexec" in typed_alone(recognise_launch(HYDRA))
    for environ in ({}, ALLOCATION, {**STEP, "PMIX_RANK": "5"}, {**HYDRA, "PMI_SIZE": "1"}):
        assert not typed_alone(recognise_launch(environ))
