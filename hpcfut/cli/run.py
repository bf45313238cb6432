"""`hpcfut run`: finds the launcher, and runs the script on its ranks."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hpcfut.cli.command import (
    RunOptions,
    complaint,
    launcher_command,
    launcher_environment,
    rank_environment,
)
from hpcfut.cli.fault_tolerance import is_one_host, settle
from hpcfut.cli.job import Job
from hpcfut.cli.launchers import NAMES, Launcher, NoMpiError, find_launcher
from hpcfut.edges.host.machine import scratch_parent
from hpcfut.edges.host.standard_input import INPUT_VARIABLE, offered_input

#: Where Linux shows hardware that reads the memory of other hosts: InfiniBand and its like, Omni-Path, Slingshot.
_RDMA = ("/dev/infiniband", "/dev/hfi1_0", "/dev/cxi0")
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
    _open_standard_descriptors()
    trouble = complaint(options)
    if trouble:
        return _refuse(trouble)
    # One rank needs no launcher, and therefore no MPI.
    is_single = options.n_started == 1 and not options.hosts and not options.launcher_args
    environ = dict(os.environ)
    launcher = None
    if not is_single:
        try:
            launcher = find_launcher(mpi, environ)
        except NoMpiError as error:
            return _refuse(str(error))
    survives, trouble = trouble_with_deaths(options, launcher, environ)
    if trouble:
        return _refuse(trouble)
    parent = _scratch_parent(options)
    try:
        job = Job(parent)
    except OSError as error:
        return _refuse(_trouble_with(parent, error))
    with job:
        try:
            job.files.reserve(options.n_started)
        except OSError as error:
            return _refuse(_trouble_with(parent, error))
        scratch = str(job.files.scratch)
        environ |= rank_environment(options, job.job_id, scratch)
        if launcher is not None and _is_first_host_here(options):
            environ[INPUT_VARIABLE] = offered_input()
        command, name = list(ranks), "Python"
        if launcher is not None:
            command = [*_launcher_part(launcher, options, environ, scratch, survives=survives), *ranks]
            name = f"{NAMES[launcher.family]}'s {Path(launcher.path).name}"
        status = job.run(command, environ, name=name, is_single=launcher is None, survives=survives, limit_s=limit_s)
        before_clean_up(job.files.scratch)
        return status


def _launcher_part(
    launcher: Launcher, options: RunOptions, environ: dict[str, str], scratch: str, *, survives: bool
) -> list[str]:
    """The launcher with its arguments; adds to the environment what it needs there."""
    is_root = os.geteuid() == 0
    environ |= launcher_environment(launcher, scratch, environ, is_root=is_root, has_rdma=_has_rdma())
    return launcher_command(launcher, options, environ, n_cores=len(os.sched_getaffinity(0)), survives=survives)


def trouble_with_deaths(options: RunOptions, launcher: Launcher | None, environ: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the job is to survive deaths, and the sentence that says why that cannot be as the user wants it."""
    return settle(
        options.fault_tolerance,
        options.n_spares,
        launcher,
        environ,
        is_spmd=options.is_spmd,
        has_rdma=_has_rdma(),
        is_one_host=is_one_host(options.hosts, " ".join(options.launcher_args), environ),
    )


def _has_rdma() -> bool:
    return any(Path(path).exists() for path in _RDMA)


def _trouble_with(parent: Path, error: OSError) -> str:
    return (
        f"The notes of the job cannot be kept in {parent}: {error.strerror}. Make room there, or set TMPDIR to a "
        f"folder on a local disk that you may write to."
    )


def _scratch_parent(options: RunOptions) -> Path:
    """Where rank 0 can leave notes for us: on this host, or in the working folder, which other hosts see as well."""
    return scratch_parent(os.environ) if _is_first_host_here(options) else Path.cwd()


def _is_first_host_here(options: RunOptions) -> bool:
    first = options.hosts.split(",")[0].partition(":")[0]
    own = socket.gethostname()
    return first in ("", "localhost", own, own.partition(".")[0])


def _open_standard_descriptors() -> None:
    """Whoever started us may have closed some, and the next file to be opened must not pass for one of them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The kernel gives out the lowest that is free; ranks inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has made no files of those that it found closed.
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"hpcfut: {sentence}\n")
    return _NOT_STARTED
