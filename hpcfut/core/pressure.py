"""Pressure: who waits for room in the arena, and what is moved away to make some.

Theory of operation

Whoever needs a segment asks here. If there is none, it waits in one of two lines. In the first stand the writers (a put
or a result, held back until there is room) and the readers that a thread waits for; in the second the arguments of
tasks that have not started, which must not take the memory that running tasks need to come to an end. The first line
is served first, and each in order, so that a large request is not passed by small ones for ever.

Room is made of copies that nobody uses, the least recently used first. Cached copies go before all others: they are
forgotten, because their holder still has them, or their source. What is in a file is dropped; the rest is spilled,
many in one file, and dropped when that has been written, if nobody has begun to use it meanwhile. Loans are recalled;
their readers return them when nothing there uses the bytes, and ask anew when they need them again. Who asks for what
nobody uses, or for what has been recalled, is *held up* until those have been looked after who have waited for the
memory.

What is in use is taken out of the list of what can be moved when it is met there, and put back when the last use goes,
so that it costs the same to make room however much is in use.

Nothing is moved in the middle of an event, because what one machine has just found local another one may be about to
use; it is put off until everything is settled. When nothing can be moved and nothing is under way, lineage lets go of
what nobody else holds; then runs that wait here with their arguments pinned are handed back, but for the one that waits
for what is first in line. Where that does not help for a while, the first in line is told that the store is full. So
is, after a longer time, an argument that comes again and again with a task that is handed back again and again, also
when it has been denied before at a moment in which nobody waited for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Final

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import ABANDONED, ABSENT, DOOMED, HELD_BACK, LOCAL, QUEUED, READING, SPILLED, Copy
from hpcfut.core.effects import DenyRoom, GiveRoom, ReadSource, RestoreObject, StartRead
from hpcfut.core.events import ObjectsSpilled, RoomReturned, RoomWanted, SpillFailed
from hpcfut.core.fullness import complaint_of_full_store
from hpcfut.core.spills import Spills
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import FULL, Failure
from hpcfut.model.segment import NBYTES_HEADER
from hpcfut.wire.messages import LoanRecalled

#: So many times as long as others waits an argument whose task comes again and again.
N_PATIENCES: Final = 10
_N_ASKED_MAX: Final = 1000


class Pressure:
    """The lines of those who wait for room."""

    def __init__(self, context: Context, copies: Copies) -> None:
        self._context = context
        self._copies = copies
        self._next = copies.next
        copies.on_room = self._note_progress
        copies.on_movable = self._note_room
        copies.on_unqueued = self._withdraw
        copies.on_dropped = self._note_dropped
        #: Transfer to this rank, from another one or from a file → its object.
        self.reads: dict[int, int] = {}
        self._urgent: deque[Copy] = deque()
        self._later: deque[Copy] = deque()
        self._is_due = False
        self._spills = Spills(context, copies)
        #: From when on nothing has moved for long enough; and whether runs have been handed back since room was found.
        self._overdue_at: float | None = None
        self._has_handed_back = False
        #: Hands the runs back that have not started, but for those that watch a copy; gives whether there were any.
        #: Bound in ``recalls.py``.
        self.hand_back: Callable[[Copy], bool] = lambda copy: False
        #: Lets go of what only lineage holds here, of so many bytes; gives whether there was any. Bound in ``rank.py``.
        self.give_way: Callable[[int], bool] = lambda nbytes: False
        #: Local copies that others ask for, but that may have to make way first, for who has waited longer.
        self._held_up: dict[int, Copy] = {}
        #: Told of one that need not make way, or has done so; bound in ``transfers.py``.
        self.on_released: Callable[[Copy], None] = lambda copy: None
        #: Tells who waits for a copy that it will not come; bound in ``transfers.py``.
        self.on_denied: Callable[[Copy, Failure], None] = lambda copy, failure: None

    # -- asking --------------------------------------------------------------------------------------------------------

    def on_room_wanted(self, event: RoomWanted) -> None:
        """User code here is about to write a value."""
        copy = Copy(event.object_id, self._next[ABSENT, "write"], event.nbytes, self._context.rank, is_primary=True)
        copy.waiter_id = event.waiter_id
        self._copies.copies[event.object_id] = copy
        self.ask(copy, is_urgent=True)

    def on_room_returned(self, event: RoomReturned) -> None:
        """User code does not write, or could not write, the value to its end."""
        copy = self._copies.copies.get(event.object_id)
        if copy is None:
            self._context.count_stale("room returned after it was denied")
            return
        if copy.state == HELD_BACK:
            self._urgent.remove(copy)
            self._note_room()
        self._copies.give_up(event.object_id)

    def ask(self, copy: Copy, *, is_urgent: bool) -> None:
        """A copy, held back or queued, needs a segment."""
        if not self._urgent and (is_urgent or not self._later):
            offset = self._copies.arena.allocate(copy.nbytes)
            if offset is not None:
                self._give(copy, offset)
                return
        if not self.is_felt:
            self._overdue_at = None
            if copy.file_id <= 0:
                self._spills.try_again()
        (self._urgent if is_urgent else self._later).append(copy)
        if copy.state == QUEUED:
            self._note_asked(copy.object_id)
        self._note_room()

    def _note_asked(self, object_id: int) -> None:
        """A read is asked for: for the first time, or as the task that wants it comes again soon after it was here."""
        now, times = self._context.now, self._copies.asked_at
        asked_at, left_at = times.pop(object_id, (now, now))
        if now - left_at > N_PATIENCES * self._context.config.store_full_after_s:
            asked_at = now
        if len(times) >= _N_ASKED_MAX:
            del times[next(iter(times))]
        times[object_id] = asked_at, now

    def promote(self, copy: Copy) -> None:
        """A thread waits for what only a task wanted before."""
        if copy.state == QUEUED and copy in self._later:
            self._later.remove(copy)
            self._urgent.append(copy)
            self._note_room()

    def holds_up(self, copy: Copy) -> bool:
        """Whether who asks for a local copy must wait, because somebody has waited for the memory that it is in.

        A reader that returns a recalled loan asks anew at once; were it lent again, the memory would never be free.
        """
        if not self.is_felt or copy.n_pins or copy.n_views or copy.n_sends:
            return False
        if copy.lent and not copy.is_recalled:
            return False
        self._held_up[copy.object_id] = copy
        self._note_room()
        return True

    def _release(self, *, is_over: bool) -> None:
        """Who was held up goes on, but where the memory is still to come back or the disk is reading it."""
        held_up, self._held_up = self._held_up, {}
        for object_id, copy in held_up.items():
            if not is_over and copy.state == LOCAL and (copy.n_sends or (copy.lent and copy.is_recalled)):
                self._held_up[object_id] = copy
            else:
                self.on_released(copy)

    def _withdraw(self, copy: Copy) -> None:
        """Nobody wants the bytes of a queued copy any more."""
        times = self._copies.asked_at
        if copy.object_id in times:
            times[copy.object_id] = times[copy.object_id][0], self._context.now
        self._line_of(copy).remove(copy)
        self._note_room()

    def _line_of(self, copy: Copy) -> deque[Copy]:
        return self._later if copy in self._later else self._urgent

    def _give(self, copy: Copy, offset: int) -> None:
        copy.offset = offset
        copy.state = self._next[copy.state, "room"]
        self._has_handed_back = False
        if copy.waiter_id:
            self._context.effects.append(GiveRoom(copy.waiter_id, copy.object_id, offset))
            copy.waiter_id = 0
            return
        self.reads[copy.transfer_id] = copy.object_id
        if copy.recipe is not None:
            self._context.effects.append(ReadSource(copy.transfer_id, copy.object_id, copy.recipe, offset, copy.nbytes))
        elif copy.file_id:
            self._context.effects.append(
                RestoreObject(copy.transfer_id, copy.object_id, copy.file_id, offset, copy.nbytes)
            )
        else:
            self._context.effects.append(StartRead(copy.transfer_id, copy.object_id, copy.source, offset, copy.nbytes))

    def _deny(self, copy: Copy) -> None:
        text = complaint_of_full_store(
            self._copies, self._context.rank, copy.object_id, copy.nbytes, self._spills.trouble
        )
        failure = Failure(FULL, text)
        times = self._copies.asked_at
        if copy.waiter_id or copy.watchers:
            times.pop(copy.object_id, None)
        elif copy.object_id in times:  # Who has asked may hear of it too late, and ask again and again.
            times[copy.object_id] = times[copy.object_id][0], self._context.now
        copy.state = self._next[copy.state, "no room"]
        if copy.waiter_id:
            self._copies.forget(copy)
            self._context.effects.append(DenyRoom(copy.waiter_id, failure))
        else:
            self.on_denied(copy, failure)

    @property
    def is_felt(self) -> bool:
        """Whether anybody waits for room."""
        return bool(self._urgent or self._later)

    # -- making room ---------------------------------------------------------------------------------------------------

    @property
    def deny_at(self) -> float | None:
        """When somebody is told that the store is full."""
        return self._overdue_at if self.is_felt else None

    def _note_progress(self) -> None:
        """Memory is free that was in use before. That more can be moved away says nothing, if the disk is full."""
        self._overdue_at = None
        self._note_room()

    def _note_room(self) -> None:
        """There may be room, or more to be made; looked at when everything is settled."""
        if (self.is_felt or self._held_up) and not self._is_due:
            self._is_due = True
            self._context.put_off.append((self._pump, None))

    def _pump(self, _: None) -> None:
        self._is_due = False
        self._serve_lines()
        if self._held_up:
            self._release(is_over=not self.is_felt)

    def _serve_lines(self) -> None:
        arena = self._copies.arena
        for line in (self._urgent, self._later):
            while line:
                copy = line[0]
                if copy.nbytes + NBYTES_HEADER > arena.nbytes:
                    line.popleft()
                    self._deny(copy)
                    continue
                offset = arena.allocate(copy.nbytes)
                if offset is None:
                    break
                line.popleft()
                self._give(copy, offset)
            if line:
                self._make_room(line[0])
                return

    def _make_room(self, first: Copy) -> None:
        """Move away what can be, for all who wait; where nothing can, begin to lose patience."""
        arena, config = self._copies.arena, self._context.config
        waiting = sum(copy.nbytes + NBYTES_HEADER for line in (self._urgent, self._later) for copy in line)
        goal = min(max(waiting, first.nbytes + config.nbytes_spill_file // 2), arena.nbytes // 2 + first.nbytes)
        # What is free in pieces that are too small does not count: as much again is made.
        left = goal - self._spills.nbytes
        is_disk_open = not self._spills.trouble or self._spills.may_exchange(first)
        evicted, unloaded, batch, recalled, used = (list[Copy]() for _ in range(5))
        movable = self._copies.movable.values()
        primary = (copy for copy in movable if copy.is_primary)
        for copy in chain((copy for copy in movable if not copy.is_primary), primary):
            if left <= 0:
                break
            if copy.state not in (LOCAL, DOOMED) or not copy.is_movable:
                used.append(copy)  # When a recalled loan comes back nobody knows.
                continue
            if copy.lent:  # Perhaps doomed: it is freed when it comes back.
                if not is_disk_open and copy.is_primary and copy.state == LOCAL and not copy.file_id:
                    continue  # It would come back in vain, and be lent again, for ever.
                recalled.append(copy)
            elif copy.file_id and copy.is_held:
                unloaded.append(copy)
            elif not copy.is_primary:
                evicted.append(copy)
            elif not self._spills.trouble:
                batch.append(copy)
            else:
                continue
            left -= copy.nbytes + NBYTES_HEADER
        for copy in used:
            del self._copies.movable[copy.object_id]
        for copy in evicted:
            self._copies.evict(copy)
        for copy in unloaded:
            self._unload(copy)
        for copy in recalled:
            self._recall(copy)
        self._spills.spill(batch)
        if evicted or unloaded:
            self._spills.try_again()
        if evicted or unloaded or self._spills.is_busy:
            self._overdue_at = None
        elif recalled:
            self._overdue_at = self._context.now + config.store_full_after_s
            self._context.wake_at(self._overdue_at)
        elif self._spills.exchange(first):
            self._overdue_at = None
        else:
            self._lose_patience(first)

    def _lose_patience(self, first: Copy) -> None:
        """Nothing could be moved away for the first in line."""
        if self.give_way(first.nbytes):
            self._note_room()
            return
        now, patience_s = self._context.now, self._context.config.store_full_after_s
        asked_at, _ = self._copies.asked_at.get(first.object_id, (now, now))
        is_old = now - asked_at >= N_PATIENCES * patience_s
        if self._overdue_at is None:
            self._overdue_at = now + patience_s
        if not (self._has_handed_back or is_old) and self.hand_back(first):
            self._has_handed_back = True
            self._note_room()
            return
        if self._overdue_at > now and not is_old:
            self._context.wake_at(self._overdue_at)
            return
        self._overdue_at = None
        (self._urgent or self._later).popleft()
        self._deny(first)
        self._spills.try_again()
        self._release(is_over=True)
        self._note_room()

    def _recall(self, copy: Copy) -> None:
        copy.is_recalled = True
        assert copy.lent is not None
        for rank in copy.lent:
            self._context.send(rank, LoanRecalled(copy.object_id))

    def _unload(self, copy: Copy) -> None:
        copy.state = self._next[LOCAL, "unload"]
        self._copies.give_back(copy)

    def on_spilled(self, event: ObjectsSpilled) -> None:
        """Copies are in a file; who is not used goes from memory, as far as room is wanted."""
        copies, displaced = self._spills.succeed(event.spill_id, event.file_id)
        for copy in copies:
            if copy.state == LOCAL and not (copy.is_used or copy.n_pins) and self.is_felt:
                self._unload(copy)
            else:
                self._copies.let_go(copy)
        if displaced is not None and displaced.state == QUEUED:
            offset = self._copies.arena.allocate(displaced.nbytes)
            if offset is not None:  # At once: its room on the disk is taken, and nobody else may have what it gave for.
                self._line_of(displaced).remove(displaced)
                self._give(displaced, offset)
        self._note_progress()

    def on_spill_failed(self, event: SpillFailed) -> None:
        """The disk does not take so much now, or nothing at all."""
        for copy in self._spills.fail(event.spill_id, event.reason):
            self._copies.let_go(copy)
        self._note_room()

    def note_read(self, copy: Copy) -> None:
        """What was read is in memory."""
        if copy.is_displaced:
            self._spills.take_back(copy)

    def _note_dropped(self) -> None:
        """There is room in a file that was not there before."""
        self._spills.try_again()
        self._note_room()

    def tick(self) -> None:
        """Nothing may have moved for long enough."""
        self._note_room()

    def check(self) -> None:
        """Assert what must hold between turns."""
        waiting = [*self._urgent, *self._later]
        queued = [copy.object_id for copy in self._copies.copies.values() if copy.state in (HELD_BACK, QUEUED)]
        if sorted(queued) != sorted(copy.object_id for copy in waiting):
            raise InvariantError(f"These wait for room: {queued}, and in line are {waiting}.")
        if waiting and not (self._is_due or self._spills.is_busy or self.deny_at is not None):
            raise InvariantError(f"Nobody makes room for {waiting}.")
        for copy in self._copies.copies.values():
            if copy.state in (LOCAL, SPILLED) and copy.askers and copy.object_id not in self._held_up:
                raise InvariantError(f"Nobody serves who asks for {copy}.")
        reading = [copy.object_id for copy in self._copies.copies.values() if copy.state in (READING, ABANDONED)]
        if sorted(reading) != sorted(self.reads.values()):
            raise InvariantError(f"These are read: {reading}, by the transfers {self.reads}.")
        if self._held_up and not (waiting or self._is_due):
            raise InvariantError(f"These hold up who asks for them, and nobody waits for room: {self._held_up}.")
        self._spills.check()
