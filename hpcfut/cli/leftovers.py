"""Finds and ends what is left of a job: processes, shared segments, scratch.

Only what provably belongs to the job is touched: processes that carry its id in their environment, that registered as
its ranks, or that descend from its launcher; segments that its ranks had mapped; its own scratch folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from hpcfut.edges.host.job_files import ID_VARIABLE, JobFiles
from hpcfut.edges.host.processes import start_ticks
from hpcfut.edges.host.segments import mapped_segments, topology_files

_N_KILLS_MAX: Final = 3
_KILL_TAKES_S: Final = 0.5

#: A process for certain: pids are used again, so each goes with the time at which its process started.
ProcessKeys = dict[int, int]


def tree_below(pid: int) -> ProcessKeys:
    """All living descendants of a process."""
    with suppress(psutil.Error):
        children = psutil.Process(pid).children(recursive=True)
        return {child.pid: ticks for child in children if (ticks := start_ticks(child.pid))}
    return {}


def processes_of(job_id: str) -> ProcessKeys:
    """All processes that were started with this job's id in their environment."""
    wanted = f"{ID_VARIABLE}={job_id}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # Other users' processes cannot be read, and are not ours.
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = start_ticks(int(folder.name))
    return {pid: ticks for pid, ticks in found.items() if ticks and pid != os.getpid()}


class Leftovers:
    """What a job may leave on this host."""

    def __init__(self, job_id: str, files: JobFiles, host: str) -> None:
        self._job_id = job_id
        self._files = files
        self._host = host
        #: Descendants of the launcher seen while it lived; afterwards they have another parent.
        self._seen: ProcessKeys = {}
        self._segments: set[str] = set()
        self._topology: set[str] = set()

    def watch(self, launcher_pid: int) -> None:
        """Remember the processes below the launcher; to be called now and then while it lives."""
        below = tree_below(launcher_pid)
        self._seen.update(below)
        for pid in below:
            self._topology.update(topology_files(pid))

    def end_processes(self, grace_s: float) -> int:
        """End all processes of the job; returns how many would not have ended by themselves.

        Args:
            grace_s: Time to end by themselves, and time between asking them to end and killing them; 0 kills at once.
        """
        living = self._living()
        if living and grace_s > 0:
            # The ssh to a launch daemon on another host ends a moment after the launcher.
            _wait_for(living, grace_s)
            living = self._living()
        n_left = len(living)
        if living and grace_s > 0:
            _signal(living, signal.SIGTERM)
            _wait_for(living, grace_s)
            living = self._living()
        # Again, because a process may have started another before it was killed.
        for _ in range(_N_KILLS_MAX):
            if not living:
                break
            _signal(living, signal.SIGKILL)
            _wait_for(living, _KILL_TAKES_S)
            living = self._living()
        return n_left

    def remove_files(self) -> None:
        """Remove the job's shared segments and its scratch; after its processes have ended."""
        self._remove_segments()
        for path in self._topology:
            with suppress(OSError):
                os.unlink(path)
        shutil.rmtree(self._files.scratch, ignore_errors=True)

    def _living(self) -> ProcessKeys:
        """The job's processes that are alive, with the segments that they have mapped taken down."""
        noted = {note.pid: note.started for note in self._files.read_ranks() if note.host == self._host}
        found = {**self._seen, **noted, **processes_of(self._job_id)}
        found = _alive(found)
        for pid in list(found):
            found.update(tree_below(pid))
        for pid in found:
            self._segments.update(mapped_segments(pid))
            self._topology.update(topology_files(pid))
        return found

    def _remove_segments(self) -> None:
        left = {path for path in self._segments | self._files.read_segments() if os.path.exists(path)}
        for path in left - _mapped_by_anybody(left):
            with suppress(OSError):
                os.unlink(path)


def _alive(processes: Mapping[int, int]) -> ProcessKeys:
    return {pid: ticks for pid, ticks in processes.items() if ticks and start_ticks(pid) == ticks}


def _signal(processes: ProcessKeys, number: int) -> None:
    for pid in _alive(processes):
        with suppress(OSError):
            os.kill(pid, number)


def _wait_for(processes: ProcessKeys, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while _alive(processes) and time.monotonic() < deadline:
        time.sleep(0.01)  # These are no children of this process, so nothing tells when they end.


def _mapped_by_anybody(paths: Iterable[str]) -> set[str]:
    wanted = set(paths)
    if not wanted:
        return set()
    found: set[str] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        found.update(wanted.intersection(mapped_segments(int(folder.name))))
    return found
