"""Transfers: which objects have their bytes on this rank, and how the bytes of others get here.

A *copy* is an object whose bytes are, or will be, on this rank: a stored result or put (its primary copy), or a cached
copy read from elsewhere. Runs pin the copies that are their arguments. A copy is freed when its object is collected or
released and nobody pins or sends it. A read that is no longer wanted cannot be stopped in the middle, because the
buffer belongs to the edge until the last byte; it is abandoned, and freed when it completes.

The holder is asked only when the reader has room, so the request leaves with the performing of ``StartRead`` and not
here: what a holder sends, somebody must receive.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hpcfut.core.context import Context
from hpcfut.core.effects import FreeSegment, SendObject, StartRead
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.ids import name_of
from hpcfut.wire.messages import ReadRefused, ReadRequested

ABSENT: Final = "absent"
IN_FLIGHT: Final = "in flight"
LOCAL: Final = "local"
MISSING: Final = "missing"
ABANDONED: Final = "abandoned"
DOOMED: Final = "doomed"
FREED: Final = "freed"

TRANSITIONS: Final = {
    (ABSENT, "store"): LOCAL,
    (ABSENT, "start"): IN_FLIGHT,
    (IN_FLIGHT, "completed"): LOCAL,
    (IN_FLIGHT, "no room"): MISSING,
    (IN_FLIGHT, "failed"): MISSING,
    (IN_FLIGHT, "free"): ABANDONED,
    (ABANDONED, "start"): IN_FLIGHT,
    (ABANDONED, "completed"): FREED,
    (ABANDONED, "no room"): FREED,
    (ABANDONED, "failed"): FREED,
    (MISSING, "free"): FREED,
    (LOCAL, "free"): FREED,
    (LOCAL, "free while sending"): DOOMED,
    (DOOMED, "sent"): FREED,
}


class Copy(msgspec.Struct, gc=False, eq=False):
    """The bytes of one object on this rank."""

    object_id: int
    state: str
    nbytes: int
    transfer_id: int = 0
    #: Runs here that have it as argument.
    n_pins: int = 0
    #: Transfers from here that are under way.
    n_sends: int = 0
    #: Whether an object table of this rank (and not only a run) wants it.
    is_held: bool = False
    #: Runs (positive) and waiters (negative) to tell when it has arrived.
    watchers: dict[int, None] | None = None
    failure: Failure | None = None


class Transfers:
    """The table of copies on this rank."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._next = context.make_table("transfers", TRANSITIONS)
        self.copies: dict[int, Copy] = {}
        self._reads: dict[int, int] = {}
        self._n_transfers = 0
        #: Arrivals to settle: (object id, its watchers).

    def store(self, object_id: int, nbytes: int) -> None:
        """A put or a result has been sealed here."""
        self.copies[object_id] = Copy(object_id, self._next[ABSENT, "store"], nbytes, is_held=True)

    def find(self, object_id: int) -> Copy | None:
        """The copy of an object if its bytes are here, or if reading them has failed."""
        copy = self.copies.get(object_id)
        return copy if copy is not None and copy.state in (LOCAL, MISSING) else None

    def need(self, object_id: int, rank: int, nbytes: int, watcher: int, *, is_held: bool) -> bool:
        """Read an object that is not here from ``rank``, unless it is on its way.

        ``watcher`` is told when it has arrived; gives false if it is going to be told already.
        """
        copy = self.copies.get(object_id)
        if copy is None:
            copy = self.copies[object_id] = Copy(object_id, self._next[ABSENT, "start"], nbytes)
            self._n_transfers += 1
            copy.transfer_id = self._n_transfers
            self._reads[copy.transfer_id] = object_id
            self._context.effects.append(StartRead(copy.transfer_id, object_id, rank, nbytes))
        elif copy.state == ABANDONED:
            copy.state = self._next[ABANDONED, "start"]
        if is_held:
            copy.is_held = True
        assert copy.state == IN_FLIGHT
        if copy.watchers is None:
            copy.watchers = {}
        elif watcher in copy.watchers:
            return False
        copy.watchers[watcher] = None
        return True

    def pin(self, object_id: int) -> None:
        """A run has this copy as argument."""
        self.copies[object_id].n_pins += 1

    def unpin(self, object_id: int) -> None:
        """The run has ended."""
        copy = self.copies[object_id]
        copy.n_pins -= 1
        if not copy.n_pins and not copy.is_held:
            self._free(copy)

    def unwatch(self, object_id: int, watcher: int) -> None:
        """Whoever waited for the arrival waits no more."""
        copy = self.copies.get(object_id)
        if copy is not None and copy.watchers is not None:
            copy.watchers.pop(watcher, None)

    def free(self, object_id: int) -> None:
        """The object was collected (owner), released (borrower), or freed by its owner (holder)."""
        copy = self.copies.get(object_id)
        if copy is None or copy.state == ABANDONED:
            return
        copy.is_held = False
        if not copy.n_pins:
            self._free(copy)

    def _free(self, copy: Copy) -> None:
        if copy.state == LOCAL and copy.n_sends:
            copy.state = self._next[LOCAL, "free while sending"]
            return
        state, copy.state = copy.state, self._next[copy.state, "free"]
        if copy.state == FREED:
            self._forget(copy, has_segment=state == LOCAL)

    def _forget(self, copy: Copy, *, has_segment: bool) -> None:
        del self.copies[copy.object_id]
        if has_segment:
            self._context.effects.append(FreeSegment(copy.object_id))

    def on_read_completed(self, transfer_id: int) -> None:
        """The bytes are here and sealed."""
        copy = self.copies[self._reads.pop(transfer_id)]
        copy.state = self._next[copy.state, "completed"]
        self._settle(copy, has_segment=True)

    def on_room_denied(self, transfer_id: int, failure: Failure) -> None:
        """There is no room for the bytes here."""
        copy = self.copies[self._reads.pop(transfer_id)]
        copy.state = self._next[copy.state, "no room"]
        copy.failure = failure
        self._settle(copy, has_segment=False)

    def on_read_failed(self, transfer_id: int, failure: Failure) -> None:
        """The bytes will not come."""
        copy = self.copies[self._reads.pop(transfer_id)]
        copy.state = self._next[copy.state, "failed"]
        copy.failure = failure
        self._settle(copy, has_segment=True)

    def _settle(self, copy: Copy, *, has_segment: bool) -> None:
        if copy.state == FREED:
            self._forget(copy, has_segment=has_segment)
            return
        if copy.state == MISSING and has_segment:
            self._context.effects.append(FreeSegment(copy.object_id))
        if copy.watchers:
            watchers, copy.watchers = copy.watchers, None
            self._context.arrived.append((copy.object_id, watchers))

    def on_read_requested(self, source: int, message: ReadRequested) -> None:
        """A reader has room for an object that it believes to be here."""
        copy = self.copies.get(message.object_id)
        if copy is None or copy.state != LOCAL:
            self._context.count_stale("read of an object that is not here")
            self._context.send(source, ReadRefused(message.object_id, message.transfer_id))
            return
        copy.n_sends += 1
        self._context.effects.append(SendObject(message.transfer_id, message.object_id, source))

    def on_read_refused(self, source: int, message: ReadRefused) -> None:
        """The holder does not hold it."""
        self.on_read_failed(
            message.transfer_id,
            Failure(
                LOST,
                f"Rank {source} was said to hold object {name_of(message.object_id)}, but does not. Keep a ref to an "
                f"object for as long as it is read.",
            ),
        )

    def on_send_completed(self, object_id: int) -> None:
        """All bytes have left."""
        copy = self.copies[object_id]
        copy.n_sends -= 1
        if copy.state == DOOMED and not copy.n_sends:
            copy.state = self._next[DOOMED, "sent"]
            self._forget(copy, has_segment=True)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for object_id, copy in self.copies.items():
            name = name_of(object_id)
            if copy.n_pins < 0 or copy.n_sends < 0:
                raise InvariantError(f"The copy of object {name} has negative counts: {copy}.")
            if copy.state == LOCAL and not (copy.is_held or copy.n_pins):
                raise InvariantError(f"The copy of object {name} is wanted by nobody and was not freed.")
            if copy.watchers and copy.state != IN_FLIGHT:
                raise InvariantError(f"The copy of object {name} is {copy.state}, but its watchers were not told.")
