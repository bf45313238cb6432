"""Ranks that were started wrongly or do not fit together: one sentence, a failure, and nobody waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mpi.jobs import OPENMPI_SETTINGS, CompletedJob, Mpi, environments, run_command

pytestmark = pytest.mark.mpi


@pytest.fixture
def other(mpi: Mpi) -> Mpi:
    """The other MPI."""
    found = next((found for found in environments().values() if found.name != mpi.name), None)
    if found is None:
        pytest.skip("There is only one environment: launch/test.sh makes one for each MPI.")
    return found


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """What must not run."""
    path = tmp_path / "script.py"
    path.write_text("import hpcfut\nhpcfut.init()\nprint('not reached')\n")
    return path


def check(job: CompletedJob, sentence: str) -> None:
    """The sentence stands in what was printed, once, the job has failed, and nothing is left of it."""
    # MPICH's launcher may find ranks that are about to leave, and report that it killed them.
    assert job.check(returncode=None).returncode, job.story()
    assert job.stderr.count(sentence) == 1, job.story()
    assert job.stderr.count("hpcfut: ") <= 1, job.story()
    assert "not reached" not in job.stdout


@pytest.mark.parametrize("how", [["-m", "hpcfut"], []], ids=["-m hpcfut", "init()"])
def test_another_launcher(mpi: Mpi, other: Mpi, script: Path, how: list[str]) -> None:
    ranks = [mpi.program("mpiexec"), "-n", "3", other.program("python"), *how, str(script)]
    check(run_command(ranks, env=OPENMPI_SETTINGS), "cannot talk to each other")


@pytest.mark.parametrize("odd", [0, 2])
def test_one_rank_with_another_library(mpi: Mpi, other: Mpi, script: Path, odd: int) -> None:
    # The others wait for it inside MPI.
    alone = ["-n", "1", other.program("python"), "-m", "hpcfut", str(script)]
    together = ["-n", "2", mpi.program("python"), "-m", "hpcfut", str(script)]
    command = [mpi.program("mpiexec"), *(together if odd else alone), ":", *(alone if odd else together)]
    check(run_command(command, env=OPENMPI_SETTINGS), f"on rank {odd}, and the two cannot talk to each other")


@pytest.mark.parametrize(
    ("odd", "sentence"),
    [
        ("import platform; platform.python_version = lambda: '3.99'", "runs Python 3.99, but rank 0 on host"),
        ("import os; os.environ['HPCFUT_SLOTS'] = '2'", "was started with HPCFUT_SLOTS=2, but rank 0 on host"),
    ],
    ids=["version", "setting"],
)
def test_an_odd_rank_is_named(mpi: Mpi, script: Path, tmp_path: Path, odd: str, sentence: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(odd)
    rank = [mpi.program("python"), "-m", "hpcfut", str(script)]
    path = f"PYTHONPATH={tmp_path}:{Path(__file__).parents[2]}"
    command = [mpi.program("mpiexec"), "-n", "2", *rank, ":", "-n", "1", "env", path, *rank]
    job = run_command(command, env=OPENMPI_SETTINGS)
    check(job, sentence)
    assert "hpcfut: Rank 2 on host" in job.stderr


def test_variables_of_a_launcher_that_is_not_there(mpi: Mpi, script: Path) -> None:
    named = {"openmpi": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), "mpich": ("PMI_SIZE", "PMI_RANK")}[mpi.name]
    for rank in range(2):
        env = dict(zip(named, ("2", str(rank)), strict=True))
        job = run_command([mpi.program("python"), "-m", "hpcfut", str(script)], env=env)
        assert job.returncode == 1 - rank, job.story()
        assert ("2 processes, but each of them sees itself as the only one" in job.stderr) == (rank == 0), job.story()
        assert not job.stdout


def test_slurm_without_its_mpi_plugin(mpi: Mpi, script: Path) -> None:
    command = [mpi.program("python"), "-m", "hpcfut", str(script)]
    jobs = [run_command(command, env={"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank)}) for rank in range(2)]
    check(jobs[0], "srun started 2 processes that cannot find each other")
    assert not jobs[1].check().stderr
    assert not jobs[1].stdout
    # In the body of a batch job nothing is wrong with one process.
    assert run_command(command, env={"SLURM_NTASKS": "2"}).check().stdout == "not reached\n"


def test_prterun_starts_one_job_and_not_many(script: Path) -> None:
    mpi = environments().get("openmpi")
    if mpi is None:
        pytest.skip("There is no environment with openmpi: launch/test.sh makes one.")
    ranks = [mpi.program("prterun"), "--map-by", ":OVERSUBSCRIBE", "-n", "2", mpi.program("python"), "-m", "hpcfut"]
    assert run_command([*ranks, str(script)], env=OPENMPI_SETTINGS).check().stdout == "not reached\n"
