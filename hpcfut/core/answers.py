"""Answers: what owners tell the borrowers who asked for a value, and what becomes of it if the bytes are lost."""

from __future__ import annotations

from collections.abc import Callable

from hpcfut.core.borrowing import ASKED, FAILED, STORED, BorrowedObject
from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.ownership import SOURCE
from hpcfut.core.references import References
from hpcfut.core.transfers import Transfers
from hpcfut.model.failure import UNRECOVERABLE, Failure
from hpcfut.model.ids import owner_of
from hpcfut.wire.messages import ObjectFailed, ObjectLocated, ObjectLost, ObjectResolved


class Answers:
    """The borrower's side; the owner's is in ``references.py``."""

    def __init__(self, context: Context, references: References, copies: Copies, transfers: Transfers) -> None:
        self._context = context
        self._references = references
        self._borrowing = references.borrowing
        self._copies = copies
        self._transfers = transfers
        #: Told of an object that cannot be made again when those have been told who wait for it. Bound in
        #: ``recovery.py``.
        self.on_lost_for_good: Callable[[BorrowedObject], None] = lambda record: None

    def lose(self, record: BorrowedObject, failure: Failure) -> None:
        """Borrower: the bytes cannot be had. The owner will say where there are others, or why not."""
        self._references.free_cached(record)
        self._borrowing.move(record, "lose")
        record.rank = -1
        self._context.send(owner_of(record.object_id), ObjectLost(record.object_id, record.bytes_id, failure))

    def fail(self, owner: int, failure_of: Callable[[int], Failure]) -> list[BorrowedObject]:
        """Borrower: the owner has died. Gives its objects; they have failed now, also where the value was known here.

        What was inside the values stays held with the objects, because tasks elsewhere may be reading them.
        """
        records = [record for record in self._borrowing.objects.values() if owner_of(record.object_id) == owner]
        for record in records:
            if record.state == FAILED:
                continue
            if record.state == STORED:
                self._move_watchers(record)
                self._references.free_cached(record)
            self._borrowing.move(record, "owner died")
            record.payload, record.rank, record.failure = None, -1, failure_of(record.object_id)
            if record.watchers:
                self._context.ready.append(record.object_id)
        return records

    def _move_watchers(self, record: BorrowedObject) -> None:
        """Whoever here waits for the bytes of an object waits for the object."""
        copy = self._copies.copies.get(record.bytes_id)
        if copy is not None and copy.watchers:
            waiters = {watcher: None for watcher in copy.watchers if watcher < 0}
            copy.watchers = {watcher: None for watcher in copy.watchers if watcher > 0}
            record.watchers = (record.watchers or {}) | waiters

    def on_answer(self, source: int, message: ObjectResolved | ObjectLocated | ObjectFailed) -> None:
        """Borrower: the owner answers. It may come too late; then the reports for the contents are returned at once."""
        record = self._borrowing.objects.get(message.object_id)
        if record is None or record.state != ASKED:
            self._context.count_stale("answer to a released ref")
            if not isinstance(message, ObjectFailed):
                self._references.accept_all(message.contained, source)
                self._references.drop_all(message.contained)
            if isinstance(message, ObjectLocated) and message.offset >= 0:
                self._transfers.return_loan(message.bytes_id or message.object_id, source)
            return
        if isinstance(message, ObjectFailed):
            self._borrowing.move(record, "failed")
            record.failure = message.failure
            if message.failure.kind == UNRECOVERABLE:
                self._context.put_off.append((self.on_lost_for_good, record))
        else:
            self._references.accept_all(message.contained, source)
            record.contained += message.contained
            record.bytes_id = object_id = message.object_id
            if isinstance(message, ObjectResolved) and message.nbytes:
                self._borrowing.move(record, "resolved stored")
                record.rank, record.nbytes = SOURCE, message.nbytes
                self._copies.add_source(object_id, message.payload, message.nbytes, source).is_held = True
            elif isinstance(message, ObjectResolved):
                self._borrowing.move(record, "resolved inline")
                record.payload = message.payload
            else:
                self._context.demand_rank(message.rank)
                self._borrowing.move(record, "resolved stored")
                record.rank, record.nbytes = message.rank, message.nbytes
                if message.bytes_id:
                    record.bytes_id = message.bytes_id
                    self._references.names[record.bytes_id] = object_id
                if message.offset >= 0:
                    self._transfers.accept_loan(record.bytes_id, source, message.offset, message.nbytes, is_held=True)
        if record.watchers:
            self._context.ready.append(message.object_id)
