"""`hpcfut run`: finds the launcher, and runs the script on its ranks."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcfut.cli.command import (
    RunOptions,
    complaint,
    launcher_command,
    launcher_environment,
    rank_environment,
)
from hpcfut.cli.job import Job
from hpcfut.cli.launchers import NAMES, Launcher, NoMpiError, find_launcher
from hpcfut.edges.host.machine import scratch_parent

#: The exit status of a job that could not be started.
_NOT_STARTED = 2


def run_job(
    options: RunOptions,
    ranks: Sequence[str],
    *,
    mpi: str = "auto",
    limit_s: float = math.inf,
    before_clean_up: Callable[[Path], None] = lambda scratch: None,
) -> int:
    """Run a job to its end and return its exit status.

    Args:
        options: What the user asked for.
        ranks: The command that every rank runs.
        mpi: ``auto``, ``openmpi`` or ``mpich``.
        limit_s: The job is ended after this time.
        before_clean_up: Called with the job's scratch folder when the job has ended, before the folder is removed.
    """
    trouble = complaint(options)
    if trouble:
        return _refuse(trouble)
    # One rank needs no launcher, and therefore no MPI.
    is_single = options.n_ranks == 1 and not options.hosts and not options.launcher_args
    environ = dict(os.environ)
    launcher = None
    if not is_single:
        try:
            launcher = find_launcher(mpi, environ)
        except NoMpiError as error:
            return _refuse(str(error))
    with Job(_scratch_parent(options)) as job:
        scratch = str(job.files.scratch)
        environ |= rank_environment(options, job.job_id, scratch)
        command, name = list(ranks), "Python"
        if launcher is not None:
            command = [*_launcher_part(launcher, options, environ, scratch), *ranks]
            name = f"{NAMES[launcher.family]}'s {Path(launcher.path).name}"
        status = job.run(command, environ, name=name, is_single=launcher is None, limit_s=limit_s)
        before_clean_up(job.files.scratch)
        return status


def _launcher_part(launcher: Launcher, options: RunOptions, environ: dict[str, str], scratch: str) -> list[str]:
    """The launcher with its arguments; adds to the environment what it needs there."""
    is_root, has_rdma = os.geteuid() == 0, Path("/dev/infiniband").is_dir()
    environ |= launcher_environment(launcher, scratch, environ, is_root=is_root, has_rdma=has_rdma)
    return launcher_command(launcher, options, environ, n_cores=len(os.sched_getaffinity(0)))


def _scratch_parent(options: RunOptions) -> Path:
    """Where rank 0 can leave notes for us: on this host, or in the working folder, which other hosts see as well."""
    first = options.hosts.split(",")[0].partition(":")[0]
    own = socket.gethostname()
    if first in ("", "localhost", own, own.partition(".")[0]):
        return scratch_parent(os.environ)
    return Path.cwd()


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"hpcfut: {sentence}\n")
    return _NOT_STARTED
