"""What the machines of one rank's core share: who they are, the time of the turn, and where their output goes.

Machines never call each other re-entrantly. What one of them causes for another is queued here and settled by
``rank.py`` before the event is done: messages to the own rank (``inbox``) and objects that became ready (``ready``).
What is sent to a dead rank comes back through the same queue, so that no machine need ask whether a rank lives.

Accounts that nobody waits for are *put off* to the end of the next turn: what a task's end does to leases and slots
would else stand between one task and the next. They are settled before any other event than a submission is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from hpcfut.core.effects import Effect, SendMessage
from hpcfut.model.config import Config
from hpcfut.model.errors import IllegalTransitionError
from hpcfut.wire.messages import Message

Key = TypeVar("Key")

#: Later than any instant.
NEVER: Final = float("inf")

Transitions = Mapping[tuple[str, str], str]


class Table(dict[tuple[str, str], str]):
    """A transition table: (state, input) → next state. A pair that is not there cannot happen."""

    def __init__(self, machine: str, transitions: Transitions) -> None:
        super().__init__(transitions)
        self.machine = machine

    def on(self, happening: str) -> Column:
        """The column of one input: state → next state, which is faster to look up than a pair."""
        return Column(self, happening, {state: after for (state, what), after in self.items() if what == happening})

    def __missing__(self, pair: tuple[str, str]) -> str:
        raise IllegalTransitionError(
            f"The {self.machine} machine was told {pair[1]!r} in state {pair[0]!r}, which its table does not allow. "
            f"This is a bug in hpcfut; please report it with the trace."
        )


class Column(dict[str, str]):
    """Part of a table; for a state that is not there the table is asked."""

    def __init__(self, table: Table, happening: str, known: dict[str, str]) -> None:
        super().__init__(known)
        self._table = table
        self._happening = happening

    def __missing__(self, state: str) -> str:
        return self._table[state, self._happening]


Handler = Callable[..., None]


class Handlers(dict[type, Handler]):
    """What is done about each kind of event."""

    def __missing__(self, kind: type) -> Handler:
        raise IllegalTransitionError(f"The core was given a {kind.__name__}, which is no event.")


MakeTable = Callable[[str, Transitions], Table]


class Undelivered(msgspec.Struct, gc=False):
    """What this rank would have sent to a rank that is dead; ``deaths.py`` answers in its stead."""

    rank: int
    message: Message


class Unheld(msgspec.Struct, gc=False):
    """Nobody holds this actor of the own rank any more."""

    actor_id: int


class Context:
    """Shared by all machines of one rank; see the module's docstring."""

    __slots__ = (
        "apart",
        "arrived",
        "config",
        "due_at",
        "effects",
        "inbox",
        "make_table",
        "n_ranks",
        "now",
        "put_off",
        "rank",
        "ready",
        "runnable",
        "stale",
    )

    def __init__(self, rank: int, n_ranks: int, config: Config, make_table: MakeTable) -> None:
        self.rank = rank
        self.n_ranks = n_ranks
        self.config = config
        self.make_table = make_table
        self.now = 0.0
        #: When something is due; it may come earlier than the first deadline, never later.
        self.due_at = NEVER
        self.effects: list[Effect] = []
        #: Ranks to which no frame goes: the own one, and those that are dead.
        self.apart: dict[int, None] = {rank: None}
        #: Messages from this rank to itself, and to ranks that are dead; and actors that are to end.
        self.inbox: deque[Message | Undelivered | Unheld] = deque()
        #: Objects that became ready while somebody here watches them.
        self.ready: deque[int] = deque()
        #: Objects whose bytes are at hand, or will never be, and of which those who watch the copies must be told.
        self.arrived: deque[int] = deque()
        #: Tasks that found no room with any lease, or came back: whoever waits for one may run it on the spot.
        self.runnable: deque[int] = deque()
        #: What is put off: how to settle it, and for whom.
        self.put_off: list[tuple[Callable[[Any], None], Any]] = []
        #: Inputs that came too late to matter, by name; each kind is expected and named where it is counted.
        self.stale: dict[str, int] = {}

    def send(self, rank: int, message: Message) -> None:
        """Send to any rank, the own one and dead ones included."""
        if rank in self.apart:
            self.inbox.append(message if rank == self.rank else Undelivered(rank, message))
        else:
            self.effects.append(SendMessage(rank, message))

    def demand_rank(self, rank: int) -> None:
        """Refuse a rank that a message names and the job does not have: nothing could be sent there."""
        if not 0 <= rank < self.n_ranks:
            raise IllegalTransitionError(f"It names rank {rank}, but the job has ranks 0 to {self.n_ranks - 1} only.")

    def demand_next(self, rank: int) -> None:
        """Refuse a rank as the next of the job that is not."""
        if rank != self.n_ranks:
            raise IllegalTransitionError(f"It names rank {rank} as the next one, but the job has {self.n_ranks} ranks.")

    def wake_at(self, at: float) -> None:
        """See to it that deadlines are looked at then."""
        if at < self.due_at:
            self.due_at = at

    def count_stale(self, name: str) -> None:
        """Count an input that is allowed to come late."""
        self.stale[name] = self.stale.get(name, 0) + 1


def increment(counts: dict[Key, int], key: Key, by: int) -> int:
    """Add to a signed count and forget it at zero; returns the new count."""
    n = counts.get(key, 0) + by
    if n:
        counts[key] = n
    else:
        counts.pop(key, None)
    return n
