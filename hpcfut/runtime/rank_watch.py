"""A thread of each rank that sees to what nobody else there does: parents that are gone, stalls, and who has died.

A rank whose engine has not turned for a while answers nobody. Something keeps it from that: code in C that does not
give the GIL back, say. Then no thread of Python can tell of it either; but ``faulthandler`` has one of C, which writes
down where all threads are unless it is put off in time. This thread puts it off for as long as the engine turns. What
has been written `hpcfut run` finds in the scratch folder of the job, and tells: it may be rank 0 that does not turn.
Nobody takes such a rank for dead.

It is woken twice a second, and does nothing on the way of a task.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Final

from hpcfut.edges.host.job_files import SCRATCH_VARIABLE, JobFiles, RankNote
from hpcfut.edges.host.parent import ParentWatch
from hpcfut.model.roster import tell_survived
from hpcfut.model.variables import STALL_VARIABLE
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.fatal import fatal

STALL_S: Final = 30.0
PERIOD_S: Final = 0.5
#: So often within the time after which a rank has stalled it is put off that this is written down.
N_DELAYS: Final = 8


class RankWatch:
    """The watch of one rank."""

    def __init__(self, rank: int, files: JobFiles | None, environ: Mapping[str, str]) -> None:
        """Get ready.

        Args:
            rank: The own rank.
            files: Where notes are left; none where nobody would read them.
            environ: For whether `hpcfut run` has started the job, and after which time a rank has stalled.
        """
        self._rank = rank
        self._files = files
        self._parent = ParentWatch()
        #: Of the session, while there is one.
        self.engine: Engine | None = None
        #: Who has died, as far as rank 0 has told it.
        self._dead: dict[int, None] = {}
        self._stall_s, _ = stall_s_of(environ)
        #: What is written to: a note, or, on a host that does not see these, what the launcher shows.
        self._stacks = -1
        if self._stall_s and files is not None:
            self._stacks = files.open_stacks(rank)
        elif self._stall_s and environ.get(SCRATCH_VARIABLE):
            self._stacks = 2
        self._put_off_at = -inf
        self._turned_at = -inf
        self._is_resting = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._work, name="hpcfut-rank-watch", daemon=True).start()

    def rest(self) -> None:
        """The rank is about to end: it need not turn any more."""
        self._is_resting = True
        if self._stacks >= 0:
            faulthandler.cancel_dump_traceback_later()

    def _work(self) -> None:
        with fatal("its watch"):
            self._watch()

    def _watch(self) -> None:
        # A rank whose launcher is gone has nobody left to end it; the kernel's signal some containers swallow.
        while not self._parent.is_orphaned():
            if self._stacks >= 0:
                self._look_at_turns()
            engine = self.engine
            if self._rank == 0 and engine is not None:
                self._tell_deaths(engine, list(engine.core.context.apart))
            time.sleep(min(PERIOD_S, self._stall_s / N_DELAYS or PERIOD_S))
        os._exit(1)

    def _look_at_turns(self) -> None:
        engine, now = self.engine, time.monotonic()
        if engine is not None and engine.turned_at == self._turned_at:
            return
        self._turned_at = engine.turned_at if engine is not None else now
        if now - self._put_off_at < self._stall_s / N_DELAYS or self._is_resting:
            return
        self._put_off_at = now
        faulthandler.dump_traceback_later(self._stall_s, file=self._stacks)
        if self._is_resting:  # It was said meanwhile.
            faulthandler.cancel_dump_traceback_later()

    def _tell_deaths(self, engine: Engine, apart: Sequence[int]) -> None:
        for rank in apart:
            if rank in (self._rank, *self._dead):
                continue
            self._dead[rank] = None
            record = engine.core.membership.roster[rank]
            # A folder that is gone, or a terminal that was closed, is no reason to end a rank.
            with suppress(OSError, ValueError):
                if self._files is not None:
                    self._files.note_death(RankNote(rank, record.pid, 0, record.host))
                else:
                    sys.stderr.write(f"hpcfut: {tell_survived(rank, record.pid, record.host)}\n")


def stall_s_of(environ: Mapping[str, str]) -> tuple[float, str]:
    """After which time without a turn a rank has stalled; and the sentence for a setting that makes no sense."""
    text = environ.get(STALL_VARIABLE, str(STALL_S))
    try:
        stall_s = float(text)
    except ValueError:
        stall_s = -1.0
    if 0 <= stall_s < inf:
        return stall_s, ""
    return STALL_S, (
        f"{STALL_VARIABLE}={text} is no number of seconds. A rank that answers nobody for so long is told of; 0 turns "
        f"that off."
    )
