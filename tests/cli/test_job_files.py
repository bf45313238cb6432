"""The notes of ranks, and what a stranger's leftovers do to them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from hpcfut.edges.host.job_files import SCRATCH_VARIABLE, JobFiles, Status
from hpcfut.edges.host.processes import start_ticks
from hpcfut.edges.host.segments import mapped_segments


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


def test_remains_of_a_process_do_not_count_as_alive() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_ticks(child.pid) == 0
    child.wait()
    assert start_ticks(child.pid) == 0
    assert start_ticks(os.getpid()) > 0
