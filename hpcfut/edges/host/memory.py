"""The memory that the job has on this host, which its ranks there share.

Under a limit every way of touching pages ends in the OOM killer, so that sizes are found by arithmetic before anything
is allocated: the least of what the machine, each control group above this process, and Slurm give, and of what is free
of that now. What the kernel keeps of files counts as free, because it gives that up first; swap does not count at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

#: What cgroup v1 says for "no limit" is a number near 2^63.
_NBYTES_UNLIMITED: Final = 1 << 60
_MIB: Final = 1 << 20


class JobMemory(msgspec.Struct, frozen=True):
    """What all ranks of the job on this host have together."""

    #: All that they may have.
    nbytes_limit: int
    #: What is free for them now.
    nbytes_free: int
    #: Whose limit leaves the least, for people.
    limited_by: str


class _Group(msgspec.Struct, frozen=True):
    """The names of the files of one version of control groups."""

    folders: tuple[str, ...]
    limits: tuple[str, ...]
    usage: str
    #: Of the lines in ``memory.stat`` about files.
    prefix: str


_V1: Final = _Group(("sys/fs/cgroup/memory",), ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")
# Where both versions are mounted, the second has a folder of its own. Above `memory.high` a group crawls.
_V2: Final = _Group(
    ("sys/fs/cgroup", "sys/fs/cgroup/unified"), ("memory.max", "memory.high"), "memory.current", prefix=""
)


def memory_of_job(environ: Mapping[str, str], root: Path = Path("/")) -> JobMemory:
    """What the job has on this host; ``root`` is where ``proc`` and ``sys`` are."""
    found = [_of_machine(root), *_of_groups(root), *_of_slurm(environ)]
    nearest = min(found, key=lambda memory: memory.nbytes_free)
    return JobMemory(min(memory.nbytes_limit for memory in found), nearest.nbytes_free, nearest.limited_by)


def _of_machine(root: Path) -> JobMemory:
    amounts = {}
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        amounts[name] = amount.split()[0]
    total = int(amounts["MemTotal"]) * 1024 if "MemTotal" in amounts else _nbytes_by_pages()
    return JobMemory(total, min(int(amounts.get("MemAvailable", total // 1024)) * 1024, total), "this machine")


def _nbytes_by_pages() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: Path) -> Iterator[JobMemory]:
    """Each group that this process is in, up to the top: any of them may be the one that bites."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            version = _V2
        elif "memory" in controllers.split(","):
            version = _V1
        else:
            continue
        # A container may see its own group as the top, under a path that does not exist inside.
        parts = Path(path.lstrip("/")).parts
        for folder in version.folders:
            for depth in range(len(parts) + 1):
                name = f"control group /{'/'.join(parts[:depth])}"
                yield from _of_group(root.joinpath(folder, *parts[:depth]), version, name)


def _of_group(folder: Path, version: _Group, name: str) -> Iterator[JobMemory]:
    texts = [_read(folder / limit) for limit in version.limits]
    limit = min((int(text) for text in texts if text.isdigit()), default=_NBYTES_UNLIMITED)
    if limit >= _NBYTES_UNLIMITED:
        return
    usage = _read(folder / version.usage)
    used = int(usage) if usage.isdigit() else 0
    kept_of_files = (f"{version.prefix}inactive_file", f"{version.prefix}active_file")
    for line in _read(folder / "memory.stat").splitlines():
        key, _, amount = line.partition(" ")
        if key in kept_of_files and amount.isdigit():
            used -= int(amount)
    yield JobMemory(limit, min(max(0, limit - used), limit), name)


def _of_slurm(environ: Mapping[str, str]) -> Iterator[JobMemory]:
    """What Slurm promised on this host, in MiB; 0 means all of it."""
    per_host = environ.get("SLURM_MEM_PER_NODE", "")
    per_cpu, n_cpus = environ.get("SLURM_MEM_PER_CPU", ""), environ.get("SLURM_CPUS_ON_NODE", "")
    if per_host.isdigit() and int(per_host):
        yield JobMemory(int(per_host) * _MIB, int(per_host) * _MIB, "Slurm (--mem)")
    if per_cpu.isdigit() and n_cpus.isdigit() and int(per_cpu) * int(n_cpus):
        nbytes = int(per_cpu) * int(n_cpus) * _MIB
        yield JobMemory(nbytes, nbytes, "Slurm (--mem-per-cpu)")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
