"""Jobs of real ranks that end in every way; nothing may be left of them."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.mpi.jobs import CHECKOUT, CompletedJob, Mpi, run_command

START = Path(__file__).with_name("start_stub.py")
N_RANKS = 3
TIMEOUT_S = 60.0

pytestmark = pytest.mark.mpi


def run_stub(mpi: Mpi, what: str, *more: str, n_ranks: int = N_RANKS) -> CompletedJob:
    command = [mpi.program("python"), str(START), str(n_ranks), what, *more]
    return run_command(command, env={"PYTHONPATH": str(CHECKOUT)}, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("status", [0, 3])
def test_status_is_the_one_that_rank_0_left(mpi: Mpi, status: int) -> None:
    job = run_stub(mpi, f"exits-{status}").check(status)
    assert job.stderr == ""


def test_no_status_is_a_failure(mpi: Mpi) -> None:
    job = run_stub(mpi, "says-no-status").check(1)
    assert "without the exit status of the script" in job.stderr


def test_killed_rank_is_named(mpi: Mpi) -> None:
    job = run_stub(mpi, "rank-1-is-killed").check(None)
    assert job.returncode != 0, job.story()
    assert re.search(r"hpcfut: Rank 1 \(process \d+ on host \S+\) died before the job had ended", job.stderr), (
        job.story()
    )


def test_rank_that_leaves_is_named(mpi: Mpi) -> None:
    job = run_stub(mpi, "rank-1-leaves").check(None)
    assert job.returncode != 0, job.story()
    assert "hpcfut: Rank 1 (process" in job.stderr, job.story()


@pytest.mark.parametrize("mpi", ["openmpi"], indirect=True)
def test_a_rank_that_does_not_leave_is_ended(mpi: Mpi) -> None:
    """Where ranks may die they do not wait for each other in the end, and the launcher waits for all."""
    run_stub(mpi, "rank-0-leaves-alone").check(3)


def test_child_of_a_rank_does_not_outlive_the_job(mpi: Mpi) -> None:
    run_stub(mpi, "leaves-a-child").check(0)


def test_ranks_see_their_settings(mpi: Mpi) -> None:
    job = run_stub(mpi, "prints-environment").check(0)
    assert 'HPCFUT_RESOURCES={"disk": 2}' in job.stdout
    assert "HPCFUT_SLOTS=3" in job.stdout
    assert "HPCFUT_CPUS_PER_RANK" not in job.stdout
    scratch = re.search(r"HPCFUT_JOB_SCRATCH=(.*)", job.stdout)
    assert scratch is not None
    assert not Path(scratch[1]).exists()
    # Not bound: nobody said that the cores are ours.
    assert f"affinity of 3 ranks: {len(os.sched_getaffinity(0))}\n" in job.stdout


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="Two ranks with a core each need two cores.")
def test_ranks_are_bound_to_the_cores_they_are_given(mpi: Mpi) -> None:
    job = run_stub(mpi, "prints-environment", "1", n_ranks=2).check(0)
    assert "HPCFUT_CPUS_PER_RANK=1" in job.stdout
    assert "affinity of 2 ranks: 1\n" in job.stdout


class Interrupted:
    """A job to which something is done when all of its ranks are up."""

    def __init__(self, mpi: Mpi, what: str, folder: Path, act: Callable[[int], None]) -> None:
        #: From the deed to the end of `hpcfut run`.
        self.duration_s = math.inf
        #: Ranks that were there after that; the remains of one that nobody has heard the end of count as well.
        self.left: list[int] = []
        thread = threading.Thread(target=self._act, args=(folder, act))
        thread.start()
        command = [mpi.program("python"), str(START), str(N_RANKS), what]
        env = {"PYTHONPATH": str(CHECKOUT), "HPCFUT_STUB_FOLDER": str(folder)}
        self.job = run_command(command, env=env, timeout_s=TIMEOUT_S)
        thread.join()

    def _act(self, folder: Path, act: Callable[[int], None]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while len(list(folder.glob("ready-*"))) < N_RANKS:
            time.sleep(0.01)
            if time.monotonic() > deadline:
                return
        pid = int((folder / "pid").read_text())
        acted = time.monotonic()
        act(pid)
        while psutil.pid_exists(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.duration_s = time.monotonic() - acted
        ranks = [int(path.read_text()) for path in folder.glob("ready-*")]
        self.left = [rank for rank in ranks if psutil.pid_exists(rank)]


def send(*numbers: int) -> Callable[[int], None]:
    def act(pid: int) -> None:
        for number in numbers:
            # It may have ended before the second one.
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            time.sleep(0.2)  # Two equal signals at the same time are one.

    return act


def kill_launcher(pid: int) -> None:
    """Kills mpiexec, the child of `hpcfut run` that is no janitor."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (launcher,) = [child for child in children if b"stub_ranks" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(int(launcher), signal.SIGKILL)


@pytest.mark.parametrize("what", ["stays", "ignores-signals"])
@pytest.mark.parametrize("n_times", [1, 2])
def test_ctrl_c_ends_all_within_two_seconds(mpi: Mpi, what: str, n_times: int, tmp_path: Path) -> None:
    done = Interrupted(mpi, what, tmp_path, send(*[signal.SIGINT] * n_times))
    done.job.check(130)
    assert not done.left, done.job.story()
    assert done.duration_s < 2.0, f"{done.duration_s:.2f} s: {done.job.story()}"
    if what == "stays" and n_times == 1:
        assert "rank 0 was interrupted" in done.job.stdout


def test_sigterm_ends_all(mpi: Mpi, tmp_path: Path) -> None:
    done = Interrupted(mpi, "ignores-signals", tmp_path, send(signal.SIGTERM))
    done.job.check(128 + signal.SIGTERM)
    assert not done.left, done.job.story()
    assert "ended by SIGTERM" in done.job.stderr


def test_nothing_outlives_a_killed_hpcfut_run(mpi: Mpi, tmp_path: Path) -> None:
    Interrupted(mpi, "ignores-signals", tmp_path, send(signal.SIGKILL)).job.check(-signal.SIGKILL)


def test_nothing_outlives_a_killed_launcher(mpi: Mpi, tmp_path: Path) -> None:
    done = Interrupted(mpi, "ignores-signals", tmp_path, kill_launcher)
    done.job.check(128 + signal.SIGKILL)
    assert not done.left, done.job.story()
    assert "was killed by signal 9, and the job with it" in done.job.stderr


def test_no_rank_is_there_any_more_after_the_death_of_one(mpi: Mpi, tmp_path: Path) -> None:
    def kill_rank(pid: int) -> None:
        os.kill(int((tmp_path / "ready-1").read_text()), signal.SIGKILL)

    done = Interrupted(mpi, "stays", tmp_path, kill_rank)
    done.job.check(None)
    assert done.job.returncode != 0, done.job.story()
    assert not done.left, done.job.story()
