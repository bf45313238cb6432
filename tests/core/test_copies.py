"""The memory of objects: written, viewed, and given back when the last who needs it has gone."""

from __future__ import annotations

from hpcfut.core.effects import FreeSegment, GiveRoom, WakeWaiter
from hpcfut.core.events import DraftBegun, DraftTaken, ObjectPut, ReadCompleted, RoomReturned, RoomWanted, ViewsClosed
from hpcfut.wire.messages import ObjectLocated
from tests.core.cores import LARGE, MakeCore, of, only, place_of, takes
from tests.core.test_references import THEIRS, borrow


@takes("copies", ("absent", "write"), ("held back", "room"), ("writing", "seal"), ("local", "free"))
def test_a_put_is_freed_with_its_last_ref(make_core: MakeCore) -> None:
    hand = make_core()
    mine = hand.own(9)
    assert hand.tell(RoomWanted(7, mine, LARGE.nbytes)) == [GiveRoom(7, mine, 0)]
    hand.core.handle(ObjectPut(mine, LARGE), 0.0)
    assert only(hand.start_waiting(mine), WakeWaiter).values == [place_of(mine, 0, LARGE.nbytes)]
    assert hand.release(mine) == [FreeSegment(mine, 0)]


@takes("copies", ("writing", "give up"))
def test_a_value_that_could_not_be_written_leaves_nothing(make_core: MakeCore) -> None:
    hand = make_core()
    hand.tell(RoomWanted(7, hand.own(9), 1000))
    assert hand.tell(RoomReturned(hand.own(9))) == [FreeSegment(hand.own(9), 0)]


@takes("copies", ("writing", "lay out"), ("draft", "take"))
def test_an_array_that_was_built_in_place_is_put_under_a_name_of_its_own(make_core: MakeCore) -> None:
    hand = make_core()
    draft, mine = hand.own(8), hand.own(9)
    hand.tell(RoomWanted(7, draft, LARGE.nbytes))
    hand.tell(DraftBegun(draft))
    hand.tell(DraftTaken(draft, mine))
    hand.core.handle(ObjectPut(mine, LARGE), 0.0)
    assert hand.release(mine) == [], "The array is there."
    assert hand.tell(ViewsClosed([mine])) == [FreeSegment(mine, 0)]


@takes("copies", ("draft", "free"))
def test_an_array_that_is_dropped_before_it_is_put_gives_its_room_back(make_core: MakeCore) -> None:
    hand = make_core()
    draft = hand.own(8)
    hand.tell(RoomWanted(7, draft, LARGE.nbytes))
    hand.tell(DraftBegun(draft))
    assert hand.tell(ViewsClosed([draft])) == [FreeSegment(draft, 0)]


def test_an_array_that_goes_before_its_put_is_told_takes_nothing_along(make_core: MakeCore) -> None:
    hand = make_core()
    draft, mine = hand.own(8), hand.own(9)
    hand.tell(RoomWanted(7, draft, LARGE.nbytes))
    hand.tell(DraftBegun(draft))
    hand.tell(DraftTaken(draft, mine))
    assert hand.tell(ViewsClosed([mine])) == []
    hand.core.handle(ObjectPut(mine, LARGE), 0.0)
    assert hand.release(mine) == [FreeSegment(mine, 0)]


@takes("copies", ("writing", "give up while used"))
def test_a_result_that_was_built_in_place_and_given_up_waits_for_its_array(make_core: MakeCore) -> None:
    # The second of a task's results could not be stored.
    hand = make_core()
    draft, mine = hand.own(8), hand.own(9)
    hand.tell(RoomWanted(7, draft, LARGE.nbytes))
    hand.tell(DraftBegun(draft))
    hand.tell(DraftTaken(draft, mine))
    assert hand.tell(RoomReturned(mine)) == []
    assert hand.tell(ViewsClosed([mine])) == [FreeSegment(mine, 0)]


def test_a_value_that_is_viewed_outlives_its_ref(make_core: MakeCore) -> None:
    hand = make_core()
    hand.keeps_values = True
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.start_waiting(mine)
    hand.start_waiting(mine, waiter=2)
    assert hand.release(mine) == []
    assert hand.tell(ViewsClosed([mine])) == []
    assert hand.tell(ViewsClosed([mine])) == [FreeSegment(mine, 0)]


@takes("copies", ("doomed", "want"))
def test_a_cached_copy_that_is_only_viewed_is_wanted_again(make_core: MakeCore) -> None:
    # The ref is dropped while its value is kept, and comes here once more.
    hand = make_core()
    hand.keeps_values = True
    for is_first in (True, False):
        borrow(hand)
        hand.start_waiting(THEIRS)
        effects = hand.get(2, ObjectLocated(THEIRS, 2, 100))
        if is_first:
            effects = hand.tell(ReadCompleted(1))
        assert only(effects, WakeWaiter).values == [place_of(THEIRS, 0, 100)]
        assert not of(hand.release(THEIRS) + hand.free_kept(), FreeSegment)
    assert hand.tell(ViewsClosed([THEIRS, THEIRS])) == [FreeSegment(THEIRS, 0)]
