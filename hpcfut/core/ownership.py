"""Ownership: what this rank knows of the objects it created (Wang et al., NSDI'21, section 4.1).

One record an object: its value or place, who holds it here (``n_local`` refs in user code, ``n_uses`` holds of the core
itself), and who holds it elsewhere (``borrowers``, counted per pair of reporter and borrower; why, is told in
``borrowing.py``). An object is collected when nobody holds it any more and it is not pending; a pending object that
nobody holds is collected as soon as its result comes. Of an object that a lost one might have to be made from, a record
without a value stays: it is *retired* (``lineage.py``).
"""

from __future__ import annotations

from typing import Final

import msgspec

from hpcfut.core.context import Context, Unheld
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.ids import name_of, owner_of

PENDING: Final = "pending"
INLINE: Final = "inline"
STORED: Final = "stored"
FAILED: Final = "failed"
RETIRED: Final = "retired"
#: It stands for an actor, which its handles hold, and has no value.
ACTOR: Final = "actor"
COLLECTED: Final = "collected"

#: Stands for the rank that stores an object whose bytes each rank reads from their source by itself.
SOURCE: Final = -2

TRANSITIONS: Final = {
    (PENDING, "returned inline"): INLINE,
    (PENDING, "returned stored"): STORED,
    (PENDING, "failed"): FAILED,
    (INLINE, "collect"): COLLECTED,
    (STORED, "collect"): COLLECTED,
    (STORED, "lose"): PENDING,
    (STORED, "retire"): RETIRED,
    (FAILED, "collect"): COLLECTED,
    (FAILED, "retire"): RETIRED,
    (RETIRED, "make again"): PENDING,
    (RETIRED, "collect"): COLLECTED,
    (PENDING, "create"): ACTOR,
    (ACTOR, "collect"): COLLECTED,
}


class OwnedObject(msgspec.Struct, gc=False, eq=False):
    """One object that this rank owns."""

    object_id: int
    state: str
    #: Python refs in user code of this rank.
    n_local: int = 0
    #: Holds of the core: arguments of unfinished tasks, containment in a live object, covers, unconfirmed reports.
    n_uses: int = 0
    #: The task that makes it, 0 for a put.
    task_id: int = 0
    payload: bytes | None = None
    failure: Failure | None = None
    #: Where the primary copy is stored, if it is; or ``SOURCE``.
    rank: int = -1
    nbytes: int = 0
    #: Ranks that were sent it with a task from here, and keep it: on other hosts than it is on, or from its source.
    keepers: dict[int, None] | None = None
    #: Under which id the bytes are stored; another one than the object's once that has been made again.
    bytes_id: int = 0
    #: Refs inside the value, and inside those it has had before it was lost; each is held once while the value lives.
    contained: tuple[int, ...] = ()
    #: (reporter, borrower) → signed count; the object lives while any is not zero.
    borrowers: dict[tuple[int, int], int] | None = None
    #: Local watchers: a positive entry is a task that has it as argument, a negative one a waiter.
    watchers: dict[int, None] | None = None
    #: Other ranks that asked for the value before it was there.
    askers: dict[int, None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether anybody anywhere may still want the value."""
        return bool(self.n_local or self.n_uses or self.borrowers)


class Ownership:
    """The table of owned objects."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._next = context.make_table("ownership", TRANSITIONS)
        self._on_inline, self._on_collect = self._next.on("returned inline"), self._next.on("collect")
        self.objects: dict[int, OwnedObject] = {}

    def set_inline(self, record: OwnedObject, payload: bytes, contained: tuple[int, ...]) -> None:
        """The value is small and came along."""
        record.state = self._on_inline[record.state]
        record.payload = payload
        record.contained = contained
        if record.watchers:
            self._context.ready.append(record.object_id)

    def set_stored(
        self, record: OwnedObject, rank: int, nbytes: int, contained: tuple[int, ...], bytes_id: int
    ) -> None:
        """The value is stored, sealed, on a rank."""
        record.state = self._next[record.state, "returned stored"]
        record.rank = rank
        record.nbytes = nbytes
        record.bytes_id = bytes_id
        record.contained = contained
        if record.watchers:
            self._context.ready.append(record.object_id)

    def add_actor(self, actor_id: int) -> None:
        """User code created an actor, and holds it once."""
        record = self.objects[actor_id] = OwnedObject(actor_id, PENDING, 1)
        record.state = self._next[record.state, "create"]

    def set_failed(self, record: OwnedObject, failure: Failure) -> None:
        """The value will never exist."""
        record.state = self._next[record.state, "failed"]
        record.failure = failure
        if record.watchers:
            self._context.ready.append(record.object_id)

    def reopen(self, record: OwnedObject, why: str) -> None:
        """The value is lost, or had been given up: it is made again."""
        record.state = self._next[record.state, why]
        record.rank, record.keepers = -1, None

    def retire(self, record: OwnedObject) -> None:
        """Nobody holds the object; but one that is made from it might have to be made again."""
        record.state = self._next[record.state, "retire"]
        record.failure, record.contained = None, ()

    def collect(self, record: OwnedObject) -> None:
        """Nobody holds the object: take it out of the table."""
        if record.state == ACTOR:
            self._context.inbox.append(Unheld(record.object_id))
        record.state = self._on_collect[record.state]
        del self.objects[record.object_id]

    def check(self) -> None:
        """Assert what must hold between turns."""
        for object_id, record in self.objects.items():
            name = name_of(object_id)
            if record.n_local < 0 or record.n_uses < 0:
                raise InvariantError(f"Object {name} has negative counts: {record}.")
            if record.state not in (PENDING, RETIRED) and not record.is_held:
                raise InvariantError(f"Object {name} is held by nobody and was not collected: {record}.")
            if record.state == PENDING and not record.task_id:
                raise InvariantError(f"Object {name} is pending, but no task makes it.")
            if record.state != PENDING and record.askers:
                raise InvariantError(f"Object {name} is ready, but ranks that asked for it were not told: {record}.")
            if (record.state == INLINE) != (record.payload is not None):
                raise InvariantError(f"Object {name} is {record.state}, which its payload contradicts.")


def lost_failure(object_id: int) -> Failure:
    """What a ref to a collected object gives."""
    return Failure(
        LOST,
        f"Object {name_of(object_id)} is not known to its owner, rank {owner_of(object_id)}, any more. Every ref to it "
        f"had been dropped; keep a ref, or pass it as an argument, instead of rebuilding it from its id.",
    )
