"""One run of a task on the rank that executes it: its record and its life."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from hpcfut.core.copy import Copy
from hpcfut.core.room import Room
from hpcfut.model.failure import Failure
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.messages import Argument

NEW: Final = "new"
FETCHING: Final = "fetching"
READY: Final = "ready"
RUNNING: Final = "running"
BLOCKED: Final = "blocked"
ENDED: Final = "ended"

TRANSITIONS: Final = {
    (NEW, "fetch"): FETCHING,
    (NEW, "ready"): READY,
    (NEW, "hand back"): ENDED,
    (FETCHING, "ready"): READY,
    (FETCHING, "drop"): ENDED,
    (FETCHING, "hand back"): ENDED,
    (READY, "start"): RUNNING,
    (READY, "drop"): ENDED,
    (READY, "fetch again"): FETCHING,
    (READY, "hand back"): ENDED,
    (RUNNING, "block"): BLOCKED,
    (BLOCKED, "unblock"): RUNNING,
    (RUNNING, "end"): ENDED,
    (BLOCKED, "end"): ENDED,
}


class Run(msgspec.Struct, gc=False, eq=False):
    """A task on its executor."""

    task_id: int
    owner: int
    lease_id: int
    template: TaskTemplate
    payload: bytes
    arguments: tuple[Argument, ...]
    return_ids: tuple[int, ...]
    #: What gives it the right to run: the scheduler of the rank, or the actor whose method it is.
    room: Room
    #: For a generator: names for its next items.
    item_ids: tuple[int, ...]
    #: Refs that the caller keeps alive until the reply: inside the payload, and inside the arguments' values.
    covered: tuple[int, ...] = ()
    #: What is stored of its arguments; it has pinned them.
    copies: Sequence[Copy] = ()
    state: str = NEW
    #: Stored arguments that are not here yet.
    n_missing: int = 0
    #: The waiting thread on whose stack it runs, 0 for an executor thread.
    waiter_id: int = 0
    started_at: float = 0.0
    #: Threads of it that wait, a generator's that is held back included.
    n_waits: int = 0
    is_held_back: bool = False
    #: Items that a generator has made.
    n_items: int = 0
    is_cancelled: bool = False
    #: Whether what it has submitted is to be cancelled as well, if it does not return all the same.
    is_cancelled_below: bool = False
    #: Whether its actor has been dismissed meanwhile (``disowned.py``); and what its caller is told of that at its end.
    is_disowned: bool = False
    farewell: Failure | None = None
    #: The actor that it constructs, or whose method it is.
    actor_id: int = 0
