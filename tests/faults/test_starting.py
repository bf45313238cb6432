"""Ranks that die before all have met, in a job that would go on without them later: nobody waits for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.support import check_end
from tests.mpi.jobs import CHECKOUT, OPENMPI_SETTINGS, Act, Mpi, RunningJob, run_command, run_job

#: Rank 1 is killed where the environment says.
RANK = """
import os, signal, sys
from hpcfut.__main__ import main
from hpcfut.edges.mpi.start import World
where, dead = os.environ["WHERE"], sys.argv[2]

def die(*_):
    open(dead, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    if where == "import":
        import hpcfut.edges.mpi.start
        hpcfut.edges.mpi.start._prepare_mpi4py = die
    if where == "gather":
        World.gather = die
main()
"""

pytestmark = pytest.mark.mpi
open_mpi = pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "rank.py").write_text(RANK)
    (tmp_path / "script.py").write_text("import hpcfut\nhpcfut.init()\nprint('not reached')\n")
    return tmp_path / "script.py"


def until(script: Path) -> Act:
    """The time that the job has to end begins when rank 1 dies."""

    def act(job: RunningJob) -> None:
        job.wait_for(Path(f"{script}.dead"))

    return act


@open_mpi
@pytest.mark.parametrize("where", ["import", "gather"])
def test_with_the_command(mpi: Mpi, script: Path, where: str) -> None:
    text = (
        "import sys; from hpcfut.cli.command import RunOptions; from hpcfut.cli.run import run_job; "
        f"ranks = [sys.executable, {str(script.with_name('rank.py'))!r}, {str(script)!r}, {str(script) + '.dead'!r}]; "
        "sys.exit(run_job(RunOptions(n_ranks=3, fault_tolerance='on'), ranks))"
    )
    env = {"PYTHONPATH": str(CHECKOUT), "WHERE": where}
    job = run_command([mpi.program("python"), "-c", text], env=env, act=until(script))
    check_end(job)
    assert re.search(r"hpcfut: Rank 1 (\(process \d+ on host \S+\) died|has died) before the job had", job.stderr), (
        job.story()
    )
    assert "go on without it" not in job.stderr, job.story()


@open_mpi
def test_with_the_launcher_alone(mpi: Mpi, script: Path) -> None:
    env = {**OPENMPI_SETTINGS, "PYTHONPATH": str(CHECKOUT), "WHERE": "gather"}
    ranks = [mpi.program("python"), str(script.with_name("rank.py")), str(script), f"{script}.dead"]
    command = [mpi.program("mpirun"), "--with-ft", "ulfm", "-n", "3", *ranks]
    job = run_command(command, env=env, act=until(script))
    check_end(job)
    assert "hpcfut: Rank 1 has died before the job had begun on all ranks" in job.stderr, job.story()
    # One of the others speaks for all.
    assert job.stderr.count("hpcfut: Rank 1") == 1, job.story()


@pytest.mark.parametrize("mpi", ["mpich"], indirect=True)
def test_an_mpi_that_tells_of_no_deaths(mpi: Mpi, tmp_path: Path) -> None:
    """As an Open MPI without its layer ob1 is: the launcher would let the job go on, and the library does not."""
    script = tmp_path / "script.py"
    script.write_text("import hpcfut\nhpcfut.init()\nprint('begun')\n")
    env = {"OMPI_MCA_mpi_ft_enable": "1"}
    job = run_job(mpi, 2, script, env=env).check()
    assert job.stdout == "begun\n", job.story()
    assert job.stderr.count("hpcfut: The death of a rank will end this job") == 1, job.story()
    job = run_job(mpi, 2, script, env={**env, "HPCFUT_FAULT_TOLERANCE": "on"}).check(1)
    assert job.stdout == "", job.story()
    assert "HPCFUT_FAULT_TOLERANCE=on rules that out" in job.stderr, job.story()
