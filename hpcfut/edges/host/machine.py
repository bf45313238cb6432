"""What this process really has of its machine: cores, memory, scratch.

NumPy must not be imported from here, because its threads are limited here before it loads.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
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
#: What cgroup v1 says for "no limit" is a number near 2^63.
_NBYTES_UNLIMITED: Final = 1 << 60
_MIB: Final = 1 << 20


class Place(msgspec.Struct, array_like=True, frozen=True):
    """Where a rank runs; all ranks tell each other at start."""

    host: str
    #: Equal for ranks of one host only.
    host_key: str
    cpus: list[int]


def own_place() -> Place:
    """The place of this process."""
    return Place(socket.gethostname(), host_key(), sorted(os.sched_getaffinity(0)))


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


def ranks_on_host_of(places: Sequence[Place], rank: int) -> list[int]:
    """The ranks that share a host with this one, itself included."""
    return [other for other, place in enumerate(places) if place.host_key == places[rank].host_key]


def cores_of(places: Sequence[Place], rank: int) -> int:
    """The cores of a rank: those bound to it alone, and its share of those that several ranks may use; at least 1."""
    neighbours = [set(places[other].cpus) for other in ranks_on_host_of(places, rank)]
    # Summed as integers per number of sharers, because three thirds of a float are not one.
    n_shared: dict[int, int] = {}
    for cpu in places[rank].cpus:
        n_sharers = sum(cpu in cpus for cpus in neighbours)
        n_shared[n_sharers] = n_shared.get(n_sharers, 0) + 1
    return max(1, sum(n_cpus // n_sharers for n_sharers, n_cpus in n_shared.items()))


def limit_threads(n_cores: int, environ: MutableMapping[str, str]) -> None:
    """Make the libraries under NumPy use this rank's cores only, where the user has not said otherwise."""
    for name in THREAD_VARIABLES:
        environ.setdefault(name, str(n_cores))


def nbytes_of_job_on_host(environ: Mapping[str, str], root: Path = Path("/")) -> int:
    """Memory that all ranks of the job on this host have together: the least of machine, cgroup and Slurm."""
    return min([nbytes_of_machine(root), *_cgroup_limits(root), *_slurm_limits(environ)])


def nbytes_of_machine(root: Path = Path("/")) -> int:
    """All memory of the machine."""
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemTotal":
            return int(amount.split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_limits(root: Path) -> Iterable[int]:
    """The limit of each group that this process is in, up to the top: any of them may be the one that bites."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            folder, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # A container may see its own group as the top, under a path that does not exist inside.
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            text = _read(folder.joinpath(*parts[:depth], name))
            if text.isdigit() and int(text) < _NBYTES_UNLIMITED:
                yield int(text)


def _slurm_limits(environ: Mapping[str, str]) -> Iterable[int]:
    """What Slurm promised on this host, in MiB; 0 means all of it."""
    per_host = environ.get("SLURM_MEM_PER_NODE", "")
    per_cpu, n_cpus = environ.get("SLURM_MEM_PER_CPU", ""), environ.get("SLURM_CPUS_ON_NODE", "")
    if per_host.isdigit() and int(per_host):
        yield int(per_host) * _MIB
    if per_cpu.isdigit() and n_cpus.isdigit() and int(per_cpu) * int(n_cpus):
        yield int(per_cpu) * int(n_cpus) * _MIB


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
