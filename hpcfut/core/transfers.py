"""Transfers: how a rank gets at the bytes of objects that others hold, and gives others its own.

On one host nothing moves. The holder *lends* its bytes: it says where they lie in its arena, and keeps them there until
the loan is returned. Only the rank that holds bytes lends them, and it does so unasked wherever it tells somebody on
its host about an object anyway: with a result, an argument, or an answer. So the owner of a result reads it without
a message. Loans are counted, because several may be on their way to the same reader; one that finds nobody who wants it
is returned at once.

From other hosts bytes are read into a segment of this rank. The holder is asked only when the reader has a buffer
ready, so the request leaves with the performing of ``StartRead`` and not here: what a holder sends, somebody must
receive. A read that is no longer wanted cannot be stopped in the middle; it is abandoned, and freed when it completes.

The holder may redirect a reader to a rank that has read the object, or is about to (``readers.py``). The reader gives
its buffer back and asks that rank. This one refuses where memory is short, so that nobody waits for memory on another
rank than the holder. Who is refused goes back to the holder, which alone can say that an object is lost.

What has been spilled is read back before it is lent or sent; who asks for it waits meanwhile. A holder that needs
memory recalls its loans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import ABANDONED, ABSENT, ASKED, DOOMED, FREED, LENT, LOCAL, QUEUED, READING, SPILLED, Copy
from hpcfut.core.effects import SendObject
from hpcfut.core.loans import Loans
from hpcfut.core.pressure import Pressure
from hpcfut.core.readers import NOBODY, Readers
from hpcfut.model.errors import IllegalTransitionError
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.ids import name_of
from hpcfut.wire.messages import (
    Argument,
    BytesLent,
    CopyGone,
    LoanRecalled,
    LoanRequested,
    LoanReturned,
    ReadRedirected,
    ReadRefused,
    ReadRequested,
)

#: In these states a primary copy is given to others, or will be; and a cached one, which need not wait for room.
_HOLDS: Final = (LOCAL, SPILLED, QUEUED, READING)
_HAS_READ: Final = (LOCAL, DOOMED, READING, ABANDONED)


class Transfers:
    """Reads and loans, to this rank and from it."""

    def __init__(
        self, context: Context, copies: Copies, pressure: Pressure, hosts: Sequence[str], neighbours: Sequence[int]
    ) -> None:
        self._context = context
        self._pressure = pressure
        pressure.on_denied = self._miss
        pressure.on_released = self._on_released
        self._copies = copies
        self._table = copies.copies
        self._next = copies.next
        #: The other ranks whose arenas can be read in place from here, and that can read this one's.
        self.neighbours = dict.fromkeys(rank for rank in neighbours if rank != context.rank)
        self.loans = Loans(context, copies, self.neighbours)
        self.readers = Readers(context, copies, hosts)
        self._reads = pressure.reads
        self._n_transfers = 0

    def admit(self, rank: int) -> None:
        """A rank has joined whose arena can be read in place from here, and that can read this one's."""
        self.neighbours[rank] = self.loans.neighbours[rank] = None

    # -- as a reader ---------------------------------------------------------------------------------------------------

    def need(self, object_id: int, rank: int, nbytes: int, watcher: int, *, is_held: bool) -> bool:
        """Get at the bytes of an object that are not at hand, but with ``rank``, unless that is under way.

        ``watcher`` is told when they are there; gives false if it is going to be told already.
        """
        copy = self._table.get(object_id)
        is_new = copy is None or copy.state == SPILLED
        if copy is None:
            is_near = rank in self.neighbours or rank in self._context.apart
            state = self._next[ABSENT, "ask" if is_near else "read"]
            arena = rank if state == ASKED else self._context.rank
            copy = self._table[object_id] = Copy(object_id, state, nbytes, arena, holder=rank, source=rank)
            copy.is_kept = state == QUEUED
        elif copy.state not in (QUEUED, READING, ASKED):
            copy.state = self._next[copy.state, "read"]
        if is_held:
            copy.is_held = True
        if copy.watchers is None:
            copy.watchers = {}
        elif watcher in copy.watchers:
            return False
        copy.watchers[watcher] = None
        if is_new and rank == self._context.rank and copy.state == ASKED:  # It was here once.
            copy.state = self._next[ASKED, "failed"]
            self._miss(copy, _not_held(rank, object_id))
        elif is_new:
            self._begin(copy, is_urgent=watcher < 0)
        elif watcher < 0:
            self._pressure.promote(copy)
        return True

    def recipe_of(self, object_id: int) -> bytes:
        """How an object that this rank knows is read from its source."""
        recipe = self._table[object_id].recipe
        assert recipe is not None
        return recipe

    def _begin(self, copy: Copy, *, is_urgent: bool) -> None:
        if copy.state == ASKED:
            self._context.send(copy.rank, LoanRequested(copy.object_id))
            return
        self._n_transfers += 1
        copy.transfer_id = self._n_transfers
        self._pressure.ask(copy, is_urgent=is_urgent)

    def on_read_completed(self, transfer_id: int) -> None:
        """The bytes are here and sealed."""
        copy = self._table[self._reads.pop(transfer_id)]
        copy.state = self._next[copy.state, "keep" if copy.state == ABANDONED and copy.is_kept else "completed"]
        if copy.state == FREED:
            self._copies.forget(copy)
            return
        self._pressure.note_read(copy)
        self._copies.touch(copy)
        self._tell(copy)
        self._serve_askers(copy)
        if not copy.n_pins:  # Whoever wanted it may have gone meanwhile, and others wait for room.
            self._copies.on_movable()

    def on_read_failed(self, transfer_id: int, failure: Failure) -> None:
        """The bytes will not come."""
        if transfer_id not in self._reads:  # The rank that was asked has named another one, and died.
            self._context.count_stale("end of a read that was turned elsewhere")
            return
        copy = self._table[self._reads.pop(transfer_id)]
        if copy.source != copy.holder:
            self._go_back(copy, copy.source)
        else:
            self._end_in_vain(copy, failure)

    def on_read_denied(self, transfer_id: int, failure: Failure) -> None:
        """This rank could not begin; whoever it would have asked is not to blame."""
        self._end_in_vain(self._table[self._reads.pop(transfer_id)], failure)

    def _end_in_vain(self, copy: Copy, failure: Failure) -> None:
        copy.state = self._next[copy.state, "failed"]
        if copy.state == FREED:
            self._copies.forget(copy)
            return
        self._copies.give_back(copy)
        self._miss(copy, failure)

    def on_read_refused(self, source: int, message: ReadRefused) -> None:
        """The holder does not hold it."""
        if not message.transfer_id:
            self._on_loan_refused(source, message)
            return
        self._demand_source(source, message.transfer_id)
        self.on_read_failed(message.transfer_id, message.failure or _not_held(source, message.object_id))

    def on_read_redirected(self, source: int, message: ReadRedirected) -> None:
        """The holder names a rank that has read it."""
        self._context.demand_rank(message.rank)
        self._demand_source(source, message.transfer_id)
        if message.rank == self._context.rank:
            raise IllegalTransitionError(f"Rank {source} redirects a read of rank {message.rank} to itself.")
        self._turn_to(self._table[self._reads.pop(message.transfer_id)], message.rank)

    def _demand_source(self, source: int, transfer_id: int) -> None:
        if self._table[self._reads[transfer_id]].source != source:
            raise IllegalTransitionError(f"Rank {source} answers transfer {transfer_id}, which it was not asked for.")

    def _go_back(self, copy: Copy, rank: int) -> None:
        """The rank that the holder has named does not have it."""
        self._context.send(copy.holder, CopyGone(copy.object_id, rank))
        self._turn_to(copy, copy.holder)

    def _turn_to(self, copy: Copy, rank: int) -> None:
        """Ask another rank than the one that was asked before."""
        if copy.state == ABANDONED:
            copy.state = self._next[ABANDONED, "failed"]
            self._copies.forget(copy)
            return
        is_near = rank in self.neighbours or rank in self._context.apart
        copy.state = self._next[copy.state, "ask" if is_near else "read elsewhere"]
        self._copies.give_back(copy)
        copy.source, copy.rank = rank, rank if is_near else self._context.rank
        copy.is_kept = rank == copy.holder or not self.readers.are_on_one_host(rank, self._context.rank)
        self._begin(copy, is_urgent=bool(copy.askers) or any(watcher < 0 for watcher in copy.watchers or ()))
        if copy.state != READING:
            self._refuse(copy, None)

    def _miss(self, copy: Copy, failure: Failure) -> None:
        copy.failure = failure
        self._tell(copy)
        self._refuse(copy, failure)

    def _tell(self, copy: Copy) -> None:
        """Whoever waits for the bytes has them, or is told that they will never come; who gives up before is not."""
        if copy.watchers:
            self._context.arrived.append(copy.object_id)

    # -- as a reader in place ------------------------------------------------------------------------------------------

    def on_lent(self, source: int, message: BytesLent) -> None:
        """The holder lends what this rank has asked for."""
        object_id = message.object_id
        if object_id not in self._table:
            self._context.count_stale("loan that came too late")
            self._context.send(source, LoanReturned(object_id, 1))
        else:
            self.accept_loan(object_id, source, message.offset, message.nbytes, is_held=False)

    def accept_loan(self, object_id: int, rank: int, offset: int, nbytes: int, *, is_held: bool) -> None:
        """A holder lends bytes, perhaps unasked; the caller pins or holds the copy."""
        self._demand_neighbour(object_id, rank)
        copy = self._table.get(object_id)
        if copy is None or copy.state == ASKED:
            if copy is None:
                copy = self._table[object_id] = Copy(object_id, self._next[ABSENT, "lent"], nbytes, rank)
            else:
                copy.state, copy.rank = self._next[ASKED, "lent"], rank
            copy.offset = offset
        elif copy.state != LENT or (copy.rank, copy.offset) != (rank, offset):
            self._context.send(rank, LoanReturned(object_id, 1))
            return
        copy.n_loans += 1
        copy.is_held |= is_held
        self._tell(copy)

    def _demand_neighbour(self, object_id: int, rank: int) -> None:
        if rank not in self.neighbours:
            raise IllegalTransitionError(f"Rank {rank} lends object {name_of(object_id)}, but is on another host.")

    def return_loan(self, object_id: int, rank: int) -> None:
        """A loan came with something that nobody wants any more."""
        self._demand_neighbour(object_id, rank)
        self._context.send(rank, LoanReturned(object_id, 1))

    def return_loans(self, arguments: tuple[Argument, ...]) -> None:
        """Loans came with a task that this rank does not take."""
        for argument in arguments:
            if argument.offset >= 0:
                self.return_loan(argument.object_id, argument.rank)

    def _on_loan_refused(self, source: int, message: ReadRefused) -> None:
        """The holder does not hold it."""
        copy = self._table.get(message.object_id)
        if copy is None or copy.state != ASKED or copy.rank != source:
            self._context.count_stale("refusal of a loan that nobody wants")
            return
        if copy.holder not in (NOBODY, source):
            self._go_back(copy, source)
            return
        copy.state = self._next[ASKED, "failed"]
        self._miss(copy, message.failure or _not_held(source, message.object_id))

    def on_recalled(self, source: int, message: LoanRecalled) -> None:
        """The holder needs its memory."""
        copy = self._table.get(message.object_id)
        if copy is None or copy.state != LENT or copy.rank != source:
            self._context.count_stale("recall of a loan that was returned")
            return
        copy.is_recalled = True
        if copy.place is not None:
            self._copies.close_argument(copy)
        self._copies.let_go(copy)

    def ask_again(self, copy: Copy) -> None:
        """Return the loans of a copy that only runs want that have not started, and wait for new ones."""
        copy.state = self._next[LENT, "recall"]
        self._context.send(copy.rank, LoanReturned(copy.object_id, copy.n_loans))
        copy.n_loans, copy.offset, copy.is_recalled = 0, -1, False
        self._context.send(copy.rank, LoanRequested(copy.object_id))

    # -- as a holder ---------------------------------------------------------------------------------------------------

    def on_read_requested(self, source: int, message: ReadRequested) -> None:
        """A reader has room for an object that it believes to be here."""
        self._on_asked(source, message.object_id, message.transfer_id)

    def _on_asked(self, source: int, object_id: int, transfer_id: int) -> None:
        """Somebody wants bytes: to be sent, or (0) lent."""
        self._copies.retry(object_id)
        copy = self._table.get(object_id)
        if copy is None or copy.is_withdrawn or copy.state not in (_HOLDS if copy.is_primary else _HAS_READ):
            self._context.count_stale("read of an object that is not here")
            self._context.send(source, ReadRefused(object_id, transfer_id, copy.failure if copy else None))
        elif transfer_id and copy.is_primary and (other := self.readers.redirect(copy, source)) != NOBODY:
            self._context.send(source, ReadRedirected(object_id, transfer_id, other))
        elif copy.state in (LOCAL, DOOMED) and not self._pressure.holds_up(copy):
            self._serve(copy, source, transfer_id)
        elif copy.state in (LOCAL, DOOMED) and not copy.is_primary:
            self._context.send(source, ReadRefused(object_id, transfer_id))
        else:
            asker = (source, transfer_id)
            copy.askers = copy.askers or []
            if transfer_id or asker not in copy.askers:  # Tasks that come and go there ask again and again.
                copy.askers.append(asker)
            if copy.state == SPILLED:
                self._read_back(copy)
            else:
                self._pressure.promote(copy)

    def _read_back(self, copy: Copy) -> None:
        copy.state = self._next[SPILLED, "read"]
        self._begin(copy, is_urgent=True)

    def _on_released(self, copy: Copy) -> None:
        """A copy that was asked for need not make way, or has done so."""
        if copy.state == LOCAL:
            self._serve_askers(copy)
        elif copy.state == SPILLED and copy.askers:
            self._read_back(copy)

    def _serve_askers(self, copy: Copy) -> None:
        askers, copy.askers = copy.askers, None
        for rank, transfer_id in askers or ():
            self._serve(copy, rank, transfer_id)

    def _serve(self, copy: Copy, rank: int, transfer_id: int) -> None:
        object_id = copy.object_id
        self._copies.note_use(copy)
        if not transfer_id:
            self._context.send(rank, BytesLent(object_id, self.loans.give(copy, rank), copy.nbytes))
            return
        copy.n_sends += 1
        self._context.effects.append(SendObject(transfer_id, object_id, rank, copy.offset, copy.nbytes))

    def _refuse(self, copy: Copy, failure: Failure | None) -> None:
        askers, copy.askers = copy.askers, None
        for rank, transfer_id in askers or ():
            self._context.send(rank, ReadRefused(copy.object_id, transfer_id, failure))

    def on_send_completed(self, object_id: int) -> None:
        """All bytes have left."""
        copy = self._table[object_id]
        copy.n_sends -= 1
        self._copies.let_go(copy)

    def on_loan_requested(self, source: int, message: LoanRequested) -> None:
        """A reader of this host wants to read an object that it believes to be here."""
        if source not in self.neighbours:
            name = name_of(message.object_id)
            raise IllegalTransitionError(f"Rank {source} wants to be lent object {name}, but is on another host.")
        self._on_asked(source, message.object_id, 0)


def _not_held(rank: int, object_id: int) -> Failure:
    return Failure(
        LOST,
        f"Rank {rank} was said to hold object {name_of(object_id)}, but does not. Keep a ref to an object for as long "
        f"as it is read.",
    )
