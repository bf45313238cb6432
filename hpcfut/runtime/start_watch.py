"""Ends the start of a job in which a rank has died before all have met, where only the ranks themselves can.

A job goes on when ranks die, but not before it has begun: until then the ranks meet in collectives of MPI, and those
with a dead rank fail on some ranks and hang on others. Where a job is to survive deaths the launcher ends nobody
because of one, and says nothing of who dies before MPI has started, with whom the others then wait inside of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, NoReturn

from hpcfut.runtime.fatal import fatal

PERIOD_S: Final = 0.1
#: So long the ranks of a large job may take until MPI has started on all of them.
MPI_WITHIN_S: Final = 300.0
#: A rank leaves it so long to each living one before it to say what has happened, and to end the job.
_TURN_S: Final = 0.5


class StartWatch:
    """The watch of one rank, from before it starts MPI until all ranks have met; a context manager."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="hpcfut-start-watch", daemon=True)
        self._find_dead: Callable[[], Sequence[int] | None] = lambda: ()
        self._abort: Callable[[], None] = lambda: None

    def start(self, find_dead: Callable[[], Sequence[int] | None], abort: Callable[[], None]) -> None:
        """Begin.

        Args:
            find_dead: The ranks of which MPI knows that they are dead; none before it has started.
            abort: Ends all processes of the job, if MPI has started.
        """
        self._find_dead, self._abort = find_dead, abort
        self._thread.start()

    def stop(self) -> None:
        """End the watch; from now on MPI is not called from here."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> StartWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()
        if isinstance(error, Exception) and (dead := self._find_dead()):
            self._end(dead)

    def _work(self) -> None:
        with fatal("the watch of the start"):
            n_looks_left = int(MPI_WITHIN_S / PERIOD_S)
            while not self._is_over.wait(PERIOD_S):
                dead = self._find_dead()
                if dead:
                    self._end(dead)
                if dead is None and not (n_looks_left := n_looks_left - 1):
                    self._leave(trouble_with_mpi())

    def _end(self, dead: Sequence[int]) -> NoReturn:
        # All know it at the same time, and the first one that lives is to say it: its end of the job ends this sleep.
        time.sleep(_TURN_S * (self._rank - sum(rank < self._rank for rank in dead)))
        self._leave(trouble_with_start(dead))

    def _leave(self, sentence: str) -> NoReturn:
        sys.stderr.write(f"hpcfut: {sentence}\n")
        sys.stderr.flush()
        self._abort()
        os._exit(1)


def trouble_with_start(dead: Sequence[int]) -> str:
    """The sentence about ranks that have died too early."""
    ranks = ", ".join(map(str, sorted(dead)))
    who = f"Rank {ranks} has" if len(dead) == 1 else f"Ranks {ranks} have"
    return (
        f"{who} died before the job had begun on all ranks, which ends it: they can go on without each other only once "
        f"they have met. What was printed last may tell why; if nothing was, look whether memory ran out."
    )


def trouble_with_mpi() -> str:
    """The sentence about an MPI that does not start."""
    return (
        f"MPI has not started on all ranks within {MPI_WITHIN_S:g} s. A rank may have died before that, of which this "
        f"launcher says nothing while ranks may die. Look at what was printed first, and start the job again with "
        f"--fault-tolerance off (mpirun without --with-ft), where such a death ends it and is told."
    )
