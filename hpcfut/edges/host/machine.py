"""What this process really has of its machine: cores, threads, scratch.

NumPy must not be imported from here, because its threads are limited here before it loads.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

#: Libraries read these when they are loaded, which NumPy does with its own.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Place(msgspec.Struct, array_like=True, frozen=True):
    """Where a rank runs; all ranks tell each other at start."""

    host: str
    #: Equal for ranks of one host only, which see each other's processes.
    host_key: str
    cpus: list[int]
    #: Equal for ranks of one kernel, whose memory and cores are for all of them, in containers of their own as well.
    machine_key: str


class Cores(msgspec.Struct, frozen=True):
    """How a rank and the others of its machine share the cores."""

    #: Whether those that this rank may use would be enough for all.
    are_enough: bool = True
    #: Whether no other rank may use those of this one.
    are_own: bool = True


def own_place() -> Place:
    """The place of this process."""
    return Place(socket.gethostname(), host_key(), sorted(os.sched_getaffinity(0)), machine_key())


def host_key(root: Path = Path("/")) -> str:
    """Host name, boot id and pid namespace: only ranks that share all three can open each other's memory.

    The launcher's opinion does not count, because containers and host name clashes make it wrong.
    """
    parts = [socket.gethostname(), _read(root / "proc/sys/kernel/random/boot_id")]
    try:
        parts.append(os.readlink(root / "proc/self/ns/pid"))
    except OSError:
        parts.append("")
    return " ".join(parts)


def machine_key(root: Path = Path("/")) -> str:
    """The boot id of the kernel; the host where that cannot be read."""
    return _read(root / "proc/sys/kernel/random/boot_id") or host_key(root)


def shared_memory_key(folder: Path = Path("/dev/shm")) -> str:
    """Equal for ranks whose folder of shared memory is the same, and not only called the same."""
    try:
        found = os.stat(folder)
    except OSError:
        return f"none for process {os.getpid()} of {host_key()}"
    # No two file systems that a kernel has mounted have the same number.
    return f"{machine_key()} {found.st_dev} {found.st_ino}"


def ranks_on_host_of(places: Sequence[Place], rank: int) -> list[int]:
    """The ranks that share a host with this one and see its processes, itself included."""
    return [other for other, place in enumerate(places) if place.host_key == places[rank].host_key]


def ranks_on_machine_of(places: Sequence[Place], rank: int) -> list[int]:
    """The ranks that share memory and cores with this one, itself included."""
    return [other for other, place in enumerate(places) if place.machine_key == places[rank].machine_key]


def cores_of(places: Sequence[Place], rank: int) -> int:
    """The cores of a rank: those bound to it alone, and its share of those that several ranks may use; at least 1."""
    neighbours = [set(places[other].cpus) for other in ranks_on_machine_of(places, rank)]
    # Summed as integers per number of sharers, because three thirds of a float are not one.
    n_shared: dict[int, int] = {}
    for cpu in places[rank].cpus:
        n_sharers = sum(cpu in cpus for cpus in neighbours)
        n_shared[n_sharers] = n_shared.get(n_sharers, 0) + 1
    return max(1, sum(n_cpus // n_sharers for n_sharers, n_cpus in n_shared.items()))


def sharing_of(places: Sequence[Place], rank: int) -> Cores:
    """How this rank shares its cores, as far as ranks of this job may use them."""
    cpus = set(places[rank].cpus)
    neighbours = ranks_on_machine_of(places, rank)
    are_own = all(cpus.isdisjoint(places[other].cpus) for other in neighbours if other != rank)
    return Cores(len(neighbours) <= len(cpus), are_own)


def limit_threads(n_cores: int, environ: MutableMapping[str, str]) -> None:
    """Make the libraries under NumPy use this rank's cores only, where the user has not said otherwise."""
    for name in THREAD_VARIABLES:
        environ.setdefault(name, str(n_cores))


def scratch_parent(environ: Mapping[str, str]) -> Path:
    """The folder for temporary files: the job's own under Slurm, or the user's."""
    for name in ("SLURM_TMPDIR", "TMPDIR"):
        folder = environ.get(name, "")
        if folder and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    return Path(tempfile.gettempdir())


def make_scratch(parent: Path) -> Path:
    """Make a folder for one job that nobody else may enter."""
    return Path(tempfile.mkdtemp(prefix="hpcfut-", dir=parent))


def nbytes_of_shared_memory(folder: Path = Path("/dev/shm")) -> int:
    """Free space where MPI keeps its shared segments; 0 where there is no such folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
