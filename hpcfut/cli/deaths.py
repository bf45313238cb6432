"""Tells which rank of this host died first.

MPICH's launcher names a rank that it killed itself, as often as not. The kernel knows better: the descriptors of dead
processes become readable one after the other, and epoll hands them out in that order, however late it is asked.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from contextlib import suppress

from hpcfut.cli.verdict import Death
from hpcfut.edges.host.job_files import JobFiles, RankNote, start_ticks


class DeathWatch:
    """Watches the ranks of one job that run on this host."""

    def __init__(self, files: JobFiles, host: str) -> None:
        self._files = files
        self._host = host
        self._epoll = select.epoll()
        self._watched: dict[int, RankNote] = {}
        #: Ranks that have said that they have started, on any host.
        self.notes: Sequence[RankNote] = ()
        #: Ranks that died without having said that they had ended, as far as their order is known: mostly one.
        self.first: list[Death] = []
        self._n_gone = 0

    def fileno(self) -> int:
        """For a selector: readable when a rank has died."""
        return self._epoll.fileno()

    @property
    def are_all_gone(self) -> bool:
        """Whether all the ranks that were ever seen are on this host and have ended, by themselves or not."""
        return bool(self.notes) and self._n_gone == len(self.notes)

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in self._watched:
            os.close(descriptor)
        self._watched = {}
        self._epoll.close()

    def look(self) -> None:
        """Take in what has happened since the last time."""
        known = {note.rank for note in self.notes}
        self.notes = self._files.read_ranks()
        together = []
        for note in self.notes:
            if note.rank not in known and note.host == self._host and not self._start_watching(note):
                together += self._gone(note)
        self.first = self.first or together
        for descriptor, _ in self._epoll.poll(0):
            note = self._watched.pop(descriptor)
            self._epoll.unregister(descriptor)
            os.close(descriptor)
            self.first = self.first or self._gone(note)

    def _start_watching(self, note: RankNote) -> bool:
        """Returns whether the process is alive, or can be asked later."""
        with suppress(OSError):
            descriptor = os.pidfd_open(note.pid)
            # Only now is it certain that the descriptor is not that of a later process with the same pid.
            if start_ticks(note.pid) == note.started:
                self._epoll.register(descriptor, select.EPOLLIN)
                self._watched[descriptor] = note
                return True
            os.close(descriptor)
        return start_ticks(note.pid) == note.started

    def _gone(self, note: RankNote) -> list[Death]:
        self._n_gone += 1
        return [] if self._files.has_ended(note.rank) else [Death(note.rank, note.pid, note.host)]
