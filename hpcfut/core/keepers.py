"""Keepers: the ranks that keep what they have read of an object that this rank owns.

The owner knows them because it has sent them the object with a task: to another host than it is stored on, or, if it is
read from its source, to any rank. So it costs no message that tasks go there again (``locality.py``). What was read
from a source is kept until the owner says that nobody will want it any more. What was read from a rank makes way
without the owner's help, and its end is told by that rank, which redirects others to it (``readers.py``).
"""

from __future__ import annotations

from hpcfut.core.borrowing import BorrowedObject
from hpcfut.core.context import Context
from hpcfut.core.ownership import OwnedObject, Ownership
from hpcfut.core.transfers import Transfers
from hpcfut.model.ids import owner_of
from hpcfut.wire.messages import CopyGone, RedirectionEnded


class Keepers:
    """Notes them in the records of this rank's objects."""

    def __init__(self, context: Context, ownership: Ownership, transfers: Transfers) -> None:
        self._context = context
        self._objects = ownership.objects
        self._transfers = transfers
        self._readers = transfers.readers

    def tell_recipe(self, record: OwnedObject | BorrowedObject, rank: int) -> bytes:
        """How an object is read from its source; a rank that hears it from the owner keeps what it has read."""
        if isinstance(record, OwnedObject) and rank != self._context.rank:
            _note(record, rank)
        return self._transfers.recipe_of(record.object_id)

    def note_sent(self, record: OwnedObject | BorrowedObject, rank: int) -> None:
        """A task with this stored argument goes to a rank; if that is on another host, it is read for that host."""
        if isinstance(record, OwnedObject) and not self._readers.are_on_one_host(rank, record.rank):
            _note(record, rank)

    def forget(self, rank: int) -> None:
        """A rank is dead: it keeps nothing, and waits for nothing."""
        for record in self._objects.values():
            for ranks in (record.keepers, record.askers):
                if ranks is not None:
                    ranks.pop(rank, None)

    def free(self, record: OwnedObject) -> None:
        """An object with a source is collected."""
        for rank in record.keepers or ():
            self._context.send(rank, RedirectionEnded(record.object_id))

    def on_copy_gone(self, source: int, message: CopyGone) -> None:
        """What a rank has read is not there any more: who redirects others to it hears of it, and tells the owner."""
        object_id, rank = message.object_id, message.rank
        self._context.demand_rank(rank)
        record = self._objects.get(object_id)
        if record is not None and record.keepers:
            is_near = self._readers.are_on_one_host
            record.keepers = {other: None for other in record.keepers if not is_near(other, rank)}
        if record is not None and record.rank != self._context.rank:
            return
        owner = owner_of(object_id)
        if self._readers.end(source, message) and owner != self._context.rank:
            self._context.send(owner, message)


def _note(record: OwnedObject, rank: int) -> None:
    if record.keepers is None:
        record.keepers = {}
    record.keepers[rank] = None
