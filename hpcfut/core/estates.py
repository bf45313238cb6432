"""Estates: what a dead rank leaves here in memory, of its own objects and of what it was to read, send or lend."""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import ASKED, LENT, Copy
from hpcfut.core.effects import ForgetArena
from hpcfut.core.keepers import Keepers
from hpcfut.core.transfers import Transfers
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.ids import name_of, owner_of
from hpcfut.wire.messages import ReadRefused


class Estates:
    """Winds them up."""

    def __init__(self, context: Context, copies: Copies, transfers: Transfers, keepers: Keepers) -> None:
        self._context = context
        self._copies = copies.copies
        self._transfers = transfers
        self._keepers = keepers
        #: Dead ranks whose arenas are still read here → what is lent from them.
        self.read: dict[int, dict[int, None]] = {}

    def settle(self, dead: int, sentence: str) -> None:
        """A rank has died. Transfers under an MPI request are ended by the edge, on either side."""
        self._keepers.forget(dead)
        self._transfers.loans.forget(dead)
        self._transfers.readers.forget(dead)
        lent = self.read[dead] = {}
        for copy in list(self._copies.values()):
            if copy.askers:
                copy.askers = [asker for asker in copy.askers if asker[0] != dead]
            if copy.state == ASKED and copy.rank == dead:
                self.refuse(dead, copy.object_id, sentence)
            elif self._is_lent_by(dead, copy):
                copy.is_recalled = False  # The dead need no memory, and lend nothing anew.
                lent[copy.object_id] = None
        self._forget_if_unread(dead)

    def refuse(self, dead: int, object_id: int, sentence: str) -> None:
        """A dead rank lends nothing."""
        self._transfers.on_read_refused(dead, ReadRefused(object_id, 0, Failure(LOST, f"{sentence}.")))

    def note_returned(self, dead: int, object_id: int) -> None:
        """A loan of a dead rank may have been the last one here."""
        copy = self._copies.get(object_id)
        if dead in self.read and (copy is None or not self._is_lent_by(dead, copy)):
            self.read[dead].pop(object_id, None)
            self._forget_if_unread(dead)

    def _forget_if_unread(self, dead: int) -> None:
        if not self.read[dead]:
            del self.read[dead]
            self._context.effects.append(ForgetArena(dead))

    @staticmethod
    def _is_lent_by(rank: int, copy: Copy) -> bool:
        return copy.state == LENT and copy.rank == rank

    def check(self) -> None:
        """Assert what must hold between turns."""
        own, apart = self._context.rank, self._context.apart
        for object_id, copy in self._copies.items():
            lent, askers, readers = copy.lent or (), copy.askers or (), copy.readers or {}
            ranks = [*lent, *(rank for rank, _ in askers), *readers.values(), *([copy.rank] * (copy.state == ASKED))]
            if any(rank in apart for rank in ranks if rank != own):
                raise InvariantError(f"The copy of object {name_of(object_id)} waits for the dead: {copy}.")
            is_orphan = copy.is_primary and copy.is_held and owner_of(object_id) in apart
            if is_orphan and owner_of(object_id) != own:
                raise InvariantError(f"Nobody frees the copy of object {name_of(object_id)}, whose owner died: {copy}.")
            is_from_dead = self._is_lent_by(copy.rank, copy) and copy.rank in apart
            if is_from_dead and object_id not in self.read.get(copy.rank, ()):
                raise InvariantError(f"The copy of object {name_of(object_id)} lies in an arena that is gone: {copy}.")
