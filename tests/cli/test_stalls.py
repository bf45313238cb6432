"""What `hpcfut run` says of ranks that have stalled."""

from __future__ import annotations

import os
from pathlib import Path

from hpcfut.cli.stalls import Stalls, tell_stall
from hpcfut.edges.host.job_files import JobFiles, RankNote

NOTE = RankNote(1, 101, 5001, "vm")
OWN = Path(__file__).resolve().parents[2] / "hpcfut" / "runtime"
STACKS = f"""Timeout (0:01:30)!
Thread 0x01 (most recent call first):
  File "{OWN}/helper.py", line 95 in _work
  File "/usr/lib/python3/threading.py", line 1002 in _bootstrap

Thread 0x02 (most recent call first):
  File "/home/user/script.py", line 5 in hold
  File "{OWN}/executor.py", line 203 in execute
"""


def test_a_stall_is_told_once_when_all_of_it_is_written(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    stalls, stacks = Stalls(files), files.open_stacks(1)
    try:
        assert stalls.look([NOTE]) == []
        os.write(stacks, STACKS[:60].encode())
        assert stalls.look([NOTE]) == []
        os.write(stacks, STACKS[60:].encode())
        assert stalls.look([NOTE]) == []
        (sentence,) = stalls.look([NOTE])
        assert stalls.look([NOTE]) == []
        assert sentence.startswith("Rank 1 (process 101 on host vm) has answered nobody for 90 s.")
        assert sentence.endswith(STACKS.partition("\n\n")[2].rstrip("\n"))
        # It has gone on, and stalled once more.
        os.write(stacks, STACKS.encode())
        assert stalls.look([NOTE]) == []
        assert stalls.look([NOTE]) == [sentence]
    finally:
        os.close(stacks)


def test_threads_of_hpcfut_are_told_of_where_there_is_nothing_else() -> None:
    assert "helper.py" not in tell_stall(NOTE, STACKS)
    assert "helper.py" in tell_stall(NOTE, STACKS.partition("\n\n")[0])
