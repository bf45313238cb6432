"""What the kernel tells of processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcfut.edges.host import processes
from hpcfut.edges.host.processes import is_still, start_ticks


def test_a_process_that_is_taken_away_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        remains = processes._fields(Path(f"/proc/{ended.pid}/stat"))
        assert remains[0] == "Z"
        assert start_ticks(ended.pid) == 0
    # Its folder was there when it was looked for, and not when it was opened.
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    monkeypatch.setattr(processes, "_fields", lambda stat: remains)
    assert start_ticks(ended.pid) == 0
    assert is_still(ended.pid)
