"""`hpcfut run`: finds the launcher, and runs the script on its ranks."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from hpcfut.cli.command import (
    RunOptions,
    complaint,
    launcher_command,
    launcher_environment,
    rank_command,
    rank_environment,
)
from hpcfut.cli.job import Job
from hpcfut.cli.launchers import NAMES, NoMpiError, find_launcher
from hpcfut.edges.host.machine import scratch_parent

#: The exit status of a job that could not be started.
_NOT_STARTED = 2


def run_script(options: RunOptions, mpi: str = "auto", command: list[str] | None = None) -> int:
    """Run a job to its end and return its exit status.

    Args:
        options: What the user asked for.
        mpi: ``auto``, ``openmpi`` or ``mpich``.
        command: What every rank runs, instead of the script; for tests and for the doctor.
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
        ranks = command or rank_command(options)
        if launcher is None:
            return job.run(ranks, environ, name="Python", is_single=True)
        is_root, has_rdma = os.geteuid() == 0, Path("/dev/infiniband").is_dir()
        environ |= launcher_environment(launcher, scratch, environ, is_root=is_root, has_rdma=has_rdma)
        n_cores = len(os.sched_getaffinity(0))
        whole = [*launcher_command(launcher, options, environ, n_cores=n_cores), *ranks]
        name = f"{NAMES[launcher.family]}'s {Path(launcher.path).name}"
        return job.run(whole, environ, name=name, is_single=False)


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
