"""What a rank knows of one actor that it calls: the record and its life."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from hpcfut.model.failure import Failure
from hpcfut.wire.actors import ActorLocated

if TYPE_CHECKING:
    from hpcfut.core.task import TaskRecord

NEW: Final = "new"
ASKING: Final = "asking"
KNOWN: Final = "known"
GONE: Final = "gone"

TRANSITIONS: Final = {
    (NEW, "ask"): ASKING,
    (ASKING, "locate"): KNOWN,
    (ASKING, "end"): GONE,
    (KNOWN, "lose"): ASKING,
    (KNOWN, "locate"): KNOWN,
    (KNOWN, "end"): GONE,
}


class Address(msgspec.Struct, gc=False, eq=False):
    """Where an actor lives, and the calls of this rank that wait for it."""

    actor_id: int
    state: str = NEW
    #: Where its calls are sent.
    rank: int = -1
    #: Whether it may be started once more, if it dies there.
    is_lasting: bool = False
    #: Calls that have not been sent, in the order in which they were made; cancelled ones leave lazily.
    queue: deque[TaskRecord] = msgspec.field(default_factory=deque)
    #: Calls that have not ended; and those of them that are with the actor.
    n_calls: int = 0
    n_there: int = 0
    #: Where it lives now, while calls are still under way from where it lived before.
    moves_to: ActorLocated | None = None
    failure: Failure | None = None
