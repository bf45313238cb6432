"""One thread that waits: its record and its life."""

from __future__ import annotations

from typing import Final

import msgspec

from hpcfut.core.run import Run

WAITING: Final = "waiting"
WORKING: Final = "working"
COVERED: Final = "covered"
OVER: Final = "over"

#: A thread may also stop waiting at any moment; then its wait is forgotten, whatever its state.
TRANSITIONS: Final = {
    (WAITING, "run"): WORKING,
    (WAITING, "ready"): OVER,
    (WORKING, "run ended"): WAITING,
    (WORKING, "ready"): COVERED,
    (COVERED, "run ended"): OVER,
}


class Wait(msgspec.Struct, gc=False, eq=False):
    """One thread that waits."""

    waiter_id: int
    object_ids: list[int]
    n_wanted: int
    n_ready: int
    is_fetching: bool
    may_run: bool
    task_id: int
    is_for_good: bool = False
    #: Objects before this position are not made by a task that could run here, or are ready.
    cursor: int = 0
    #: Whether the thread runs a task at the moment, and whether its wait is over.
    state: str = WAITING
    #: The run whose thread waits, None for a driver's.
    run: Run | None = None
    #: Whether the thread is given the values.
    is_taking: bool = True
    #: Copies that were counted as ready, and stay until the thread has its values.
    pinned: list[int] | None = None
    #: Stored objects that were counted as ready where the thread is given no values; they may have gone again.
    seen: dict[int, None] | None = None
    #: Of a thread that wants several values at once: what those that are stored take of the stores of ranks.
    needs: dict[int, int] | None = None
