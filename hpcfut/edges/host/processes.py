"""What the kernel tells of the processes of this host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: States of a thread that runs no more.
_ENDED: Final = ("Z", "X")


def start_ticks(pid: int) -> int:
    """When a process started, in ticks since the boot; 0 if there is none, or only its remains."""
    fields = _fields(Path(f"/proc/{pid}/stat"))
    # Its first thread may have ended before others, which still have its memory and its files.
    if not fields or (fields[0] in _ENDED and all(state in _ENDED for state in _states(pid))):
        return 0
    return int(fields[19])


def program_of(pid: int) -> str:
    """The name of a process's program, cut as the kernel cuts it; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def children_of(parent: int) -> list[int]:
    """The processes that this one has started and that have not ended."""
    folders = Path("/proc").glob("[0-9]*")
    return [int(folder.name) for folder in folders if _fields(folder / "stat")[1:2] == [str(parent)]]


def environment_of(pid: int) -> Mapping[str, str]:
    """The environment that a process was started with; empty if that cannot be read, or it has ended."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def ancestors_of(pid: int) -> list[int]:
    """The processes above this one, as far as they can be seen from here, the nearest first."""
    found: list[int] = []
    while (fields := _fields(Path(f"/proc/{pid}/stat"))) and (pid := int(fields[1])):
        found.append(pid)
    return found


def is_still(pid: int) -> bool:
    """Whether no thread of the process runs any more: all are stopped, or it has ended."""
    return all(state in (*_ENDED, "T", "t") for state in _states(pid))


def _states(pid: int) -> list[str]:
    """Of its threads, as far as they are still there."""
    folder = f"/proc/{pid}/task"
    try:
        threads = os.listdir(folder)
    except OSError:  # It was taken away at this moment.
        return []
    return [fields[0] for thread in threads if (fields := _fields(Path(folder, thread, "stat")))]


def _fields(stat: Path) -> list[str]:
    """What is told of a process or a thread, from its state on; nothing if there is none."""
    try:
        # The name of the program, in parentheses, may hold spaces and parentheses of its own.
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []
