"""The harness reports hangs, crashes and leftovers; no ranks are needed to see that."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.mpi.jobs import Mpi, run_command, run_job
from tests.mpi.shared import DRIVER, JOB_ENDS_WELL, SharedJob, find_cases, run_cases

PROGRAM = """
import os, time, unittest

def case_a_passes(n_ranks): assert n_ranks == 1
def case_b_fails():
    seen = 41
    assert seen == 42
def case_c_skips(): raise unittest.SkipTest("not on this machine")
def case_d_ends(): {}
def case_e_follows(): pass
"""


def run_program(folder: Path, fourth: str) -> SharedJob:
    """Runs the program above with a plain Python."""
    (folder / "programs").mkdir()
    (folder / "programs" / "some.py").write_text(PROGRAM.format(fourth))
    driver = shutil.copy(DRIVER, folder)
    here = Mpi("none", Path(sys.prefix))
    cases = find_cases(folder / "programs")
    assert len(cases) == 5
    return run_cases(here, 1, cases, driver=Path(driver), how="python", case_timeout_s=1.5)


def test_outcomes_reach_their_cases(tmp_path: Path) -> None:
    shared = run_program(tmp_path, "pass")
    assert shared.outcome("some:case_a_passes").event == "passed"
    failed = shared.outcome("some:case_b_fails")
    assert failed.event == "failed"
    assert "seen = 41" in failed.text
    assert shared.outcome("some:case_c_skips").text == "not on this machine"
    assert shared.outcome("some:case_e_follows").event == "passed"
    assert shared.outcome(JOB_ENDS_WELL).event == "passed", shared.job.story()


def test_a_crash_is_its_own_and_the_next_cases_name_it(tmp_path: Path) -> None:
    shared = run_program(tmp_path, "os._exit(3)")
    assert shared.outcome("some:case_b_fails").event == "failed"
    assert shared.outcome("some:case_d_ends").text == "This case ended the job."
    assert "some:case_d_ends" in shared.outcome("some:case_e_follows").text
    assert shared.outcome(JOB_ENDS_WELL).event == "failed"


def test_a_hang_is_killed_and_told(tmp_path: Path) -> None:
    shared = run_program(tmp_path, "time.sleep(600)")
    assert shared.job.timed_out
    assert shared.job.duration_s < 30
    assert shared.outcome("some:case_d_ends").text == "This case never came to an end."
    with pytest.raises(pytest.fail.Exception, match="was killed at its deadline"):
        shared.check("some:case_d_ends")


def test_ranks_say_where_they_hang() -> None:
    inner = "import time\ndef stuck_here(): time.sleep(600)\nstuck_here()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    job = run_command([sys.executable, "-c", outer], timeout_s=1.5)
    assert job.timed_out
    assert "in stuck_here" in job.stderr


def test_what_is_left_is_named(tmp_path: Path) -> None:
    segment = f"/dev/shm/hpcfut-test-{os.getpid()}"
    script = tmp_path / "leaves.py"
    script.write_text(
        "import pathlib, subprocess, sys, tempfile\n"
        f"pathlib.Path({segment!r}).touch()\n"
        "tempfile.mkdtemp(prefix='hpcfut-scratch-')\n"
        "subprocess.Popen(['sleep', '601'])\n"
    )
    try:
        job = run_job(Mpi("none", Path(sys.prefix)), 1, script, how="python")
    finally:
        os.unlink(segment)
    text = "\n".join(job.leftovers)
    assert "sleep 601" in text
    assert segment in text
    assert "hpcfut-scratch-" in text
    with pytest.raises(AssertionError, match="left behind"):
        job.check()
