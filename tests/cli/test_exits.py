"""A rank that leaves without having said goodbye, where only a signal is a death."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.mpi.jobs import CHECKOUT

START = "import ctypes, os, sys; from hpcfut.edges.host.exits import Exits; exits = Exits(); "


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("os._exit(7)", -signal.SIGKILL),
        ("ctypes.CDLL(None).exit(7)", -signal.SIGKILL),
        ("exits.allow(); os._exit(7)", 7),
        ("exits.allow(); exits.allow(); sys.exit(7)", 7),
        ("sys.exit(7)", -signal.SIGKILL),
        # A copy of the process may leave.
        ("os.fork() or sys.exit(7); child = os.wait()[1]; exits.allow(); sys.exit(child == 7 << 8 and 7)", 7),
        ("os.fork() or ctypes.CDLL(None).exit(7); child = os.wait()[1] >> 8; exits.allow(); sys.exit(child)", 7),
        ("os.fork() or os._exit(7); child = os.wait()[1] >> 8; exits.allow(); sys.exit(child)", 7),
    ],
)
def test_how_a_process_ends(how: str, status: int) -> None:
    assert subprocess.run([sys.executable, "-c", START + how], cwd=CHECKOUT, check=False).returncode == status
