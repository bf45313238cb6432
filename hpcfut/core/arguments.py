"""Arguments: what a run on this rank is given, from its arrival to its end.

What is stored is pinned, and read before the run becomes ready. Refs, those inside the values too, are covered by the
caller, and held here until the run has ended.
"""

from __future__ import annotations

import msgspec

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import LENT, MISSING, Copy
from hpcfut.core.references import References
from hpcfut.core.run import Run
from hpcfut.core.transfers import Transfers
from hpcfut.model.failure import Failure
from hpcfut.model.ids import owner_of
from hpcfut.wire.actors import MethodPushed
from hpcfut.wire.messages import Argument, TaskPushed


class Arguments:
    """Those of all runs."""

    def __init__(self, context: Context, references: References, copies: Copies, transfers: Transfers) -> None:
        self._context = context
        self._references = references
        self._copies = copies
        self._transfers = transfers

    def accept(self, run: Run, message: TaskPushed | MethodPushed) -> None:
        """A run has come: what stands in its arguments is pinned, and read if it is not here; refs are covered."""
        covered, table = [*message.nested], self._copies.copies
        copies: list[Copy] = []
        for argument in message.arguments:
            if argument.contained:
                covered += argument.contained
            if argument.payload is not None and not argument.nbytes:
                continue
            copy = table.get(argument.object_id)
            if copy is None or copy.state != LENT or copy.offset != argument.offset or copy.rank != argument.rank:
                copy = self._fetch(run, argument)
            else:
                copy.n_loans += 1  # Tasks with the same argument follow each other.
            copy.n_pins += 1
            copies.append(copy)
        run.copies = copies
        if covered:
            run.covered = tuple(dict.fromkeys(covered))
            for object_id in run.covered:
                self._context.demand_rank(owner_of(object_id))
            self._references.hold_all(run.covered)

    def _fetch(self, run: Run, argument: Argument) -> Copy:
        """See to it that an argument comes, if it is not here; gives the copy, to be pinned."""
        object_id, copies, transfers = argument.object_id, self._copies, self._transfers
        self._context.demand_rank(argument.rank)
        if argument.payload is not None:
            copies.add_source(object_id, argument.payload, argument.nbytes, run.owner)
            stored = msgspec.structs.replace(argument, payload=None)  # The recipe has come where it is needed.
            run.arguments = tuple(stored if other is argument else other for other in run.arguments)
        if argument.offset >= 0:
            transfers.accept_loan(object_id, argument.rank, argument.offset, argument.nbytes, is_held=False)
        copies.retry(object_id)
        # The same object may stand at several places of one call; it arrives once.
        if copies.find(object_id) is None and transfers.need(
            object_id, argument.rank, argument.nbytes, run.task_id, is_held=False
        ):
            run.n_missing += 1
        return copies.copies[object_id]

    def missing_of(self, run: Run) -> tuple[Failure, int] | None:
        """Why an argument cannot be had, if one cannot, and under which id its bytes are lost, if they are."""
        missing = (copy for copy in run.copies if copy.state == MISSING)
        return next(((copy.failure, copy.object_id if copy.is_lost else 0) for copy in missing if copy.failure), None)

    def unpin(self, run: Run) -> None:
        """A run needs its arguments no more; one that has not started may be waiting for them."""
        for copy in run.copies:
            if copy.watchers is not None:
                copy.watchers.pop(run.task_id, None)
            self._copies.unpin(copy)
