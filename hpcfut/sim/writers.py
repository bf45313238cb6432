"""Threads of one virtual rank that store large values: they wait for room, write in place or not, and waste some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hpcfut.core import effects as f
from hpcfut.core import events as e
from hpcfut.sim.truth import Value
from hpcfut.sim.window import NBYTES_STORED
from hpcfut.wire.messages import Result

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank

#: One of so many stored values is built in place.
_DRAFT_EVERY: Final = 4
#: With one of so many, room is taken for what never becomes a value.
_WASTE_EVERY: Final = 10


class Writers:
    """See the module's docstring."""

    def __init__(self, rank: SimRank) -> None:
        self._rank = rank
        self.number = rank.rank
        #: What each does when it is given room, or not.
        self.waiting: dict[int, Callable[[bool], None]] = {}
        self._n_writers = 0

    def seal(self, object_id: int, value: Value, then: Callable[[Result], None]) -> None:
        """Store a value here if it is large, as soon as there is room; ``then`` is given what the core is told.

        Who finds no room makes do with a small value.
        """
        rank = self._rank
        small = Result(value.payload, len(value.payload), value.contained)
        if not value.is_stored or rank.ended is not None or rank.is_dead:
            then(small)
            return
        if object_id % _WASTE_EVERY == 0:
            self._waste_room()
        is_draft = object_id % _DRAFT_EVERY == 0
        room_id = rank.new_id() if is_draft else object_id
        world = rank.world
        rng = world.rng

        def write(is_given: bool) -> None:
            if is_given and rng.random() < 0.02:
                rank.post(e.RoomReturned(room_id))
                is_given = False
            if not is_given:
                then(small)
                return
            if is_draft:
                self._take_draft(room_id, object_id)
            rank.window.store(object_id, value.payload)
            then(Result(None, NBYTES_STORED, value.contained))
            if is_draft:
                # The array is dropped at once, which may be told before or after what it has become.
                rank.post(e.ViewsClosed([object_id]))

        writer = self._ask_for_room(room_id, write)
        if rng.random() < 0.05:
            world.set_timer(world.now + rng.random() * 0.05, self._stop_waiting, (writer, room_id))

    def _ask_for_room(self, object_id: int, write: Callable[[bool], None]) -> int:
        self._n_writers += 1
        self.waiting[self._n_writers] = write
        self._rank.post(e.RoomWanted(self._n_writers, object_id, NBYTES_STORED))
        return self._n_writers

    def _stop_waiting(self, what: tuple[int, int]) -> None:
        """A thread does not wait for room any more."""
        writer, room_id = what
        write = self.waiting.pop(writer, None)
        if write is not None:
            self._rank.post(e.RoomReturned(room_id))
            write(False)

    def _take_draft(self, draft_id: int, object_id: int) -> None:
        self._rank.window.rename(draft_id, object_id)
        self._rank.tell([e.DraftBegun(draft_id), e.DraftTaken(draft_id, object_id)])

    def _waste_room(self) -> None:
        """User code here cannot write a value, drops an array that it builds, and cannot store what follows one."""
        rank = self._rank
        unwritten, dropped, draft, given_up = (rank.new_id() for _ in range(4))

        def cannot_write(is_given: bool) -> None:
            if is_given:
                rank.post(e.RoomReturned(unwritten))

        def drop(is_given: bool) -> None:
            if is_given:
                rank.tell([e.DraftBegun(dropped)])
                rank.post(e.ViewsClosed([dropped]))

        def give_up(is_given: bool) -> None:
            if is_given:
                self._take_draft(draft, given_up)
                rank.post(e.RoomReturned(given_up))
                rank.post(e.ViewsClosed([given_up]))

        self._ask_for_room(unwritten, cannot_write)
        self._ask_for_room(dropped, drop)
        self._ask_for_room(draft, give_up)

    # -- effects -----------------------------------------------------------------------------------------------------

    def give_room(self, effect: f.GiveRoom) -> None:
        """There is room for a value."""
        self._rank.window.give(effect.object_id, effect.offset)
        self._answer(effect.waiter_id, is_given=True)

    def deny_room(self, effect: f.DenyRoom) -> None:
        """There is none."""
        self._rank.world.truth.n_denied += 1
        self._answer(effect.waiter_id, is_given=False)

    def _answer(self, waiter_id: int, *, is_given: bool) -> None:
        write = self.waiting.pop(waiter_id, None)
        if write is not None:
            world = self._rank.world
            world.schedule(world.now, self._go_on_writing, (waiter_id, write, is_given))

    def _go_on_writing(self, what: tuple[int, Callable[[bool], None], bool]) -> None:
        _, write, is_given = what
        if not self._rank.is_dead:
            write(is_given)
