"""What the tests of faults share: jobs whose ranks have told their pids, and what must be true of how they end."""

from __future__ import annotations

import os
import re
import signal
import socket
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.mpi.jobs import CompletedJob, How, Mpi, RunningJob, run_job

ENDS_WITHIN_S = 5.0

HEAD = """
import ctypes, os, sys, time
import hpcfut

folder = sys.argv[1]

def on(rank):
    return hpcfut.NodeAffinitySchedulingStrategy(rank)

def mark(name):
    path = os.path.join(folder, name)
    with open(path + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".part", path)

@hpcfut.remote(num_cpus=0)
def tell(rank):
    mark(f"rank-{rank}")

hpcfut.init()
n_ranks = len(hpcfut.nodes())
hpcfut.get([tell.options(scheduling_strategy=on(rank)).remote(rank) for rank in range(n_ranks)])
"""

Act = Callable[["Victim"], None]


class Victim:
    """A running job, seen by the test that does something to it."""

    def __init__(self, job: RunningJob, folder: Path) -> None:
        self.job = job
        self.folder = folder

    def wait_for(self, mark: str) -> int:
        """Waits until the job has made this mark; returns the process that made it."""
        return int(self.job.wait_for(self.folder / mark))

    def kill_rank(self, rank: int) -> None:
        """SIGKILL, as the kernel does it when memory runs out."""
        os.kill(self.wait_for(f"rank-{rank}"), signal.SIGKILL)

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal does it."""
        os.killpg(self.job.process.pid, signal.SIGINT)


class Faults:
    """Runs jobs to which something happens."""

    def __init__(self, mpi: Mpi, folder: Path) -> None:
        self.mpi = mpi
        self.folder = folder

    def run(
        self,
        how: How,
        n_ranks: int,
        text: str,
        act: Act,
        *,
        mark: str = "ready",
        options: Sequence[str] = ("--fault-tolerance", "off"),
        env: Mapping[str, str] | None = None,
    ) -> CompletedJob:
        """Runs a script, and calls ``act`` when the script has made its mark; ``options`` are those of `hpcfut run`."""
        script = self.folder / "script.py"
        script.write_text(HEAD + textwrap.dedent(text))

        def act_in_time(job: RunningJob) -> None:
            victim = Victim(job, self.folder)
            victim.wait_for(mark)
            act(victim)

        given = options if how == "hpcfut run" else ()
        return run_job(self.mpi, n_ranks, script, self.folder, how=how, act=act_in_time, options=given, env=env)

    def pid(self, rank: int) -> int:
        """The process of a rank, living or not."""
        return int((self.folder / f"rank-{rank}").read_text())


def check_end(job: CompletedJob, *, status: int | None = None) -> None:
    """It failed in time, by itself, and left nothing."""
    job.check(status)
    assert job.returncode != 0, job.story()
    assert job.ended_after_s < ENDS_WITHIN_S, f"It took {job.ended_after_s:.1f} s to end.\n{job.story()}"
    assert "not reached" not in job.stdout, job.story()


def check_name(job: CompletedJob, mpi: Mpi, how: How, rank: int, pid: int) -> None:
    """A sentence names the rank that died, and its host."""
    host = re.escape(socket.gethostname())
    pattern = rf"Rank {rank} \(process {pid} on host {host}\) died before the job had ended"
    if how != "hpcfut run" and mpi.name == "openmpi":
        # The launcher says it itself.
        pattern = rf"process rank {rank} with PID \d+ on node {host}"
    words = " ".join(job.stderr.split())
    assert re.search(pattern, words), job.story()
    others = set(re.findall(r"Rank (\d+) \(process", words)) - {str(rank)}
    assert not others, job.story()
