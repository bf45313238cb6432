"""Ranks that die where the job survives it: Open MPI with fault tolerance, real SIGKILLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.support import Faults, check_end
from tests.mpi.jobs import CHECKOUT, Mpi, run_job

pytestmark = [pytest.mark.mpi, pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)]
SCRIPT = Path(__file__).with_name("surviving.py")
TOLERANT = ("--fault-tolerance", "on")


def test_all_but_two_ranks_die(mpi: Mpi, tmp_path: Path) -> None:
    """Who executes, who holds, who owns and borrows, several at once, and one more while what another held is made."""
    job = run_job(
        mpi, 9, SCRIPT, tmp_path, options=(*TOLERANT, "--no-respawn"), env={"PYTHONPATH": str(CHECKOUT)}, timeout_s=90
    )
    job.check(7)
    assert job.stdout == "it ends well\n", job.story()


def test_rank_0_is_killed(mpi: Mpi, tmp_path: Path) -> None:
    """It has the driver: the others end at once, although the launcher would let them go on."""
    job = Faults(mpi, tmp_path).run(
        "hpcfut run",
        3,
        """
        @hpcfut.remote
        def compute():
            mark("ready")
            while True:
                pass

        hpcfut.get(compute.options(scheduling_strategy=on(1)).remote())
        """,
        lambda victim: victim.kill_rank(0),
        options=TOLERANT,
    )
    check_end(job)
    assert "hpcfut: Rank 0 (process" in job.stderr, job.story()
    assert "hpcfut: Rank 0 runs the script: no other rank can go on for it." in job.stderr, job.story()


def test_a_rank_with_a_script_is_killed(mpi: Mpi, tmp_path: Path) -> None:
    """Where every rank runs the script, none can be missed."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\nimport hpcfut\nhpcfut.init()\nrank = hpcfut.get_runtime_context().get_node_id()\n"
        "if rank == '1':\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "hpcfut.get(hpcfut.remote(print).options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(1)).remote())"
        "\nprint('not reached')\n"
    )
    options = ["--with-ft", "ulfm"]
    check_end(run_job(mpi, 3, "--spmd", script, how="mpirun python -m hpcfut", options=options))
