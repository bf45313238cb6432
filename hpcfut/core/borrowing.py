"""Borrowing: refs that this rank holds to objects of other owners, and how their owners learn of it.

Theory of operation (after Wang et al., NSDI'21, section 4.2, and Ray's reference counter, with one simplification)

A rank that holds a ref to an object it does not own is a *borrower*. The owner may collect an object only when nobody
holds it, so every hold must be visible to the owner, or be *covered* by somebody whose own hold is:

1. A task's arguments, and the refs nested in them, are held by the caller until the task has ended. While it runs, the
   executor is covered by the caller and tells nobody.
2. When the task ends, the reply lists the covered refs that the executor still holds. The caller *reports* the executor
   as a borrower, and only then lets go of its own hold.
3. A value that contains refs is handed on (reply, resolved object, item, function) by a rank that holds these refs. The
   sender reports the receiver as a borrower of each, and holds on until the report has arrived.
4. To report means: the owner itself counts at once; anybody else sends ``BorrowAdded`` to the owner and keeps a hold of
   its own (``n_uses``) until ``BorrowConfirmed`` comes back. Because of this hold, a report can never be overtaken by
   the release that it protects against, whatever the order of messages between different pairs of ranks.
5. A borrower notes how often each reporter has named it (``reports``; the reporter's message to the borrower always
   says so by itself). When its last hold goes, it sends ``BorrowReleased`` with these numbers to the owner.
6. The owner keeps one signed count per (reporter, borrower), because a release may arrive before the report it answers.
   Per pair the counts become exact once both have arrived; the object lives while any of them is not zero. One count
   per borrower would not do: the early release of one report would hide another.

No report is needed where borrower and owner are the same rank, nor where the receiver already knows (the reporter is
the owner: rule 4). What is not promised: cycles of refs are not collected, also where
lineage is part of them. What becomes of these rules when a rank dies is told in ``deaths.py``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hpcfut.core.context import Context
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import Failure
from hpcfut.model.ids import name_of, owner_of

UNKNOWN: Final = "unknown"
ASKED: Final = "asked"
INLINE: Final = "inline"
STORED: Final = "stored"
FAILED: Final = "failed"
RELEASED: Final = "released"

TRANSITIONS: Final = {
    (UNKNOWN, "ask"): ASKED,
    (UNKNOWN, "release"): RELEASED,
    (ASKED, "resolved inline"): INLINE,
    (ASKED, "resolved stored"): STORED,
    (ASKED, "failed"): FAILED,
    (ASKED, "release"): RELEASED,
    (INLINE, "release"): RELEASED,
    (STORED, "lose"): ASKED,
    (STORED, "release"): RELEASED,
    (FAILED, "told"): UNKNOWN,
    (UNKNOWN, "owner died"): FAILED,
    (ASKED, "owner died"): FAILED,
    (INLINE, "owner died"): FAILED,
    (STORED, "owner died"): FAILED,
    (FAILED, "release"): RELEASED,
}


class BorrowedObject(msgspec.Struct, gc=False, eq=False):
    """One object of another owner that this rank holds."""

    object_id: int
    state: str = UNKNOWN
    n_local: int = 0
    #: Holds of the core, as in ``OwnedObject``; a cover of an unfinished task here is one of them.
    n_uses: int = 0
    #: Those of them that are there for reports to the owner which it has not confirmed.
    n_unconfirmed: int = 0
    payload: bytes | None = None
    failure: Failure | None = None
    rank: int = -1
    nbytes: int = 0
    bytes_id: int = 0
    contained: tuple[int, ...] = ()
    #: Reporter → how often it named this rank as a borrower since the last release.
    reports: dict[int, int] | None = None
    watchers: dict[int, None] | None = None


class Borrowing:
    """The table of borrowed objects."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._next = context.make_table("borrowing", TRANSITIONS)
        self.objects: dict[int, BorrowedObject] = {}

    def ensure(self, object_id: int) -> BorrowedObject:
        """The record of a borrowed object, made if it is new. The caller adds a hold before the turn ends."""
        record = self.objects.get(object_id)
        if record is None:
            record = self.objects[object_id] = BorrowedObject(object_id)
        return record

    def move(self, record: BorrowedObject, what: str) -> None:
        """Take a transition of the table."""
        record.state = self._next[record.state, what]

    def release(self, record: BorrowedObject) -> None:
        """Nobody here holds the object: forget it."""
        record.state = self._next[record.state, "release"]
        del self.objects[record.object_id]

    def check(self) -> None:
        """Assert what must hold between turns."""
        for object_id, record in self.objects.items():
            name = name_of(object_id)
            if owner_of(object_id) == self._context.rank:
                raise InvariantError(f"Rank {self._context.rank} has borrowed object {name} from itself.")
            if owner_of(object_id) in self._context.apart and (record.state == ASKED or record.n_unconfirmed):
                raise InvariantError(f"Somebody here waits for the dead owner of object {name}: {record}.")
            if record.n_local < 0 or record.n_uses < record.n_unconfirmed or record.n_unconfirmed < 0:
                raise InvariantError(f"Borrowed object {name} has negative counts: {record}.")
            if not (record.n_local or record.n_uses):
                raise InvariantError(f"Borrowed object {name} is held by nobody and was not released: {record}.")
            if (record.state == INLINE) != (record.payload is not None):
                raise InvariantError(f"Borrowed object {name} is {record.state}, which its payload contradicts.")
