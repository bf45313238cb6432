"""Tells which rank of this host died first.

MPICH's launcher kills the others within a millisecond and then names one of those, as often as not. But every rank
holds a file of its own open, the kernel closes it while the process dies, and inotify keeps these closings in order
until somebody asks.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from hpcfut.cli.verdict import Death
from hpcfut.edges.host.job_files import ABORT_NAME, ALIVE_SUFFIX, JobFiles, RankNote
from hpcfut.edges.host.processes import children_of, environment_of, start_ticks

_IN_CLOSE_WRITE: Final = 0x8
_EVENT: Final = struct.Struct("iIII")
_ALIVE: Final = re.compile(rf"rank-(\d+){re.escape(ALIVE_SUFFIX)}")


class DeathWatch:
    """Watches the ranks of one job that run on this host."""

    def __init__(self, files: JobFiles, host: str) -> None:
        self._files = files
        self._host = host
        libc = ctypes.CDLL(None, use_errno=True)
        #: Negative where the user has too many watches already; then several ranks may count as the first.
        self._inotify: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        libc.inotify_add_watch(self._inotify, os.fsencode(files.scratch), _IN_CLOSE_WRITE)
        self._has_seen_abort = False
        #: The process of the launcher, where it says nothing of ranks that die before they have said anything, and
        #: until all have met; else 0. Its children that are ranks and have not said anything → their numbers.
        self.launcher = 0
        self._silent: dict[int, int] = {}
        #: Ranks that have said that they have started, on any host.
        self.notes: Sequence[RankNote] = ()
        #: The rank that died first without having said that it had ended; several if their order is not known.
        self.first: list[Death] = []
        #: All that have died without having said that they had ended, as they were found, unless the whole job ends.
        self.all: dict[int, Death] = {}
        #: Whether all the ranks that were ever seen are on this host and have come to their end, whichever it was.
        self.are_all_gone = False
        #: Whether rank 0 is on this host and has come to its end.
        self.is_rank_0_gone = False

    def close(self) -> None:
        """Give the watch back."""
        if self._inotify >= 0:
            os.close(self._inotify)

    def look(self) -> None:
        """Take in what has happened since the last time."""
        self.notes = self._files.read_ranks()
        gone = [note for note in self.notes if note.host == self._host and start_ticks(note.pid) != note.started]
        self.are_all_gone = bool(self.notes) and len(gone) == len(self.notes)
        self.is_rank_0_gone = any(note.rank == 0 for note in gone)
        # After the look at the processes: whoever is dead by then has an earlier entry here.
        closed = self._closed_ranks()
        by_rank = {note.rank: note for note in self.notes}
        in_order = [by_rank[rank] for rank in closed if rank in by_rank]
        in_order = [note for note in in_order if not self._files.has_ended(note.rank)]
        # A rank has no entry if a child made by `fork` alone keeps its file open.
        others = [note for note in gone if not self._files.has_ended(note.rank)]
        was_aborted = self._files.was_aborted()
        if not self.first and not was_aborted:
            self.first = [Death(note.rank, note.pid, note.host) for note in in_order[:1] or others]
        if self.launcher and not self.first and not was_aborted:
            self.first = self._dead_in_silence()
        # Of those on other hosts rank 0 knows. What dies after the job was ended on purpose dies of that.
        for note in (*in_order, *(() if was_aborted else (*others, *self._files.read_deaths()))):
            if 0 not in self.all:
                self.all.setdefault(note.rank, Death(note.rank, note.pid, note.host))

    def _dead_in_silence(self) -> list[Death]:
        """Ranks of this host that have died before they said that they had started."""
        for pid in children_of(self.launcher):
            if pid not in self._silent and (number := environment_of(pid).get("OMPI_COMM_WORLD_RANK", "")).isdecimal():
                self._silent[pid] = int(number)
        gone = [pid for pid in self._silent if not start_ticks(pid)]
        if not gone:
            return []
        # Whoever says so at the last moment has an entry of its own.
        noted = [note.pid for note in self._files.read_ranks()]
        return [Death(self._silent[pid], pid, self._host) for pid in gone if pid not in noted]

    def _closed_ranks(self) -> list[int]:
        """The ranks whose files were closed since the last time, in that order, before one ended the job on purpose."""
        data = b""
        with suppress(OSError):
            while part := os.read(self._inotify, 1 << 16):
                data += part
        ranks, start = [], 0
        while start < len(data):
            *_, nbytes_name = _EVENT.unpack_from(data, start)
            start += _EVENT.size
            name = data[start : start + nbytes_name].rstrip(b"\0").decode(errors="replace")
            start += nbytes_name
            self._has_seen_abort = self._has_seen_abort or name.startswith(ABORT_NAME)
            if not self._has_seen_abort and (match := _ALIVE.fullmatch(name)):
                ranks.append(int(match[1]))
        return ranks
