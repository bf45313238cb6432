"""Launchers that die or are told to end: no rank survives them, and nothing is left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.support import Faults, Victim, check_end
from tests.mpi.jobs import How, Mpi

pytestmark = pytest.mark.mpi

#: Ranks that notice nothing by themselves: one computes in Python, one in C code that keeps the interpreter.
BODY = """
@hpcfut.remote
def compute():
    mark("computing")
    while True:
        pass

@hpcfut.remote
def compute_in_c():
    mark("ready")
    sum(range(1 << 40))

refs = [compute.options(scheduling_strategy=on(1)).remote()]
while not os.path.exists(os.path.join(folder, "computing")):
    time.sleep(0.01)
refs.append(compute_in_c.options(scheduling_strategy=on(2)).remote())
hpcfut.get(refs)
print("not reached")
"""


@pytest.fixture
def faults(mpi: Mpi, tmp_path: Path) -> Faults:
    return Faults(mpi, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("how", ["mpirun python -m hpcfut", "hpcfut run"])
def test_what_started_the_job_is_ended(faults: Faults, how: How, number: signal.Signals) -> None:
    job = faults.run(how, 3, BODY, lambda victim: victim.job.process.send_signal(number))
    check_end(job)
    if how == "hpcfut run" and number == signal.SIGTERM:
        assert job.returncode == 128 + number, job.story()
        assert "The job was ended by SIGTERM." in job.stderr, job.story()


def test_the_launcher_below_hpcfut_run_is_killed(faults: Faults) -> None:
    def kill_launcher(victim: Victim) -> None:
        victim.job.child("prterun", "mpiexec", "mpiexec.hydra").kill()

    job = faults.run("hpcfut run", 3, BODY, kill_launcher)
    check_end(job, status=128 + signal.SIGKILL)
    assert "was killed by signal 9, and the job with it." in job.stderr, job.story()
