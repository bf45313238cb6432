"""Copies: which objects have their bytes at hand on this rank, in whose memory, and who needs them to stay there.

Theory of operation

The bytes of a *copy* lie in a segment of this rank's arena: a put or a result was written there (its primary copy), or
bytes were read from another host (a cached copy). Or they lie in the arena of another rank of this host, which has lent
them: a *loan* (``transfers.py``). A copy has a claim to stay while it is

* held: an object table here wants it; or pinned: runs here have it as argument. These are wishes for the future. What
  was read from another host is *kept*, besides, for whoever on this host wants it next (``readers.py``), and what was
  read from its source for later tasks.
* viewed: values in user code here are built over its bytes; sent: a transfer out of it is under way; lent: ranks of
  this host read it in place. These are uses of the memory itself, and outlive every wish.

Runs with the same argument share one view: it is *open* from the first of them that starts until the last pin goes, or
until the holder recalls its loans.

A *draft* is a segment that user code writes bit by bit, through an array that counts as a view from the beginning. It
becomes a copy when the array is put, and is freed if the array dies before.

With the last wish and the last use the segment is freed, or the loan returned. A copy that is only used is *doomed*:
it is given to nobody any more, because its object is collected; unless it is a mere cached copy, which lives on if its
object is wanted again. A segment whose bytes are still being written or read is freed when that has ended, because
until then the memory belongs to an edge.

Who needs room waits for it (``pressure.py``), as *held back* writer or *queued* reader. A copy that nobody uses may
have to go meanwhile: a cached copy is forgotten, a primary copy is *spilled* to a file, from which it is read back.

The bytes of some objects nobody holds: whoever wants them reads them from their *source*, as its *recipe* says. On
every rank such a copy begins where a spilled one is, and is back there under pressure: its file never goes away.
"""

from __future__ import annotations

from collections.abc import Callable

from hpcfut.core.arena import Arena
from hpcfut.core.context import Context
from hpcfut.core.copy import (
    ABANDONED,
    ABSENT,
    ASKED,
    DOOMED,
    LENT,
    LOCAL,
    MISSING,
    QUEUED,
    READING,
    SOURCE_FILE,
    TRANSITIONS,
    WRITING,
    Copy,
)
from hpcfut.core.effects import CloseArgument, DropSpilled, FreeSegment
from hpcfut.core.events import DraftTaken
from hpcfut.model.errors import InvariantError
from hpcfut.model.ids import name_of, owner_of
from hpcfut.model.place import Place
from hpcfut.wire.messages import CopyGone, LoanReturned, ReadRefused, RedirectionEnded


class Copies:
    """The table of copies on this rank, and the arena."""

    def __init__(self, context: Context, nbytes: int) -> None:
        self._context = context
        self._rank = context.rank
        self.next = context.make_table("copies", TRANSITIONS)
        self.arena = Arena(nbytes)
        self.copies: dict[int, Copy] = {}
        #: Since when reads have been asked for whose bytes nobody has used, and when somebody wanted them last: a task
        #: that is handed back comes again, and what had been read for it may have made way meanwhile.
        self.asked_at: dict[int, tuple[float, float]] = {}
        #: Copies that may make way, the least recently used first. Who is in use leaves it when room is looked for, and
        #: comes back when the last use has gone; so nobody looks twice at what cannot be moved.
        self.movable: dict[int, Copy] = {}
        #: Called when memory is free that was not before; and when some may be made free.
        self.on_room: Callable[[], None] = lambda: None
        self.on_movable: Callable[[], None] = lambda: None
        #: Told of a recalled copy that only runs or waits here have pinned; bound in ``recalls.py``.
        self.on_pinned: Callable[[Copy], None] = lambda copy: None
        #: Called when a file has less to hold.
        self.on_dropped: Callable[[], None] = lambda: None
        #: Called when nobody wants a queued copy any more.
        self.on_unqueued: Callable[[Copy], None] = lambda copy: None

    # -- memory --------------------------------------------------------------------------------------------------------

    def give_up(self, object_id: int) -> None:
        """User code could not write the value to its end."""
        copy = self.copies[object_id]
        if copy.is_used:  # User code has the array that was a draft.
            copy.state = self.next[copy.state, "give up while used"]
            return
        copy.state = self.next[copy.state, "give up"]
        self.forget(copy)

    def add_source(self, object_id: int, recipe: bytes, nbytes: int, teller: int) -> Copy:
        """This rank is told how an object is read from its source; the caller holds or pins the copy.

        The owner knows whom it has told, and lets them know when nobody will want it any more.
        """
        copy = self.copies.get(object_id)
        if copy is None:
            copy = self.copies[object_id] = Copy(object_id, self.next[ABSENT, "source"], nbytes, self._rank)
            copy.file_id, copy.recipe = SOURCE_FILE, recipe
        elif copy.state == DOOMED:
            copy.state = self.next[DOOMED, "want"]
        elif copy.state == ABANDONED:
            copy.state = self.next[ABANDONED, "read"]
        copy.is_kept |= teller == owner_of(object_id) != self._rank
        return copy

    def begin_draft(self, object_id: int) -> None:
        """The room is in the hands of user code, as an array."""
        copy = self.copies[object_id]
        copy.state = self.next[copy.state, "lay out"]
        copy.n_views += 1

    def take_draft(self, event: DraftTaken) -> None:
        """The array is complete, and becomes the bytes of another object."""
        copy = self.copies.pop(event.draft_id)
        copy.state = self.next[copy.state, "take"]
        copy.object_id = event.object_id
        self.copies[event.object_id] = copy

    def seal(self, object_id: int) -> None:
        """A put or a result is complete."""
        copy = self.copies[object_id]
        copy.state = self.next[copy.state, "seal"]
        copy.is_held = True
        self.touch(copy)

    def touch(self, copy: Copy) -> None:
        """A local copy was used just now."""
        self.movable[copy.object_id] = self.movable.pop(copy.object_id, copy)

    # -- use -----------------------------------------------------------------------------------------------------------

    def find(self, object_id: int) -> Copy | None:
        """The copy of an object if its bytes are at hand, or if getting them has failed."""
        copy = self.copies.get(object_id)
        if copy is None:
            return None
        if copy.state in (LOCAL, LENT, MISSING):
            return copy
        if copy.state == DOOMED and not copy.is_primary:
            copy.state = self.next[DOOMED, "want"]
            return copy
        return None

    def retry(self, object_id: int) -> None:
        """Somebody new wants an object: that its bytes could not be had before does not count any more."""
        copy = self.copies.get(object_id)
        if copy is None or copy.state != MISSING or copy.n_pins or copy.watchers:
            return
        copy.failure = None
        if copy.file_id:
            copy.state = self.next[MISSING, "retry"]
        else:
            copy.is_held = False
            self.let_go(copy)

    def open_view(self, copy: Copy) -> Place:
        """User code is going to read the bytes in place; ``close_views`` tells when it does no more."""
        copy.n_views += 1
        self.note_use(copy)
        return Place(copy.object_id, copy.rank, copy.offset, copy.nbytes)

    def note_use(self, copy: Copy) -> None:
        """What was read has served somebody."""
        if self.asked_at:
            self.asked_at.pop(copy.object_id, None)

    def open_argument(self, copy: Copy) -> Place:
        """A run is going to read the bytes in place, through the view that all runs here share."""
        if copy.place is None:
            copy.place = self.open_view(copy)
        return copy.place

    def close_argument(self, copy: Copy) -> None:
        """Runs that start from now on open a view anew; what is built over the old one keeps it."""
        copy.place = None
        self._context.effects.append(CloseArgument(copy.object_id))

    def close_views(self, object_ids: list[int]) -> None:
        """Values over these objects' bytes are gone (an id may stand several times)."""
        for object_id in object_ids:
            copy = self.copies[object_id]
            copy.n_views -= 1
            if not copy.n_views:
                self.let_go(copy)

    def pin(self, object_id: int) -> None:
        """A wait has this copy among its values."""
        self.copies[object_id].n_pins += 1

    def unpin(self, copy: Copy) -> None:
        """The run that has this copy as argument, or the wait, has ended."""
        copy.n_pins -= 1
        if not copy.n_pins or copy.is_recalled:
            self.note_unpinned(copy)

    def note_unpinned(self, copy: Copy) -> None:
        """The last pin has gone, or one while the holder wants the bytes back."""
        if copy.place is not None:
            self.close_argument(copy)
        self.let_go(copy)

    def unwatch(self, object_id: int, watcher: int) -> None:
        """Whoever waited for the arrival waits no more."""
        copy = self.copies.get(object_id)
        if copy is not None and copy.watchers is not None:
            copy.watchers.pop(watcher, None)

    def free(self, object_id: int) -> None:
        """The object was collected (owner), released (borrower), or freed by its owner (holder)."""
        copy = self.copies.get(object_id)
        if copy is not None and copy.is_held:
            copy.is_held = False
            self.let_go(copy)

    def withdraw(self, object_id: int) -> None:
        """The owner wants the primary copy no more; who uses it here may do so for as long as it is there.

        A wait for its bytes is of somebody here who holds the object as well, and frees them when that is over.
        """
        copy = self.copies.get(object_id)
        if copy is None:
            return
        if not any(watcher < 0 for watcher in copy.watchers or ()):
            self.free(object_id)
        if object_id in self.copies:
            copy.is_primary = False
            self._end_redirections(copy)
            self._refuse_askers(copy)

    def discard(self, object_id: int) -> None:
        """A result is complete, and nobody wants it."""
        self.seal(object_id)
        self.withdraw(object_id)

    def let_go(self, copy: Copy) -> None:
        """A wish or a use has gone; if it was the last one, the memory goes too."""
        state = copy.state
        is_recalled = copy.is_recalled and state == LENT
        if copy.n_pins or (copy.is_held and not is_recalled) or (state == LOCAL and copy.is_kept):
            if state == LOCAL and copy.is_movable:
                self.touch(copy)
                self.on_movable()
            elif is_recalled and not copy.n_views:
                self._context.put_off.append((self._give_way, copy))
            return
        if state == LOCAL:
            if copy.is_used:
                copy.state = self.next[LOCAL, "free while used"]
                return
            copy.state = self.next[LOCAL, "free"]
        elif state == DOOMED:
            if copy.is_used:
                if copy.is_movable:
                    self.touch(copy)
                    self.on_movable()
                return
            copy.state = self.next[DOOMED, "let go"]
        elif state == LENT:
            if copy.n_views:
                return
            copy.state = self.next[LENT, "free"]
            self._context.send(copy.rank, LoanReturned(copy.object_id, copy.n_loans))
        elif state == WRITING:
            return  # It was a draft, and is about to be sealed.
        elif state != ABANDONED:
            if state == QUEUED:
                self.on_unqueued(copy)
            copy.state = self.next[state, "free"]
            if copy.state == ABANDONED:
                return
        else:
            return
        self.forget(copy)

    def _give_way(self, copy: Copy) -> None:
        """Only pins keep a copy that was recalled, unless something has happened since."""
        if copy.state == LENT and copy.is_recalled and copy.n_pins and not copy.n_views:
            self.on_pinned(copy)

    def forget(self, copy: Copy) -> None:
        """Take a copy out of the table, its segment out of the arena, and its bytes out of the file."""
        del self.copies[copy.object_id]
        if copy.is_kept and copy.holder >= 0:
            self._context.send(copy.holder, CopyGone(copy.object_id, self._rank))
        self._end_redirections(copy)
        self.give_back(copy)
        self._refuse_askers(copy)
        if copy.file_id > 0:
            self._context.effects.append(DropSpilled(copy.file_id, copy.object_id))
            self.on_dropped()

    def evict(self, copy: Copy) -> None:
        """A copy that was read from another rank makes way."""
        copy.state = self.next[LOCAL, "evict"]
        self.forget(copy)

    def _refuse_askers(self, copy: Copy) -> None:
        askers, copy.askers = copy.askers, None
        for rank, transfer_id in askers or ():
            self._context.send(rank, ReadRefused(copy.object_id, transfer_id))

    def _end_redirections(self, copy: Copy) -> None:
        readers, copy.readers = copy.readers, None
        for rank in readers.values() if readers else ():
            if rank >= 0:
                self._context.send(rank, RedirectionEnded(copy.object_id))

    def give_back(self, copy: Copy) -> None:
        """Free the segment of a copy, if it has one here."""
        if copy.rank == self._rank and copy.offset >= 0:
            self.arena.free(copy.offset)
            self._context.effects.append(FreeSegment(copy.object_id, copy.offset))
            copy.offset, copy.argument = -1, None
            self.movable.pop(copy.object_id, None)
            self.on_room()

    def check(self) -> None:
        """Assert what must hold between turns."""
        self.arena.check()
        n_segments = 0
        for object_id, copy in self.copies.items():
            name = name_of(object_id)
            if min(copy.n_pins, copy.n_views, copy.n_sends, copy.n_loans) < 0:
                raise InvariantError(f"The copy of object {name} has negative counts: {copy}.")
            if (copy.state == LOCAL and not copy.is_wanted) or (copy.state == DOOMED and not copy.is_used):
                raise InvariantError(f"The {copy.state} copy of object {name} is there for nobody and was not freed.")
            if copy.state == LENT and not (copy.is_wanted or copy.n_views):
                raise InvariantError(f"The loan of object {name} was not returned: {copy}.")
            if copy.place is not None and not (copy.n_pins and copy.n_views):
                raise InvariantError(f"A view of object {name} is kept for runs that are not there: {copy}.")
            if copy.state == LOCAL and copy.is_movable and object_id not in self.movable:
                raise InvariantError(f"The copy of object {name} could make way, and nobody would find it: {copy}.")
            if copy.n_loans and copy.state != LENT:
                raise InvariantError(f"Object {name} is {copy.state} here, and yet has loans: {copy}.")
            if copy.state == LENT and not (copy.n_loans and copy.offset >= 0 and copy.rank != self._rank):
                raise InvariantError(f"The loan of object {name} is not counted, or nobody's: {copy}.")
            if copy.lent and not (copy.state in (LOCAL, DOOMED) and copy.rank == self._rank):
                raise InvariantError(f"Object {name} is lent to others, and is not in memory here: {copy}.")
            if copy.readers and not copy.is_primary:
                raise InvariantError(f"Others are redirected from a copy of object {name} that is not primary: {copy}.")
            if copy.watchers and copy.state not in (QUEUED, READING, ASKED):
                raise InvariantError(f"The copy of object {name} is {copy.state}, but its watchers were not told.")
            n_segments += copy.rank == self._rank and copy.offset >= 0
        if any(self.copies.get(object_id) is not copy or copy.offset < 0 for object_id, copy in self.movable.items()):
            raise InvariantError(f"Some of these copies are not here any more: {self.movable}.")
        if n_segments != self.arena.n_segments:
            raise InvariantError(f"The arena has {self.arena.n_segments} segments for {n_segments} copies.")
