"""Spills: primary copies on their way from memory to files, and what becomes of them when the disk is full.

Theory of operation

Copies that are to make way together are written to files of about the same size. A disk that refuses one is given
smaller files, one at a time and of the smallest objects, until it is known what it still takes. What it says then is
the *trouble* of who waits for room; it is tried again when room was made otherwise, or when somebody new needs it.

Where memory and disk are both full, what is in a file could not be read back though nothing is in use, because nothing
can make way for it. Then an object of the file *changes places* with copies in memory. Its bytes are kept beside the
arena meanwhile, and its room in the file is given to these copies. It is *displaced*, until it is back in memory, and
has no file then. If they cannot be written even so, it goes back where it was.
"""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import DOOMED, LOCAL, QUEUED, Copy
from hpcfut.core.effects import DropSpilled, SpillObjects
from hpcfut.model.errors import InvariantError
from hpcfut.model.place import Place


class _Spill:
    """What is being written to one file, and whose room it may have there."""

    __slots__ = ("copies", "displaced")

    def __init__(self, copies: list[Copy], displaced: Copy | None) -> None:
        self.copies = copies
        self.displaced = displaced


class Spills:
    """What is being written to files; see the module's docstring."""

    def __init__(self, context: Context, copies: Copies) -> None:
        self._context = context
        self._copies = copies
        self._spills: dict[int, _Spill] = {}
        #: Of what is under way.
        self.nbytes = 0
        #: What is written to one file at most; less than usual while the disk is about to be full.
        self._nbytes_file_max = context.config.nbytes_spill_file
        self._n_spills = 0
        #: Why the last attempt to spill failed; empty if the disk may be tried.
        self.trouble = ""
        #: Whether not even an exchange has helped.
        self._is_exchange_vain = False

    @property
    def is_busy(self) -> bool:
        """Whether anything is being written."""
        return bool(self._spills)

    def try_again(self) -> None:
        """The disk may take more than it did."""
        self.trouble, self._is_exchange_vain = "", False

    def spill(self, batch: list[Copy]) -> None:
        """Spill these copies, in files of about the same size; where the disk is about to be full, some of them."""
        nbytes_max = self._nbytes_file_max
        if is_refused := nbytes_max < self._context.config.nbytes_spill_file:
            if self._spills:
                return
            batch.sort(key=lambda copy: copy.nbytes)
        part, nbytes = list[Copy](), 0
        for copy in batch:
            if part and nbytes + copy.nbytes > nbytes_max:
                self._write(part, None)
                if is_refused:
                    return
                part, nbytes = [], 0
            part.append(copy)
            nbytes += copy.nbytes
        if part:
            self._write(part, None)

    def may_exchange(self, wanted: Copy) -> bool:
        """Whether what is wanted is in a file, and may change places with what is in memory."""
        return wanted.state == QUEUED and wanted.file_id > 0 and not self._is_exchange_vain

    def exchange(self, wanted: Copy) -> bool:
        """Have what is in a file and wanted change places with what nobody uses; gives whether that is under way."""
        if self._spills or not self.may_exchange(wanted):
            return False
        movable = {
            copy.offset: copy
            for copy in self._copies.movable.values()
            if copy.state == LOCAL and copy.is_primary and copy.is_movable and not (copy.lent or copy.file_id)
        }
        offsets = self._copies.arena.cheapest_run(wanted.nbytes, movable)
        if not offsets:
            return False
        self._write([movable[offset] for offset in offsets], wanted)
        return True

    def _write(self, part: list[Copy], displaced: Copy | None) -> None:
        for copy in part:
            copy.n_sends += 1
            self.nbytes += copy.nbytes
        self._n_spills += 1
        self._spills[self._n_spills] = _Spill(part, displaced)
        places = [Place(copy.object_id, copy.rank, copy.offset, copy.nbytes) for copy in part]
        in_place_of = (displaced.file_id, displaced.object_id) if displaced is not None else None
        self._context.effects.append(SpillObjects(self._n_spills, places, in_place_of))

    def succeed(self, spill_id: int, file_id: int) -> tuple[list[Copy], Copy | None]:
        """These copies are in a file, and this one has made way for them there."""
        spill = self._end(spill_id)
        for copy in spill.copies:
            copy.file_id = file_id
        if (displaced := spill.displaced) is None:
            self.try_again()
            self._nbytes_file_max = min(2 * self._nbytes_file_max, self._context.config.nbytes_spill_file)
        else:
            displaced.is_displaced = True
            if displaced.state in (LOCAL, DOOMED):  # Room for it was found otherwise.
                self.take_back(displaced)
        return spill.copies, displaced

    def fail(self, spill_id: int, reason: str) -> list[Copy]:
        """The disk does not take so much now, or nothing at all."""
        spill = self._end(spill_id)
        if spill.displaced is not None:
            self.trouble, self._is_exchange_vain = reason, True
        elif len(spill.copies) > 1:
            self._nbytes_file_max = sum(copy.nbytes for copy in spill.copies) // 2
        else:
            self.trouble = reason
        return spill.copies

    def _end(self, spill_id: int) -> _Spill:
        spill = self._spills.pop(spill_id)
        for copy in spill.copies:
            copy.n_sends -= 1
            self.nbytes -= copy.nbytes
        return spill

    def take_back(self, copy: Copy) -> None:
        """What was displaced is in memory, and nowhere else."""
        self._context.effects.append(DropSpilled(copy.file_id, copy.object_id))
        copy.file_id, copy.is_displaced = 0, False

    def check(self) -> None:
        """Assert what must hold between turns."""
        if self.nbytes != sum(copy.nbytes for spill in self._spills.values() for copy in spill.copies):
            raise InvariantError(f"{self.nbytes} bytes are said to be on their way to files.")
        for copy in self._copies.copies.values():
            if copy.is_displaced and (copy.state in (LOCAL, DOOMED) or copy.file_id <= 0):
                raise InvariantError(
                    f"What was displaced from its file is in memory, and was not dropped there: {copy}."
                )
