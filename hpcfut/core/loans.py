"""Loans: what this rank lends to others of its host, which read it in place; see ``transfers.py``."""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import LOCAL, Copy
from hpcfut.model.errors import IllegalTransitionError
from hpcfut.model.ids import name_of
from hpcfut.wire.messages import Argument, LoanReturned


class Loans:
    """Counts them, for each copy and each rank that has it."""

    def __init__(self, context: Context, copies: Copies, neighbours: dict[int, None]) -> None:
        """Lend to these ranks, which can read this one's arena in place."""
        self._context = context
        self._copies = copies
        self._table = copies.copies
        self.neighbours = dict(neighbours)

    def lend(self, object_id: int, rank: int) -> int:
        """Lend an object to a rank that is told about it; gives the offset, or -1 if that cannot be."""
        if rank not in self.neighbours:
            return -1
        copy = self._table.get(object_id)
        if copy is None or copy.state != LOCAL:
            return -1
        return self.give(copy, rank)

    def give(self, copy: Copy, rank: int) -> int:
        """Lend a local copy to a rank of this host; gives its offset."""
        lent = copy.lent
        if lent is None:
            copy.lent = {rank: 1}
        else:
            lent[rank] = lent.get(rank, 0) + 1
        # Who has just been told of it has not heard of a recall.
        copy.is_recalled = False
        movable = self._copies.movable
        if not movable or next(reversed(movable)) != copy.object_id:
            self._copies.touch(copy)
        return copy.offset

    def lend_argument(self, object_id: int, rank: int, nbytes: int, contained: tuple[int, ...]) -> Argument:
        """Lend an object that is stored here with a task, if that can be; gives what the task's rank is told."""
        argument = Argument(object_id, None, self._context.rank, nbytes, contained, self.lend(object_id, rank))
        if argument.offset >= 0:
            self._table[object_id].argument = argument
        return argument

    def lend_again(self, object_id: int, rank: int) -> Argument | None:
        """The same for a rank that has it already, as tasks with one argument follow each other; None for another."""
        copy = self._table.get(object_id)
        if copy is None or copy.argument is None:
            return None
        lent = copy.lent
        if lent is None or rank not in lent or copy.state != LOCAL:
            return None
        lent[rank] += 1
        copy.is_recalled = False
        movable = self._copies.movable
        if not movable or next(reversed(movable)) != object_id:
            self._copies.touch(copy)
        return copy.argument

    def forget(self, rank: int) -> None:
        """A reader is dead: what it was lent it reads no more, and it is lent nothing any more."""
        self.neighbours.pop(rank, None)
        for copy in list(self._table.values()):
            if copy.lent is not None and rank in copy.lent:
                self.on_returned(rank, LoanReturned(copy.object_id, copy.lent[rank]))

    def on_returned(self, source: int, message: LoanReturned) -> None:
        """A reader reads no more."""
        copy = self._table[message.object_id]
        assert copy.lent is not None
        n_left = copy.lent[source] - message.n
        if n_left < 0:
            name = name_of(message.object_id)
            raise IllegalTransitionError(f"Rank {source} returns more than it was lent of object {name}.")
        if n_left:
            copy.lent[source] = n_left
        else:
            del copy.lent[source]
            if not copy.lent:
                copy.is_recalled = False
            self._copies.let_go(copy)
