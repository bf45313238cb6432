"""Ranks of one host that do not see each other as processes, and what MPI must be told where it does not notice.

For large messages MPI has the kernel read the memory of a process whose number the other rank has told. Between
containers with processes of their own, that number is nobody's, or somebody else's: MPICH fails. When they come to
share memory, Open MPI takes a rank with the number of its own for itself, and crashes; UCX looks for it among the
processes that it sees, and gives up. Between user namespaces, and from a process that does not want it, the kernel
refuses to read: Open MPI sees that, MPICH fails, and UCX complains. So MPI is told to do without, before it is
initialised, unless the user has said how it is to be.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, MutableMapping
from typing import Final

from hpcfut.edges.host.launch_environment import Launch
from hpcfut.edges.host.processes import ancestors_of, program_of

#: What starts the ranks of a host, as the kernel names it, by who is said to have started them.
_STARTERS: Final = {
    "openmpi": ("mpirun", "mpiexec", "prterun", "prted", "orterun", "orted"),
    "prrte": ("prterun", "prted", "prun"),
    "mpich": ("hydra_pmi_proxy", "pmi_proxy"),
    "slurm": ("slurmstepd", "srun"),
}
#: No rank reads the memory of another one as a process.
_CLOSED: Final = {"OMPI_MCA_smsc": "^cma", "MPIR_CVAR_CH4_CMA_ENABLE": "0", "UCX_POSIX_USE_PROC_LINK": "n"}
#: And what Open MPI and UCX send within the host goes through a network, which every container has.
_UNSEEN: Final = {**_CLOSED, "OMPI_MCA_btl": "^sm", "UCX_TLS": "^sm"}
_PR_GET_DUMPABLE: Final = 3


def settle_mpi(launch: Launch, environ: MutableMapping[str, str]) -> None:
    """Tell MPI, which has not been initialised yet, what this rank cannot do with others of its host."""
    for name, value in _settings_for(launch).items():
        environ.setdefault(name, value)


def _settings_for(launch: Launch) -> Mapping[str, str]:
    starters = _STARTERS.get(launch.launcher)
    if starters is None:
        return {}
    # Slurm's belongs to root: it may not be looked at, and clusters may hide all of it but its number. What is outside
    # of a container does not even have a number here.
    is_of_root = launch.launcher == "slurm"

    def is_starter(pid: int) -> bool:
        program = program_of(pid)
        return program.startswith(starters) or (is_of_root and not program)

    # Whoever does not see its own launcher does not see the other ranks either.
    starter = next(filter(is_starter, ancestors_of(os.getpid())), None)
    if starter is None:
        return _UNSEEN
    is_open = ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1
    return {} if is_open and (is_of_root or _shares_users_with(starter)) else _CLOSED


def _shares_users_with(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    except OSError:
        return False
