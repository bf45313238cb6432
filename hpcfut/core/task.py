"""One task on the rank that submitted it: its record and its life."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from hpcfut.core.address import Address
from hpcfut.core.templates import OwnTemplate

NEW: Final = "new"
WAITING: Final = "waiting"
QUEUED: Final = "queued"
PUSHED: Final = "pushed"
RETURNED: Final = "returned"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

TRANSITIONS: Final = {
    (NEW, "wait"): WAITING,
    (NEW, "queue"): QUEUED,
    (NEW, "fail"): FAILED,
    (WAITING, "queue"): QUEUED,
    (WAITING, "fail"): FAILED,
    (WAITING, "cancel"): CANCELLED,
    (QUEUED, "push"): PUSHED,
    (QUEUED, "cancel"): CANCELLED,
    (QUEUED, "give up"): FAILED,
    (PUSHED, "refuse"): QUEUED,
    (QUEUED, "lose argument"): WAITING,
    (PUSHED, "hand back"): QUEUED,
    (PUSHED, "retry"): QUEUED,
    (PUSHED, "return"): RETURNED,
    (PUSHED, "fail"): FAILED,
    (PUSHED, "cancel"): CANCELLED,
}


class TaskRecord(msgspec.Struct, gc=False, eq=False):
    """A task that this rank submitted and that has not ended for good."""

    task_id: int
    template: OwnTemplate
    payload: bytes
    return_ids: tuple[int, ...]
    arguments: tuple[int, ...]
    nested: tuple[int, ...]
    #: The task that submitted it, 0 for a driver.
    parent: int
    state: str = NEW
    #: Arguments that are not ready.
    n_missing: int = 0
    #: The lease under which it was pushed; None while it waits, and when it runs on the stack of whoever waits for it.
    lease_id: int = 0
    #: Where it was pushed.
    rank: int = -1
    #: The rank that it waits for, because its arguments are near; -1 while any would do.
    awaits: int = -1
    #: Failed attempts so far.
    n_retries: int = 0
    #: For a generator: names for its further items, the last of which is kept back for telling its end.
    items: deque[int] | None = None
    #: Items that have come.
    n_items: int = 0
    #: Whether its end shall be a cancellation, unless it has ended already.
    is_cancelled: bool = False
    #: Of a call of a method: the actor's address. Such a task has no queue and no lease.
    address: Address | None = None
