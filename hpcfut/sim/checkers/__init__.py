"""Checkers: they know everything, look after every turn, and raise when the cores believe what is not so.

One file each. A checker that finds nothing to do at an occasion does not define its method, and costs nothing there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpcfut.sim.checkers.attempts import Attempts
from hpcfut.sim.checkers.departed import Departed
from hpcfut.sim.checkers.emptiness import Emptiness
from hpcfut.sim.checkers.futures import Futures
from hpcfut.sim.checkers.invariants import Invariants
from hpcfut.sim.checkers.lineage import LineageInScope
from hpcfut.sim.checkers.lives import Lives
from hpcfut.sim.checkers.owners import Owners
from hpcfut.sim.checkers.progress import Progress
from hpcfut.sim.checkers.rosters import Rosters
from hpcfut.sim.checkers.segments import Segments
from hpcfut.sim.checkers.slots import Slots
from hpcfut.sim.checkers.spread import Spread
from hpcfut.sim.checkers.standstills import Standstills
from hpcfut.sim.checkers.values import Values

if TYPE_CHECKING:
    from hpcfut.sim.world import SimWorld

ALL = (
    Invariants,
    Lives,
    Owners,
    LineageInScope,
    Values,
    Attempts,
    Slots,
    Segments,
    Spread,
    Standstills,
    Progress,
    Futures,
    Emptiness,
    Departed,
    Rosters,
)


class Checks:
    """All checkers of a world, by the occasion on which they look."""

    def __init__(self, world: SimWorld) -> None:
        #: The checkers themselves, with what they remember.
        self.all = checkers = [make(world) for make in ALL]

        def methods(name: str) -> list[Callable[..., Any]]:
            return [getattr(checker, name) for checker in checkers if hasattr(checker, name)]

        #: (rank): it has been started in the place of another one.
        self.on_start = methods("on_start")
        #: (rank): it has taken a turn, and its effects are done.
        self.after_turn = methods("after_turn")
        #: (rank, destination, message): the message is about to leave.
        self.on_message = methods("on_message")
        #: (rank, SendObject): bulk data are about to leave.
        self.on_send = methods("on_send")
        #: (rank, RunTask): the task is about to start.
        self.on_run = methods("on_run")
        #: (rank, frame, WakeWaiter): the frame is about to be woken.
        self.on_wake = methods("on_wake")
        #: (rank, what is watched, TellWatcher): objects of it are about to be told.
        self.on_tell = methods("on_tell")
        #: (rank, AnswerQuery).
        self.on_answer = methods("on_answer")
        #: (): all programs have ended, all refs are dropped, nothing moves.
        self.at_rest = methods("at_rest")
        #: (): the session has been ended.
        self.at_end = methods("at_end")
