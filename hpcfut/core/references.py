"""References: holds on objects, owned or borrowed, and the messages that keep their owners informed.

This is the only place where an object's life ends. The rules are told in ``borrowing.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from hpcfut.core.borrowing import UNKNOWN, BorrowedObject, Borrowing
from hpcfut.core.context import Context, increment
from hpcfut.core.copies import Copies
from hpcfut.core.events import SourcePut
from hpcfut.core.keepers import Keepers
from hpcfut.core.ownership import FAILED, INLINE, PENDING, RETIRED, SOURCE, STORED, OwnedObject, Ownership, lost_failure
from hpcfut.core.transfers import Transfers
from hpcfut.model.errors import IllegalTransitionError
from hpcfut.model.failure import Failure
from hpcfut.model.ids import RANK_SHIFT, name_of, owner_of
from hpcfut.wire.messages import (
    BorrowAdded,
    BorrowConfirmed,
    BorrowReleased,
    Message,
    ObjectAsked,
    ObjectFailed,
    ObjectFreed,
    ObjectLocated,
    ObjectResolved,
    Result,
)

Record = OwnedObject | BorrowedObject


class References:
    """Holds of this rank, on its own objects and on those of others."""

    def __init__(
        self, context: Context, ownership: Ownership, borrowing: Borrowing, copies: Copies, transfers: Transfers
    ) -> None:
        self._context = context
        self._rank = context.rank
        self.ownership = ownership
        self.borrowing = borrowing
        self._copies = copies
        self._transfers = transfers
        self.keepers = Keepers(context, ownership, transfers)
        #: Objects whose last hold may have gone; a list, not a recursion, because chains of refs can be long.
        self._dropped: deque[int] = deque()
        self._is_draining = False
        #: Bytes that have another id than the object that they are of, here or elsewhere → that object.
        self.names: dict[int, int] = {}
        #: Ranks that are dead, and of which all others have told what they hold because of them (``burials.py``).
        self.buried: dict[int, None] = {}
        #: Told of a stored or failed object that nobody holds; gives whether its record stays. Bound in ``lineage.py``.
        self.on_collected: Callable[[OwnedObject], bool] = lambda record: False

    # -- holds -------------------------------------------------------------------------------------------------------

    def find(self, object_id: int) -> Record | None:
        """The record of an object that is held here, or None."""
        if object_id >> RANK_SHIFT == self._rank:
            return self.ownership.objects.get(object_id)
        return self.borrowing.objects.get(object_id)

    def ensure(self, object_id: int) -> Record:
        """The record of an object; an own object that was collected comes back as failed, so that nobody hangs."""
        if object_id >> RANK_SHIFT != self._rank:
            return self.borrowing.ensure(object_id)
        record = self.ownership.objects.get(object_id)
        if record is None or record.state == RETIRED:
            self._context.count_stale("ref to a collected object")
            record = OwnedObject(
                object_id, FAILED, 0, 0, record.task_id if record else 0, None, lost_failure(object_id)
            )
            self.ownership.objects[object_id] = record
        return record

    def hold(self, object_id: int) -> None:
        """Add a hold of the core."""
        self.ensure(object_id).n_uses += 1

    def hold_all(self, object_ids: tuple[int, ...]) -> None:
        """Add a hold of the core to each."""
        for object_id in object_ids:
            self.hold(object_id)

    def drop(self, object_id: int) -> None:
        """Take a hold of the core back."""
        record = self.ensure(object_id)
        record.n_uses -= 1
        if not record.n_uses and not record.n_local:
            self._dropped.append(object_id)
            self._drain()

    def drop_all(self, object_ids: tuple[int, ...]) -> None:
        """Take a hold of the core back from each."""
        owned = self.ownership.objects
        for object_id in object_ids:
            record: Record = owned.get(object_id) or self.ensure(object_id)
            record.n_uses -= 1
            if not (record.n_uses or record.n_local):
                self._dropped.append(object_id)
        if self._dropped:
            self._drain()

    def add_local(self, object_ids: list[int]) -> None:
        """User code holds these refs once more."""
        for object_id in object_ids:
            self.ensure(object_id).n_local += 1

    def drop_local(self, object_ids: list[int]) -> None:
        """User code dropped these refs."""
        owned, borrowed = self.ownership.objects, self.borrowing.objects
        for object_id in object_ids:
            record: Record | None = owned.get(object_id)
            if record is None:
                record = borrowed.get(object_id)
                if record is None:
                    self._context.count_stale("release of an unknown ref")
                    continue
            record.n_local -= 1
            if not (record.n_local or record.n_uses):
                self._dropped.append(object_id)
        if self._dropped:
            self._drain()

    def _drain(self) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        owned, dropped = self.ownership.objects, self._dropped
        while dropped:
            object_id = dropped.popleft()
            record = owned.get(object_id)
            if record is not None:
                if not (record.n_local or record.n_uses or record.borrowers or record.state == PENDING):
                    self._collect(record)
            else:
                borrowed = self.borrowing.objects.get(object_id)
                if borrowed is not None:
                    self._release_if_unheld(borrowed)
        self._is_draining = False

    def _collect(self, record: OwnedObject) -> None:
        if record.state != INLINE:
            if record.state == RETIRED:
                return
            if record.state == STORED:
                self.free_bytes(record)
            if self.on_collected(record):
                self._drop_contained(record)
                self.ownership.retire(record)
                return
        self.ownership.collect(record)
        if record.contained:
            self._drop_contained(record)

    def free_bytes(self, record: OwnedObject) -> None:
        """What is stored of an object is not wanted any more, wherever it is."""
        bytes_id = record.bytes_id
        if record.rank == SOURCE:
            self.keepers.free(record)
        elif record.rank == self._rank:
            self._copies.withdraw(bytes_id)
        else:
            self._context.send(record.rank, ObjectFreed(bytes_id))
        self._copies.free(bytes_id)
        self.names.pop(bytes_id, None)

    def _release_if_unheld(self, record: BorrowedObject) -> None:
        if record.n_local or record.n_uses:
            return
        if record.reports:
            self._context.send(owner_of(record.object_id), BorrowReleased(record.object_id, record.reports))
        if record.rank != -1:
            self.free_cached(record)
        self.borrowing.release(record)
        self._drop_contained(record)

    def free_cached(self, record: BorrowedObject) -> None:
        """Only a cached copy goes; a primary copy here belongs to the owner."""
        copy = self._copies.copies.get(record.bytes_id)
        if copy is not None and not copy.is_primary:
            self._copies.free(record.bytes_id)
        self.names.pop(record.bytes_id, None)

    def _drop_contained(self, record: Record) -> None:
        for contained_id in record.contained:
            inner = self.ensure(contained_id)
            inner.n_uses -= 1
            if not inner.n_uses and not inner.n_local:
                self._dropped.append(contained_id)

    # -- reports (rules 3 to 6) --------------------------------------------------------------------------------------

    def report(self, object_id: int, borrower: int) -> None:
        """See to it that the owner counts ``borrower``; this rank holds the object."""
        owner = object_id >> RANK_SHIFT
        if owner == borrower or borrower in self.buried:
            return
        self._context.demand_rank(owner)
        if owner == self._rank:
            self.count(object_id, owner, borrower)
            return
        record = self.borrowing.ensure(object_id)
        record.n_uses += 1
        record.n_unconfirmed += 1
        self._context.send(owner, BorrowAdded(object_id, borrower))

    def count(self, object_id: int, reporter: int, borrower: int) -> None:
        """Owner: somebody is reported."""
        record = self.ensure(object_id)
        assert isinstance(record, OwnedObject)
        if record.borrowers is None:
            record.borrowers = {}
        if not increment(record.borrowers, (reporter, borrower), 1):
            self._dropped.append(object_id)
            self._drain()

    def report_all(self, object_ids: tuple[int, ...], borrower: int) -> None:
        """Report the borrower of each; nothing where the value goes to the own rank."""
        if borrower != self._rank:
            for object_id in object_ids:
                self.report(object_id, borrower)

    def report_covered(self, held: Iterable[tuple[tuple[int, ...], tuple[int, ...]]], executor: int) -> None:
        """The executor of tasks, which this rank covered, has died: see to it that owners count it until it is buried.

        It may have handed on what it was covered for, which nobody else but the receiver knows. Each task held
        arguments, and refs nested in them.
        """
        covered: dict[int, None] = {}
        for arguments, nested in held:
            covered |= dict.fromkeys(nested)
            for object_id in arguments:
                record = self.find(object_id)
                covered |= dict.fromkeys(record.contained if record is not None else ())
        self.report_all(tuple(covered), executor)

    def accept(self, object_id: int, reporter: int) -> None:
        """Note that ``reporter`` has named this rank as a borrower. The caller adds a hold first, or ``settle``s."""
        owner = object_id >> RANK_SHIFT
        if owner == self._rank or reporter in self._context.apart:
            return
        self._context.demand_rank(owner)
        record = self.borrowing.ensure(object_id)
        if record.reports is None:
            record.reports = {}
        record.reports[reporter] = record.reports.get(reporter, 0) + 1

    def accept_all(self, object_ids: tuple[int, ...], reporter: int) -> None:
        """Note a report for each, and hold each once."""
        for object_id in object_ids:
            self.hold(object_id)
            self.accept(object_id, reporter)

    def on_borrow_added(self, source: int, message: BorrowAdded) -> None:
        """Owner: a holder names a borrower."""
        self._context.demand_rank(message.borrower)
        self._context.send(source, BorrowConfirmed(message.object_id))
        if message.borrower in self.buried:
            self._context.count_stale("report of a dead borrower")
        else:
            self.count(message.object_id, source, message.borrower)

    def on_borrow_confirmed(self, message: BorrowConfirmed) -> None:
        """Reporter: the owner has counted."""
        record = self.borrowing.objects.get(message.object_id)
        if record is None or not record.n_unconfirmed:
            raise IllegalTransitionError(f"Object {name_of(message.object_id)} was not reported.")
        record.n_unconfirmed -= 1
        self.drop(message.object_id)

    def bury(self, dead: dict[int, None]) -> None:
        """Owner: nobody speaks of these ranks any more, and what they held or reported does not count."""
        buried = self.buried
        buried.update(dead)
        for record in self.ownership.objects.values():
            pairs = record.borrowers or {}
            if any(reporter in buried or borrower in buried for reporter, borrower in pairs):
                record.borrowers = {
                    (reporter, borrower): n
                    for (reporter, borrower), n in pairs.items()
                    if reporter not in buried and borrower not in buried
                }
                self._dropped.append(record.object_id)
        self._drain()

    def on_borrow_released(self, source: int, message: BorrowReleased) -> None:
        """Owner: a borrower let go."""
        record = self.ensure(message.object_id)
        assert isinstance(record, OwnedObject)
        if record.borrowers is None:
            record.borrowers = {}
        for reporter, n in message.reports.items():
            increment(record.borrowers, (reporter, source), -n)
        if record.askers is not None:
            record.askers.pop(source, None)
        self._dropped.append(message.object_id)
        self._drain()

    # -- values ------------------------------------------------------------------------------------------------------

    def put(self, object_id: int, result: Result) -> None:
        """User code of this rank put a value and holds one ref on it; contained refs are held by user code too."""
        self.ownership.objects[object_id] = record = OwnedObject(object_id, INLINE, 1)
        self.hold_all(result.contained)
        record.contained = result.contained
        if result.payload is not None:
            record.payload = result.payload
        else:
            self._copies.seal(object_id)
            record.state, record.rank, record.nbytes, record.bytes_id = STORED, self._rank, result.nbytes, object_id

    def put_source(self, event: SourcePut) -> None:
        """User code of this rank put what is read from its source where it is wanted, and holds one ref on it."""
        object_id, nbytes = event.object_id, event.nbytes
        self._copies.add_source(object_id, event.recipe, nbytes, self._rank).is_held = True
        record = OwnedObject(object_id, STORED, 1, rank=SOURCE, nbytes=nbytes, bytes_id=object_id)
        self.ownership.objects[object_id] = record

    def resolve(self, object_id: int, result: Result, source: int) -> None:
        """Owner: the value of a pending object came from the rank ``source``, which reported us for its contents."""
        record = self.ownership.objects[object_id]
        self.accept_all(result.contained, source)
        if result.payload is not None:
            self.ownership.set_inline(record, result.payload, result.contained)
        else:
            self.ownership.set_stored(record, source, result.nbytes, result.contained, object_id)
            if result.offset >= 0:
                self._transfers.accept_loan(object_id, source, result.offset, result.nbytes, is_held=True)
        self.after_resolving(record)

    def fail(self, object_id: int, failure: Failure) -> None:
        """Owner: a pending object will never exist."""
        record = self.ownership.objects[object_id]
        self.ownership.set_failed(record, failure)
        self.after_resolving(record)

    def after_resolving(self, record: OwnedObject) -> None:
        """Tell the ranks that asked, and collect at once what nobody holds."""
        if record.askers is not None:
            askers, record.askers = record.askers, None
            for rank in askers:
                self._answer(record, rank)
        if not (record.n_local or record.n_uses):
            self._dropped.append(record.object_id)
            self._drain()

    def ask(self, record: Record) -> None:
        """Borrower: make sure that the owner will tell us value or place."""
        if isinstance(record, BorrowedObject) and record.state == UNKNOWN:
            self.borrowing.move(record, "ask")
            self._context.send(owner_of(record.object_id), ObjectAsked(record.object_id))

    def on_asked(self, source: int, message: ObjectAsked) -> None:
        """Owner: somebody wants the value or the place."""
        record = self.ownership.objects.get(message.object_id)
        if record is None or record.state == RETIRED:
            # The holder may have let go after it asked, and the question may have taken its time.
            self._context.count_stale("question about a collected object")
            self._context.send(source, ObjectFailed(message.object_id, lost_failure(message.object_id)))
            return
        if record.state == PENDING:
            if record.askers is None:
                record.askers = {}
            record.askers[source] = None
            return
        self._answer(record, source)

    def _answer(self, record: OwnedObject, rank: int) -> None:
        object_id = record.object_id
        answer: Message
        if record.state == FAILED:
            assert record.failure is not None
            answer = ObjectFailed(object_id, record.failure)
        else:
            self.report_all(record.contained, rank)
            if record.state == INLINE:
                assert record.payload is not None
                answer = ObjectResolved(object_id, record.payload, record.contained)
            elif record.rank == SOURCE:
                answer = ObjectResolved(object_id, self.keepers.tell_recipe(record, rank), (), record.nbytes)
            else:
                offset = self._transfers.loans.lend(record.bytes_id, rank) if record.rank == self._rank else -1
                answer = ObjectLocated(object_id, record.rank, record.nbytes, record.contained, offset)
                if record.bytes_id != object_id:
                    answer.bytes_id = record.bytes_id
        self._context.send(rank, answer)

    def check(self) -> None:
        """Assert what must hold between turns."""
        self.ownership.check()
        self.borrowing.check()
