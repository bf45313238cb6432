"""The notes of ranks, and what a stranger's leftovers do to them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcfut.edges.host.job_files import SCRATCH_VARIABLE, JobFiles, Status
from hpcfut.edges.host.processes import start_ticks
from hpcfut.edges.host.segments import mapped_segments
from tests.mpi.jobs import OPENMPI_SETTINGS, Mpi, run_command
from tests.privileged import run_beside_mount


def test_a_rank_without_hpcfut_run_leaves_no_notes(tmp_path: Path) -> None:
    assert JobFiles.of_environment({}) is None
    assert JobFiles.of_environment({SCRATCH_VARIABLE: str(tmp_path / "on-another-host")}) is None
    assert JobFiles.of_environment({SCRATCH_VARIABLE: str(tmp_path)}) is not None


def test_notes_come_back(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    assert files.read_ranks() == []
    for rank in (11, 2):
        files.note_start(rank)
    notes = files.read_ranks()
    assert [note.rank for note in notes] == [2, 11]
    assert {(note.pid, note.host) for note in notes} == {(os.getpid(), socket.gethostname())}
    assert notes[0].started == start_ticks(os.getpid())
    assert not files.has_ended(2)
    files.note_end(2)
    assert files.has_ended(2)
    assert not files.has_ended(11)


def test_status_comes_back(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    assert files.read_status() is None
    files.write_status(3, "a sentence")
    assert files.read_status() == Status(3, "a sentence")
    (tmp_path / "status").write_text("")
    assert files.read_status() is None


def test_segments_are_those_that_are_mapped(tmp_path: Path) -> None:
    path = f"/dev/shm/hpcfut-test-{os.getpid()}"
    code = (
        "import mmap, os, sys\n"
        "with open(sys.argv[1], 'w+b') as file:\n"
        "    file.truncate(4096)\n"
        "    kept = mmap.mmap(file.fileno(), 4096)\n"
        "from hpcfut.edges.host.job_files import JobFiles\n"
        "from hpcfut.edges.host.segments import mapped_segments\n"
        "from pathlib import Path\n"
        "JobFiles(Path(sys.argv[2])).note_segments(0)\n"
        "os.unlink(sys.argv[1])\n"
        "assert sys.argv[1] not in mapped_segments(os.getpid())\n"
    )
    subprocess.run([sys.executable, "-c", code, path, str(tmp_path)], timeout=60, check=True)
    assert JobFiles(tmp_path).read_segments() == {path}
    assert path not in mapped_segments(os.getpid())


FILL = """
import os, sys
from pathlib import Path
from hpcfut.edges.host.job_files import JobFiles, Status

folder = Path(sys.argv[1])
files = JobFiles(folder)
files.reserve(3)
try:
    with (folder / "other").open("wb") as other:
        while True:
            other.write(bytes(4096))
except OSError:
    pass
for rank in range(3):
    files.note_start(rank)
    files.note_segments(rank)
    files.note_end(rank)
files.write_status(3, "a sentence")
assert files.read_status() == Status(3, "a sentence")
assert all(files.has_ended(rank) for rank in range(3))
try:
    JobFiles(folder).reserve(3)
except OSError as error:
    print(error.strerror)
"""


def test_a_folder_that_is_filled_meanwhile_has_room_for_the_notes(tmp_path: Path) -> None:
    done = run_beside_mount(tmp_path, "1m", [sys.executable, "-c", FILL, str(tmp_path)])
    assert (done.returncode, done.stdout) == (0, "No space left on device\n"), done


@pytest.mark.mpi
@pytest.mark.parametrize("size", ["4k", "16k,nr_inodes=1"])
def test_a_folder_without_room_is_a_sentence(mpi: Mpi, tmp_path: Path, size: str) -> None:
    run = [mpi.program("hpcfut"), "run", "-n", "2", __file__]
    done = run_beside_mount(tmp_path, size, run, {"TMPDIR": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith(f"hpcfut: The notes of the job cannot be kept in {tmp_path}: No space left"), done


@pytest.mark.mpi
def test_a_rank_that_cannot_leave_its_note_ends_the_job(mpi: Mpi, tmp_path: Path) -> None:
    """One of two only, whose number no note may have; the other waits for it inside MPI."""
    scratch, script = tmp_path / "scratch", tmp_path / "script.py"
    (scratch / "rank-1.alive").mkdir(parents=True)
    script.write_text("import hpcfut\nhpcfut.init()\nprint('not reached')\n")
    command = [mpi.program("mpiexec"), "-n", "2", mpi.program("python"), "-m", "hpcfut", str(script)]
    job = run_command(command, env={**OPENMPI_SETTINGS, SCRATCH_VARIABLE: str(scratch)}).check(None)
    assert job.returncode != 0, job.story()
    assert "not reached" not in job.stdout, job.story()
    assert f"hpcfut: Rank 1 cannot write to {scratch}" in job.stderr, job.story()


def test_remains_of_a_process_do_not_count_as_alive() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(child.pid) == 0
    child.wait()
    assert start_ticks(child.pid) == 0
    assert start_ticks(os.getpid()) > 0


FIRST_THREAD_ENDS = """
import ctypes, threading, time

threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_is_alive() -> None:
    """It looks like the remains of one, as does one that is being killed while other threads still have its memory."""
    child = subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS])
    stat = Path(f"/proc/{child.pid}/stat")
    deadline = time.monotonic() + 20.0
    while " Z " not in stat.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    was_alive = start_ticks(child.pid) > 0
    child.kill()
    assert child.wait() == -signal.SIGKILL, "Its first thread has not ended alone."
    assert was_alive
    assert start_ticks(child.pid) == 0
