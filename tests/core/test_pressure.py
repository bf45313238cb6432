"""A full store: who waits for room, what is moved away, and who is told that there is none."""

from __future__ import annotations

from typing import Any

import pytest

from hpcfut.core.copies import Copies
from hpcfut.core.copy import Copy
from hpcfut.core.effects import (
    DenyRoom,
    DropSpilled,
    FreeSegment,
    GiveRoom,
    RestoreObject,
    RunTask,
    SendObject,
    SpillObjects,
    StartRead,
    WakeWaiter,
)
from hpcfut.core.events import (
    ObjectPut,
    ObjectsSpilled,
    ReadCompleted,
    ReadFailed,
    RefsAdded,
    RoomReturned,
    RoomWanted,
    RunReturned,
    SendCompleted,
    SpillFailed,
    ViewsClosed,
    WaitAbandoned,
    WaitStarted,
)
from hpcfut.core.pressure import N_PATIENCES
from hpcfut.model.failure import FULL, LOST, UNRECOVERABLE, Failure
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.messages import (
    Argument,
    BytesLent,
    CopyGone,
    LoanRecalled,
    LoanRequested,
    LoanReturned,
    ObjectFailed,
    ObjectFreed,
    ObjectLocated,
    ReadRefused,
    ReadRequested,
    Result,
    TaskRaised,
    TaskReturned,
    TasksHandedBack,
)
from tests.core.cores import LARGE, SMALL, Hand, MakeCore, foreign, lost, of, only, place_of, sent, takes
from tests.core.test_references import THEIRS, borrow

NBYTES = LARGE.nbytes
HERE = TaskTemplate(7, "here", b"", affinity=0)
#: Room for two objects of that size, with their headers; and no more is moved to files than must be.
TWO = {"nbytes_store": 2 * (NBYTES + 64), "nbytes_spill_file": 1}


def put_two(hand: Hand) -> tuple[int, int]:
    """User code puts what fills the store."""
    first, second = hand.own(11), hand.own(12)
    hand.tell(ObjectPut(first, LARGE))
    hand.tell(ObjectPut(second, LARGE))
    return first, second


def spill(hand: Hand, n: int = 13) -> int:
    """Somebody wants room, for which the first object goes to a file; it gives up, so that the store has a hole."""
    effects = hand.tell(RoomWanted(7, hand.own(n), NBYTES))
    spilled = only(effects, SpillObjects)
    assert only(hand.tell(ObjectsSpilled(spilled.spill_id, 3)), GiveRoom).waiter_id == 7
    hand.tell(RoomReturned(hand.own(n)))
    return spilled.places[0].object_id


def lent_and_full(make_core: MakeCore) -> tuple[Hand, int]:
    """A rank that runs tasks of others, and whose store is full of a value that its driver has put and looks at."""
    hand = make_core(1, nbytes_store=NBYTES + 64)
    hand.keeps_values = True
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.start_waiting(mine)
    hand.lend()
    return hand, mine


@takes("copies", ("absent", "write"), ("held back", "room"), ("local", "unload"), ("spilled", "free"))
def test_what_was_used_least_recently_goes_to_a_file_for_who_wants_room(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    first, second = put_two(hand)
    hand.start_waiting(first)  # It is used again, so the second one is older now.
    effects = hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert only(effects, SpillObjects) == SpillObjects(1, [place_of(second, 0, NBYTES, NBYTES + 64)])
    assert not of(effects, GiveRoom)
    effects = hand.tell(ObjectsSpilled(1, 3))
    assert [type(effect) for effect in effects] == [FreeSegment, GiveRoom]
    assert only(effects, GiveRoom) == GiveRoom(7, hand.own(13), NBYTES + 64)
    hand.tell(ObjectPut(hand.own(13), LARGE))
    assert hand.release(second) == [DropSpilled(3, second)]
    hand.release(first, hand.own(13))


@takes("copies", ("spilled", "read"), ("queued", "room"))
def test_what_was_spilled_is_read_back_for_who_wants_it(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    put_two(hand)
    spilled = spill(hand)
    assert only(hand.start_waiting(spilled), RestoreObject) == RestoreObject(1, spilled, 3, 0, NBYTES)
    assert only(hand.tell(ReadCompleted(1)), WakeWaiter).values == [place_of(spilled, 0, NBYTES)]
    assert hand.release(hand.own(12), spilled) == [
        FreeSegment(hand.own(12), NBYTES + 64),
        FreeSegment(spilled, 0),
        DropSpilled(3, spilled),
    ]


def test_what_is_in_a_file_already_is_not_written_again(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    put_two(hand)
    spilled = spill(hand)
    hand.start_waiting(spilled)
    hand.tell(ReadCompleted(1))
    hand.start_waiting(hand.own(12))
    effects = hand.tell(RoomWanted(8, hand.own(14), NBYTES))
    assert only(effects, FreeSegment).object_id == spilled
    assert only(effects, GiveRoom).waiter_id == 8
    assert not of(effects, SpillObjects)
    hand.tell(RoomReturned(hand.own(14)))
    hand.release(spilled, hand.own(12))


def test_what_is_used_while_it_is_written_to_a_file_stays(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    hand.keeps_values = True
    first, second = put_two(hand)
    hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert only(hand.start_waiting(first), WakeWaiter).values == [place_of(first, 0, NBYTES)]
    effects = hand.tell(ObjectsSpilled(1, 3))
    assert only(effects, SpillObjects).places[0].object_id == second, "Another one goes instead."
    hand.tell(ObjectsSpilled(2, 4))
    hand.tell(RoomReturned(hand.own(13)), ViewsClosed([first]))
    hand.release(first, second)


def test_what_is_collected_while_it_is_written_to_a_file_is_dropped_from_it(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    first, second = put_two(hand)
    hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert not of(hand.release(first), FreeSegment), "The disk reads it."
    effects = hand.tell(ObjectsSpilled(1, 3))
    assert of(effects, DropSpilled) == [DropSpilled(3, first)]
    assert of(effects, FreeSegment) == [FreeSegment(first, 0)]
    assert only(effects, GiveRoom)
    hand.tell(RoomReturned(hand.own(13)))
    hand.release(second)


@takes("copies", ("local", "evict"))
def test_a_cached_copy_is_forgotten_and_read_again(make_core: MakeCore) -> None:
    hand = make_core(nbytes_spill_file=1, nbytes_store=NBYTES + 64)
    borrow(hand)
    hand.start_waiting(THEIRS)
    hand.get(2, ObjectLocated(THEIRS, 2, NBYTES))
    hand.tell(ReadCompleted(1))
    effects = hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert sent(effects) == [(2, CopyGone(THEIRS, 0))]
    assert [type(effect) for effect in effects[1:]] == [FreeSegment, GiveRoom]
    hand.tell(RoomReturned(hand.own(13)))
    assert only(hand.start_waiting(THEIRS, waiter=2), StartRead).transfer_id == 2
    hand.tell(ReadCompleted(2))
    hand.release(THEIRS)


# --- who wants it meanwhile ---


def test_what_costs_nothing_goes_before_what_must_be_written(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    mine = hand.own(11)
    hand.tell(ObjectPut(mine, LARGE))
    borrow(hand)
    hand.start_waiting(THEIRS)
    hand.get(2, ObjectLocated(THEIRS, 2, NBYTES))
    hand.tell(ReadCompleted(1))
    effects = hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert [effect.object_id for effect in of(effects, FreeSegment)] == [THEIRS], "Though it was used last."
    assert of(effects, GiveRoom)
    assert not of(effects, SpillObjects)
    hand.tell(RoomReturned(hand.own(13)))
    hand.release(mine, THEIRS)


def test_a_reader_gets_what_was_spilled_when_it_is_back(make_core: MakeCore) -> None:
    hand = make_core(**TWO, neighbours=(0, 1))
    put_two(hand)
    spilled = spill(hand)
    assert only(hand.get(1, LoanRequested(spilled)), RestoreObject)
    assert not hand.get(2, ReadRequested(spilled, 5))
    effects = hand.tell(ReadCompleted(1))
    assert sent(effects) == [(1, BytesLent(spilled, 0, NBYTES))]
    assert only(effects, SendObject).rank == 2
    assert not of(hand.release(spilled, hand.own(12)), DropSpilled)
    hand.tell(SendCompleted(spilled))
    assert only(hand.get(1, LoanReturned(spilled, 1)), DropSpilled).object_id == spilled


def test_who_asks_for_a_loan_again_before_it_has_come_gets_one(make_core: MakeCore) -> None:
    hand = make_core(**TWO, neighbours=(0, 1))
    put_two(hand)
    spilled = spill(hand)
    hand.get(1, LoanRequested(spilled))
    hand.get(1, LoanRequested(spilled))
    assert sent(hand.tell(ReadCompleted(1))) == [(1, BytesLent(spilled, 0, NBYTES))]
    hand.get(1, LoanReturned(spilled, 1))
    hand.release(spilled, hand.own(12))


@takes("copies", ("missing", "retry"))
def test_a_file_that_cannot_be_read_is_told_and_tried_again(make_core: MakeCore) -> None:
    hand = make_core(**TWO, neighbours=(0, 1))
    put_two(hand)
    spilled = spill(hand)
    hand.start_waiting(spilled)
    hand.get(1, LoanRequested(spilled))
    hand.get(2, ReadRequested(spilled, 5))
    damaged = Failure(LOST, "Its checksum is wrong.")
    effects = hand.tell(ReadFailed(1, damaged))
    (told,) = only(effects, WakeWaiter).values
    assert isinstance(told, Failure)
    assert told.kind == UNRECOVERABLE
    assert told.text.startswith("Its checksum is wrong. Object 0.11 is lost for good: it was put, and no task made it.")
    assert sent(effects) == [(1, ReadRefused(spilled, 0, damaged)), (2, ReadRefused(spilled, 5, damaged))]
    assert only(hand.start_waiting(spilled, waiter=2), RestoreObject).transfer_id == 2
    hand.tell(ReadCompleted(2))
    hand.release(spilled, hand.own(12))


def test_a_refusal_with_a_reason_is_told_with_that_reason(make_core: MakeCore) -> None:
    damaged = Failure(LOST, "Its checksum is wrong.")
    for neighbours, refusal in (((), ReadRefused(THEIRS, 1, damaged)), ((0, 2), ReadRefused(THEIRS, 0, damaged))):
        hand = make_core(neighbours=neighbours)
        borrow(hand)
        hand.start_waiting(THEIRS)
        hand.get(2, ObjectLocated(THEIRS, 2, 100))
        assert lost(hand.get(2, refusal)) == damaged
        assert only(hand.get(2, ObjectFailed(THEIRS, damaged)), WakeWaiter).values == [damaged]
        hand.release(THEIRS)


@takes("copies", ("absent", "read"), ("queued", "free"))
def test_a_queued_read_that_nobody_wants_any_more_is_forgotten(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    hand.keeps_values = True
    first, second = put_two(hand)
    hand.start_waiting(first, second)
    borrow(hand)
    hand.start_waiting(THEIRS, waiter=2)
    assert not of(hand.get(2, ObjectLocated(THEIRS, 2, NBYTES)), StartRead)
    hand.tell(WaitAbandoned(2))
    hand.release(THEIRS)
    assert not hand.core.copies.find(THEIRS)
    hand.tell(ViewsClosed([first, second]))
    hand.release(first, second)


def test_arguments_of_tasks_wait_behind_writers_and_threads(make_core: MakeCore) -> None:
    hand, mine = lent_and_full(make_core)
    assert not of(hand.accept(1, arguments=(Argument(THEIRS, None, 2, NBYTES),)), StartRead)
    hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    hand.release(mine)
    effects = hand.tell(ViewsClosed([mine]))
    assert only(effects, GiveRoom).waiter_id == 7
    assert not of(effects, StartRead)
    assert only(hand.tell(RoomReturned(hand.own(13))), StartRead)
    hand.tell(ReadCompleted(1))
    hand.tell(RunReturned(foreign(0, 1), (SMALL,)), ViewsClosed([THEIRS]))


# --- loans ---


def test_loans_are_recalled_and_what_comes_back_is_spilled(make_core: MakeCore) -> None:
    hand = make_core(nbytes_spill_file=1, nbytes_store=NBYTES + 64, neighbours=(0, 1, 2))
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.get(1, LoanRequested(mine))
    hand.get(2, LoanRequested(mine))
    effects = hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert sent(effects) == [(1, LoanRecalled(mine)), (2, LoanRecalled(mine))]
    assert not hand.get(1, LoanReturned(mine, 1))
    assert only(hand.get(2, LoanReturned(mine, 1)), SpillObjects).places == [place_of(mine, 0, NBYTES)]
    assert only(hand.tell(ObjectsSpilled(1, 3)), GiveRoom)
    hand.tell(RoomReturned(hand.own(13)))
    hand.release(mine)


def test_a_loan_is_returned_when_nothing_uses_it_and_asked_for_anew(make_core: MakeCore) -> None:
    hand = make_core(neighbours=(0, 1, 2))
    hand.keeps_values = True
    task = hand.push_to_1()
    hand.get(1, TaskReturned(task, (Result(None, 100, (), 640),)))
    hand.start_waiting(task)
    assert not hand.get(1, LoanRecalled(task)), "A value is built over it."
    assert sent(hand.tell(ViewsClosed([task]))) == [(1, LoanReturned(task, 1))]
    assert sent(hand.start_waiting(task, waiter=2)) == [(1, LoanRequested(task))]
    hand.get(1, BytesLent(task, 1280, 100))
    hand.tell(ViewsClosed([task]))
    assert sent(hand.get(1, LoanRecalled(task))) == [(1, LoanReturned(task, 1))], "Only a ref wants it."
    hand.get(1, LoanRecalled(task))
    assert hand.stale("recall of a loan that was returned") == 1
    assert sent(hand.release(task)) == [(1, ObjectFreed(task))]


def test_what_a_wait_has_counted_stays_until_the_wait_is_over(make_core: MakeCore) -> None:
    # get([a, b]): a is ready and its loan is recalled before b is there.
    hand = make_core(neighbours=(0, 1, 2))
    first = hand.push_to_1()
    hand.get(1, TaskReturned(first, (Result(None, 100, (), 640),)))
    second = hand.push_to_1(2)
    hand.start_waiting(first, second)
    assert not hand.get(1, LoanRecalled(first))
    effects = hand.get(1, TaskReturned(second, (SMALL,)))
    assert only(effects, WakeWaiter).values == [place_of(first, 1, 100, 640), b"small"]
    assert (1, LoanReturned(first, 1)) in sent(effects)
    hand.release(first, second)


@takes("copies", ("lent", "recall"))
@takes("run", ("ready", "fetch again"))
def test_a_task_that_has_not_started_waits_anew_for_what_is_recalled(make_core: MakeCore) -> None:
    # Two ranks whose running tasks want memory that holds the arguments of each other's next tasks would stand still.
    hand = make_core(1, neighbours=(0, 1, 2))
    hand.lend()
    hand.core.scheduler.grants[0, 1].depth = 4
    hand.accept(1)
    lent = Argument(foreign(0, 50), None, 0, 100, (), 640)
    hand.accept(2, arguments=(lent, lent))
    hand.accept(3, arguments=(lent, Argument(foreign(0, 51), None, 0, 100)))
    recalled = hand.get(0, LoanRecalled(foreign(0, 50)))
    assert sent(recalled) == [(0, LoanReturned(foreign(0, 50), 3)), (0, LoanRequested(foreign(0, 50)))]
    assert not of(hand.tell(RunReturned(foreign(0, 1), (SMALL,))), RunTask)
    assert only(hand.get(0, BytesLent(foreign(0, 50), 1280, 100)), RunTask).places[0].offset == 1280
    assert not sent(hand.get(0, LoanRecalled(foreign(0, 50)))), "A task that has started keeps it."
    effects = hand.tell(RunReturned(foreign(0, 2), (SMALL,)))
    assert (0, LoanReturned(foreign(0, 50), 1)) in sent(effects), "Now only the third one wants it."
    assert not of(hand.get(0, BytesLent(foreign(0, 51), 64, 100)), RunTask)
    assert only(hand.get(0, BytesLent(foreign(0, 50), 128, 100)), RunTask).task_id == foreign(0, 3)
    hand.tell(RunReturned(foreign(0, 3), (SMALL,)))


# --- no room at all ---


def full(make_core: MakeCore, **options: Any) -> tuple[Hand, int, int]:
    """A store full of values that user code keeps."""
    hand = make_core(**TWO, **options)
    hand.keeps_values = True
    first, second = put_two(hand)
    hand.start_waiting(first, second)
    return hand, first, second


@takes("copies", ("held back", "no room"))
def test_who_waits_in_vain_is_told_what_fills_the_store(make_core: MakeCore) -> None:
    hand, first, second = full(make_core)
    patience_s = hand.core.context.config.store_full_after_s
    assert not hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert not hand.wait(patience_s * 0.9)
    effects = hand.wait(patience_s * 0.2) + hand.wait(patience_s)
    denied = only(effects, DenyRoom)
    assert (denied.waiter_id, denied.failure.kind) == (7, FULL)
    assert "2 objects, the largest of them 0.11 (1000000 bytes)" in denied.failure.text
    assert "the largest free piece has 0 bytes. They are in use: values over them are kept" in denied.failure.text
    hand.tell(RoomReturned(hand.own(13)))
    assert hand.stale("room returned after it was denied") == 1
    hand.tell(ViewsClosed([first, second]))
    hand.release(first, second)


@takes("copies", ("held back", "give up"))
def test_who_does_not_wait_any_more_leaves_the_line(make_core: MakeCore) -> None:
    hand, first, second = full(make_core)
    hand.tell(RoomWanted(7, hand.own(13), NBYTES), RoomReturned(hand.own(13)))
    hand.tell(ViewsClosed([first, second]))
    hand.release(first, second)


def test_what_can_never_fit_is_denied_at_once(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    denied = only(hand.tell(RoomWanted(7, hand.own(13), 3 * NBYTES)), DenyRoom)
    assert denied.waiter_id == 7
    assert "its object store has 2000128 bytes in all. Make smaller objects" in denied.failure.text


@takes("copies", ("queued", "no room"))
def test_a_read_that_finds_no_room_ends_the_wait_for_it(make_core: MakeCore) -> None:
    hand, first, second = full(make_core)
    borrow(hand)
    hand.start_waiting(THEIRS, waiter=2)
    hand.get(2, ObjectLocated(THEIRS, 2, NBYTES))
    patience_s = hand.core.context.config.store_full_after_s
    effects = hand.wait(patience_s) + hand.wait(patience_s)
    (failure,) = only(effects, WakeWaiter).values
    assert isinstance(failure, Failure)
    assert failure.kind == FULL
    hand.tell(ViewsClosed([first, second]))
    assert only(hand.start_waiting(THEIRS, waiter=3), SpillObjects), "It is tried again for who comes later."
    hand.tell(ObjectsSpilled(1, 3))
    hand.tell(ReadCompleted(2))
    hand.tell(ViewsClosed([THEIRS]))
    hand.release(first, second, THEIRS)


def test_a_full_disk_is_the_reason_that_is_told(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    first, second = put_two(hand)
    hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert not of(hand.tell(SpillFailed(1, "The disk is full.")), SpillObjects), "It is not tried over and over."
    patience_s = hand.core.context.config.store_full_after_s
    denied = only(hand.wait(patience_s) + hand.wait(patience_s), DenyRoom)
    assert "The disk is full." in denied.failure.text
    assert only(hand.start_waiting(first), WakeWaiter).values == [place_of(first, 0, NBYTES)], "Nothing is lost."
    hand.release(first, second)


def full_everywhere(make_core: MakeCore, **options: Any) -> tuple[Hand, int, list[int]]:
    """A store for two whose disk takes no more; gives the object in the file, and those in memory."""
    hand = make_core(**TWO | options)
    first, second = put_two(hand)
    assert spill(hand) == first
    hand.tell(RoomWanted(7, hand.own(14), NBYTES))
    hand.tell(ObjectPut(hand.own(14), LARGE))
    return hand, first, [second, hand.own(14)]


def refuse_first(hand: Hand, spilled: int, **options: Any) -> SpillObjects:
    """Somebody wants what is in the file, and nothing else goes to the disk; gives what changes places with it."""
    assert only(hand.start_waiting(spilled, **options), SpillObjects).in_place_of is None
    return only(hand.tell(SpillFailed(2, "The disk is full.")), SpillObjects)


def test_what_is_in_a_file_changes_places_with_what_nobody_uses_when_the_disk_is_full(make_core: MakeCore) -> None:
    hand, spilled, (second, third) = full_everywhere(make_core)
    hand.start_waiting(second)  # Used later than the other one.
    assert refuse_first(hand, spilled) == SpillObjects(3, [place_of(second, 0, NBYTES, NBYTES + 64)], (3, spilled))
    effects = hand.tell(ObjectsSpilled(3, 4))
    assert [type(effect) for effect in effects] == [FreeSegment, RestoreObject]
    assert only(effects, RestoreObject) == RestoreObject(1, spilled, 3, NBYTES + 64, NBYTES)
    effects = hand.tell(ReadCompleted(1))
    assert only(effects, DropSpilled) == DropSpilled(3, spilled), "It is in memory only now."
    assert only(effects, WakeWaiter).values == [place_of(spilled, 0, NBYTES, NBYTES + 64)]
    # The next one changes places at once: the disk is as full as before.
    effects = hand.start_waiting(second)
    assert only(effects, SpillObjects) == SpillObjects(4, [place_of(third, 0, NBYTES)], (4, second))
    hand.tell(ObjectsSpilled(4, 5), ReadCompleted(2))
    # Where something goes from the disk, there is room for others.
    hand.release(third)
    assert only(hand.tell(RoomWanted(8, hand.own(15), NBYTES)), SpillObjects).in_place_of is None
    hand.tell(ObjectsSpilled(5, 6), RoomReturned(hand.own(15)))
    hand.release(spilled, second)


def test_who_cannot_have_what_is_in_a_file_is_told_of_the_disk_and_nothing_is_lost(make_core: MakeCore) -> None:
    hand, spilled, others = full_everywhere(make_core)
    refuse_first(hand, spilled)
    assert not of(hand.tell(SpillFailed(3, "No room in /folder.")), SpillObjects), "It is not tried over and over."
    patience_s = hand.core.context.config.store_full_after_s
    (failure,) = only(hand.wait(patience_s) + hand.wait(patience_s), WakeWaiter).values
    assert isinstance(failure, Failure)
    assert "No room in /folder." in failure.text
    hand.release(others[0])
    assert only(hand.start_waiting(spilled), RestoreObject) == RestoreObject(2, spilled, 3, NBYTES + 64, NBYTES)
    assert not of(hand.tell(ReadCompleted(2)), DropSpilled), "It is in the file as before."
    hand.release(spilled, others[1])


def test_what_is_used_while_it_is_written_keeps_its_place_and_the_other_one_waits(make_core: MakeCore) -> None:
    hand, spilled, (second, third) = full_everywhere(make_core)
    (place,) = refuse_first(hand, spilled).places
    hand.keeps_values = True
    used, other = (second, third) if place.object_id == second else (third, second)
    hand.start_waiting(used, waiter=2)
    # Its place in the file has been taken, but memory has none for it yet.
    effects = hand.tell(ObjectsSpilled(3, 4))
    assert not of(effects, RestoreObject)
    exchange = only(effects, SpillObjects)
    assert ([place.object_id for place in exchange.places], exchange.in_place_of) == ([other], (3, spilled))
    hand.tell(SpillFailed(4, "The disk is full."))
    assert only(hand.tell(ViewsClosed([used])), RestoreObject).object_id == spilled
    assert only(hand.tell(ReadCompleted(1)), DropSpilled) == DropSpilled(3, spilled)
    hand.tell(ViewsClosed([spilled]))
    hand.release(spilled, second, third)


def test_what_is_wanted_no_more_while_it_changes_places_is_dropped(make_core: MakeCore) -> None:
    hand, spilled, others = full_everywhere(make_core)
    refuse_first(hand, spilled)
    hand.tell(WaitAbandoned(1))
    assert only(hand.release(spilled), DropSpilled) == DropSpilled(3, spilled)
    assert hand.tell(ObjectsSpilled(3, 4)) == []
    hand.release(*others)


def test_what_finds_room_while_it_changes_places_is_in_memory_alone(make_core: MakeCore) -> None:
    hand, spilled, others = full_everywhere(make_core)
    (place,) = refuse_first(hand, spilled).places
    (other,) = (object_id for object_id in others if object_id != place.object_id)
    assert only(hand.release(other), RestoreObject).object_id == spilled
    hand.tell(ReadCompleted(1))
    assert only(hand.tell(ObjectsSpilled(3, 4)), DropSpilled) == DropSpilled(3, spilled)
    hand.release(spilled, place.object_id)


def test_what_is_lent_and_could_not_go_anywhere_is_not_recalled(make_core: MakeCore) -> None:
    hand = make_core(1, nbytes_store=NBYTES + 64, neighbours=(0, 1))
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    hand.tell(SpillFailed(1, "The disk is full."))
    assert of(hand.get(0, LoanRequested(mine)), SpillObjects) == []
    assert not any(type(message) is LoanRecalled for _, message in sent(hand.wait(0.5)))
    assert only(hand.wait(hand.core.context.config.store_full_after_s), DenyRoom).waiter_id == 7
    hand.get(0, LoanReturned(mine, 1))
    hand.release(mine)


def test_nothing_changes_places_with_what_is_in_the_way(make_core: MakeCore) -> None:
    hand, spilled, (second, third) = full_everywhere(make_core)
    hand.keeps_values = True
    hand.start_waiting(second, waiter=2)
    hand.start_waiting(third, waiter=3)
    assert not of(hand.start_waiting(spilled), SpillObjects)
    effects = hand.tell(ViewsClosed([second]))
    assert only(effects, SpillObjects).places == [place_of(second, 0, NBYTES, NBYTES + 64)]
    hand.tell(SpillFailed(2, "The disk is full."), ObjectsSpilled(3, 4), ReadCompleted(1))
    hand.tell(ViewsClosed([third]), ViewsClosed([spilled]))
    hand.release(spilled, second, third)


def test_tasks_that_wait_with_arguments_give_way_before_anybody_is_denied(make_core: MakeCore) -> None:
    # Each of two tasks has one of its two arguments here, and there is no room for a third.
    hand = make_core(1, **TWO)
    for grant in range(2):
        hand.lend(lease_id=1 + grant)
    arguments = [Argument(foreign(2, n), None, 2, NBYTES) for n in range(21, 25)]
    hand.core.scheduler.grants[0, 1].depth = 4
    hand.accept(1, arguments=(arguments[0], arguments[1]))
    hand.accept(2, arguments=(arguments[2], arguments[3]))
    hand.tell(ReadCompleted(1), ReadCompleted(2))
    run = of(hand.tell(), RunTask)
    assert not run or run[0].task_id == foreign(0, 1)
    effects = hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    assert [read.object_id for read in of(effects, StartRead)] == [foreign(2, 23), foreign(2, 24)]
    hand.tell(ReadCompleted(3), ReadCompleted(4))
    hand.tell(RunReturned(foreign(0, 2), (SMALL,)))


def test_an_argument_that_never_fits_fails_its_task(make_core: MakeCore) -> None:
    hand, mine = lent_and_full(make_core)
    hand.accept(1, arguments=(Argument(THEIRS, None, 2, NBYTES),))
    patience_s = hand.core.context.config.store_full_after_s
    effects = hand.wait(patience_s) + hand.wait(patience_s)
    assert not of(effects, TasksHandedBack), "It is the first in line."
    assert only(effects, TaskRaised).failure.kind == FULL
    hand.tell(ViewsClosed([mine]))
    hand.release(mine)


def test_what_is_used_and_left_again_is_no_progress_while_the_disk_is_full(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    first, second = put_two(hand)
    hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    hand.tell(SpillFailed(1, "The disk is full."))
    for _ in range(2):
        assert not of(hand.wait(1.2), DenyRoom)
        hand.start_waiting(first)  # Every time it could be moved again, if it could be moved at all.
    assert "The disk is full." in only(hand.wait(1.2), DenyRoom).failure.text
    hand.release(first, second)


def test_a_task_that_comes_back_in_the_moment_in_which_it_is_denied_does_not_start_without_its_argument(
    make_core: MakeCore,
) -> None:
    # x = put(...); y = get(put(...)); get([f.remote(x, theirs), f.remote(others)])    # nothing finds room beside x, y
    hand = make_core(0, **TWO)
    hand.keeps_values = True
    hand.define(HERE)
    mine, kept = put_two(hand)
    hand.start_waiting(kept)
    others = foreign(2, 31)
    for object_id in (THEIRS, others):
        hand.tell(RefsAdded([object_id]))
        hand.start_waiting(object_id, waiter=object_id, n_wanted=1)
        hand.tell(WaitAbandoned(object_id))
        hand.get(2, ObjectLocated(object_id, 2, NBYTES))
    hand.submit(21, HERE, (mine, THEIRS))
    hand.submit(22, HERE, (others,))
    hand.start_waiting(hand.own(21), waiter=2)
    hand.start_waiting(hand.own(22), waiter=3)
    assert {run.state for run in hand.core.runs.runs.values()} == {"fetching"}
    effects = hand.wait(hand.core.context.config.store_full_after_s)
    (failure,) = only(effects, WakeWaiter).values
    assert isinstance(failure, Failure)
    assert failure.kind == FULL
    assert not of(effects, RunTask)
    assert only(effects, SpillObjects).places[0].object_id == mine, "Now the next one in line finds room."
    assert only(hand.tell(ObjectsSpilled(1, 3)), StartRead).object_id == others
    assert only(hand.tell(ReadCompleted(2)), RunTask).task_id == hand.own(22)
    hand.tell(RunReturned(hand.own(22), (SMALL,)), ViewsClosed([kept, others]))
    hand.release(mine, kept, THEIRS, others, hand.own(21), hand.own(22))
    hand.give_leases_back()


def test_who_looks_away_whenever_he_would_be_denied_is_denied_after_a_longer_time(make_core: MakeCore) -> None:
    # z, *rest = [put(...) for _ in range(3)]; x, y = get(rest); r = f.remote(z)    # here, which is lent while it waits
    # while not wait([r], timeout=3)[0]: pass
    hand = make_core(0, **TWO)
    hand.keeps_values = True
    hand.define(HERE)
    put_two(hand)
    spilled = spill(hand)
    hand.tell(ObjectPut(hand.own(14), LARGE))
    kept = hand.own(12), hand.own(14)
    hand.start_waiting(*kept)
    hand.submit(21, HERE, (spilled,))
    n_polls = 0
    while hand.owned(21).failure is None and n_polls < 2 * N_PATIENCES:
        n_polls += 1
        hand.start_waiting(hand.own(21), waiter=2 + n_polls)
        hand.now += hand.core.context.config.store_full_after_s
        hand.tell(WaitAbandoned(2 + n_polls))
    failure = hand.owned(21).failure
    assert failure is not None
    assert failure.kind == FULL
    assert n_polls > N_PATIENCES
    hand.tell(ViewsClosed(list(kept)))
    hand.release(*kept, spilled, hand.own(21))
    hand.give_leases_back()


def test_who_asks_from_elsewhere_and_looks_away_is_denied_after_a_longer_time(make_core: MakeCore) -> None:
    # The same on another rank of the host, which asks for what is in a file of this one each time it is lent.
    hand = make_core(**TWO, neighbours=(0, 1))
    hand.keeps_values = True
    put_two(hand)
    spilled = spill(hand)
    hand.tell(ObjectPut(hand.own(14), LARGE))
    kept = hand.own(12), hand.own(14)
    hand.start_waiting(*kept)
    wait_s = hand.core.context.config.store_full_after_s
    for _ in range(N_PATIENCES):
        assert not of(hand.get(1, LoanRequested(spilled)), ReadRefused)
        assert only(hand.wait(wait_s), ReadRefused).failure is not None
    (refusal,) = of(hand.get(1, LoanRequested(spilled)), ReadRefused)
    assert refusal.failure is not None
    assert refusal.failure.kind == FULL
    hand.tell(ViewsClosed(list(kept)))
    hand.release(*kept)
    read = only(hand.get(1, LoanRequested(spilled)), RestoreObject)
    assert of(hand.tell(ReadCompleted(read.transfer_id)), BytesLent)
    assert not hand.core.copies.asked_at, "It has served somebody."
    hand.release(spilled)
    hand.get(1, LoanReturned(spilled, 1))


def test_a_disk_that_does_not_take_all_is_given_less(make_core: MakeCore) -> None:
    hand = make_core(nbytes_store=4 * (NBYTES + 64), nbytes_spill_file=4 * NBYTES)
    objects = [hand.own(n) for n in range(11, 15)]
    for object_id in objects:
        hand.tell(ObjectPut(object_id, LARGE))
    effects = hand.tell(RoomWanted(7, hand.own(20), NBYTES))
    assert [place.object_id for place in only(effects, SpillObjects).places] == objects[:3]
    effects = hand.tell(SpillFailed(1, "The disk is full."))
    assert [place.object_id for place in only(effects, SpillObjects).places] == objects[3:], "Used longest ago now."
    assert only(hand.tell(ObjectsSpilled(2, 3)), GiveRoom).waiter_id == 7
    effects = hand.tell(RoomWanted(8, hand.own(21), NBYTES))
    assert len(only(effects, SpillObjects).places) == 3, "There may be more room by now."
    hand.tell(SpillFailed(3, "The disk is full."))
    assert not of(hand.tell(SpillFailed(4, "The disk is full.")), SpillObjects), "Not even one."
    hand.tell(RoomReturned(hand.own(20)), RoomReturned(hand.own(21)))
    hand.release(*objects)


def test_what_is_in_use_is_not_looked_at_again_and_again(make_core: MakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = make_core(nbytes_store=100 * (NBYTES + 64), nbytes_spill_file=1)
    hand.keeps_values = True
    objects = [hand.own(n) for n in range(11, 111)]
    for object_id in objects:
        hand.tell(ObjectPut(object_id, LARGE))
    hand.start_waiting(*objects)
    hand.tell(WaitStarted(2, objects[:50], 50, True, False, 0))
    hand.tell(RoomWanted(7, hand.own(200), NBYTES))
    looks: list[Copy] = []
    is_movable = Copy.is_movable

    def look(copy: Copy) -> bool:
        looks.append(copy)
        return bool(is_movable.__get__(copy))

    monkeypatch.setattr(Copy, "is_movable", property(look))
    monkeypatch.setattr(Copies, "check", lambda self: None)
    for object_id in objects[:50]:
        assert not of(hand.tell(ViewsClosed([object_id])), SpillObjects), "There is another value over it."
    assert len(looks) <= 100
    assert only(hand.tell(ViewsClosed(objects[:1])), SpillObjects).places[0].object_id == objects[0]
    monkeypatch.undo()
    hand.tell(ObjectsSpilled(1, 3), RoomReturned(hand.own(200)), ViewsClosed(objects[1:]))
    hand.release(*objects)


def test_who_returns_a_loan_and_asks_anew_does_not_get_it_before_who_waited(make_core: MakeCore) -> None:
    # A task on rank 1 has not started; it waits for more than this object. The memory is wanted for another one.
    hand = make_core(nbytes_spill_file=1, nbytes_store=NBYTES + 64, neighbours=(0, 1, 2))
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.get(1, LoanRequested(mine))
    assert sent(hand.tell(RoomWanted(7, hand.own(13), NBYTES))) == [(1, LoanRecalled(mine))]
    assert sent(hand.get(2, LoanRequested(mine))) == [], "Nor does anybody else meanwhile."
    effects = hand.get(1, LoanReturned(mine, 1), LoanRequested(mine))
    assert sent(effects) == []
    assert only(effects, SpillObjects).places == [place_of(mine, 0, NBYTES)]
    effects = hand.tell(ObjectsSpilled(1, 3))
    assert only(effects, GiveRoom).waiter_id == 7
    assert not of(effects, RestoreObject)
    assert only(hand.tell(RoomReturned(hand.own(13))), RestoreObject)
    effects = hand.tell(ReadCompleted(1))
    assert sent(effects) == [(2, BytesLent(mine, 0, NBYTES)), (1, BytesLent(mine, 0, NBYTES))]
    hand.get(1, LoanReturned(mine, 1))
    hand.get(2, LoanReturned(mine, 1))
    hand.release(mine)


def test_who_was_held_up_is_served_when_nobody_waits_for_the_memory_any_more(make_core: MakeCore) -> None:
    hand = make_core(nbytes_spill_file=1, nbytes_store=NBYTES + 64, neighbours=(0, 1, 2))
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.get(1, LoanRequested(mine))
    for end in ("left", "denied"):
        hand.tell(RoomWanted(7, hand.own(13), NBYTES))
        assert sent(hand.get(2, LoanRequested(mine))) == []
        patience_s = hand.core.context.config.store_full_after_s
        effects = hand.tell(RoomReturned(hand.own(13))) if end == "left" else hand.wait(patience_s)
        assert sent(effects) == [(2, BytesLent(mine, 0, NBYTES))]
        hand.get(2, LoanReturned(mine, 1))
    hand.get(1, LoanReturned(mine, 1))
    hand.release(mine)


def test_a_task_that_has_given_way_for_long_keeps_what_it_has(make_core: MakeCore) -> None:
    # Of its two arguments, which one rank holds, that rank has room for one at a time: it would swap them for ever.
    hand = make_core(1, neighbours=(0, 1, 2))
    hand.lend()
    hand.core.scheduler.grants[0, 1].depth = 4
    first, second = foreign(0, 50), foreign(0, 51)
    hand.accept(1, arguments=(Argument(first, None, 0, 100, (), 640), Argument(second, None, 0, 100)))
    patience_s = hand.core.context.config.store_full_after_s
    for here, coming in ((first, second), (second, first)):
        asked_for = [(0, LoanReturned(here, 1)), (0, LoanRequested(here))]
        assert sent(hand.get(0, LoanRecalled(here))) == asked_for
        hand.wait(patience_s)
        assert not of(hand.get(0, BytesLent(coming, 640, 100)), RunTask)
    assert sent(hand.get(0, LoanRecalled(first))) == []
    effects = hand.get(0, BytesLent(second, 1280, 100))
    assert only(effects, RunTask).task_id == foreign(0, 1)
    effects = hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    assert (0, LoanReturned(first, 1)) in sent(effects)
    assert (0, LoanReturned(second, 1)) in sent(effects) + sent(hand.get(0, LoanRecalled(second)))


def test_what_its_owner_gives_up_while_it_is_read_back_for_a_wait_here_stays_until_that_is_over(
    make_core: MakeCore,
) -> None:
    hand = make_core(1, **TWO)
    hand.lend()
    hand.accept()
    theirs = foreign(0, 1)
    hand.tell(RunReturned(theirs, (LARGE,)))
    hand.tell(RefsAdded([theirs]))
    hand.tell(ObjectPut(hand.own(11), LARGE))
    spilled = only(hand.tell(RoomWanted(7, hand.own(12), NBYTES)), SpillObjects)
    assert spilled.places[0].object_id == theirs
    hand.tell(ObjectsSpilled(spilled.spill_id, 3))
    hand.tell(RoomReturned(hand.own(12)))
    hand.start_waiting(theirs)
    transfer = only(hand.get(0, ObjectLocated(theirs, 1, NBYTES)), RestoreObject).transfer_id
    assert hand.get(0, ObjectFreed(theirs)) == []  # The owner was told that nobody can have the bytes.
    effects = hand.tell(ReadCompleted(transfer))
    assert only(effects, WakeWaiter).values == [place_of(theirs, 1, NBYTES)]
    assert of(hand.release(theirs), DropSpilled)
    hand.release(hand.own(11))
    hand.give_leases_back()
