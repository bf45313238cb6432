"""However a job ends, the processes of its isolated tasks end with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.support import Faults, Victim, check_end
from tests.mpi.jobs import Mpi, environments

pytestmark = pytest.mark.mpi

#: What the code of a task does, on every rank, while the job ends.
STUBBORN = """
@hpcfut.remote(isolation="process")
def work(rank):
    import signal

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    mark(f"at-work-{rank}")
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass

refs = [work.options(scheduling_strategy=on(rank)).remote(rank) for rank in range(n_ranks)]
hpcfut.wait(refs, timeout=0.1)
while not all(os.path.exists(os.path.join(folder, f"at-work-{rank}")) for rank in range(n_ranks)):
    hpcfut.wait(refs, timeout=0.01)
mark("ready")
"""


@pytest.fixture
def faults(mpi: Mpi, tmp_path: Path) -> Faults:
    return Faults(mpi, tmp_path)


def test_a_rank_is_killed(faults: Faults) -> None:
    job = faults.run(
        "mpirun python -m hpcfut", 2, f"{STUBBORN}\nhpcfut.get(refs)\n", lambda victim: victim.kill_rank(1)
    )
    check_end(job)


def test_ctrl_c(faults: Faults) -> None:
    job = faults.run("mpirun python -m hpcfut", 2, f"{STUBBORN}\nhpcfut.get(refs)\n", Victim.interrupt)
    check_end(job)


def test_the_script_ends_and_they_do_not(tmp_path: Path) -> None:
    found = list(environments().values())
    if not found:
        pytest.skip("There is no environment with an MPI: launch/test.sh makes one.")
    # One rank has none.
    job = Faults(found[0], tmp_path).run("python", 1, STUBBORN, lambda victim: None)
    job.check()
    assert "is abandoned" not in job.stderr, job.story()
