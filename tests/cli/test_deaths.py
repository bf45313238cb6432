"""Ranks that die before they have said anything, as `hpcfut run` finds them below the launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcfut.cli.deaths import DeathWatch
from hpcfut.cli.verdict import Death
from hpcfut.edges.host.job_files import JobFiles

#: Starts two ranks, names their processes, and reaps them, until it is told to end.
LAUNCHER = """
import os, subprocess, sys, threading
for rank in "01":
    words = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    child = subprocess.Popen(words, env={**os.environ, "OMPI_COMM_WORLD_RANK": rank}, stdin=subprocess.PIPE)
    threading.Thread(target=child.wait, daemon=True).start()
    print(child.pid, flush=True)
sys.stdin.read()
"""


class Launcher:
    """A process with two ranks below it."""

    def __init__(self) -> None:
        words = [sys.executable, "-c", LAUNCHER]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.ranks = [int(self.process.stdout.readline()) for _ in range(2)]


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    made = Launcher()
    yield made
    made.process.communicate()


def until_gone(watch: DeathWatch) -> None:
    """A process that was killed takes a moment to end."""
    while not watch.first:
        watch.look()


def test_a_rank_that_dies_in_silence(launcher: Launcher, tmp_path: Path) -> None:
    watch = DeathWatch(JobFiles(tmp_path), "here")
    watch.launcher = launcher.process.pid
    watch.look()
    assert watch.first == []
    os.kill(launcher.ranks[1], signal.SIGKILL)
    until_gone(watch)
    assert watch.first == [Death(1, launcher.ranks[1], "here")]
    watch.close()


def test_nobody_is_looked_for_once_all_have_met(launcher: Launcher, tmp_path: Path) -> None:
    watch = DeathWatch(JobFiles(tmp_path), "here")
    other = DeathWatch(JobFiles(tmp_path), "here")
    watch.launcher = other.launcher = launcher.process.pid
    for each in (watch, other):
        each.look()
    watch.launcher = 0
    os.kill(launcher.ranks[0], signal.SIGKILL)
    until_gone(other)
    watch.look()
    assert watch.first == []
    watch.close()
    other.close()
