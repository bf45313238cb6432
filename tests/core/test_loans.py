"""Loans: ranks of one host read each other's objects in place."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import (
    CloseArgument,
    FreeSegment,
    GiveRoom,
    RestoreObject,
    RunTask,
    SpillObjects,
    WakeWaiter,
)
from hpcfut.core.events import (
    ObjectPut,
    ObjectsSpilled,
    ReadCompleted,
    RoomReturned,
    RoomWanted,
    RunReturned,
    ViewsClosed,
    WaitAbandoned,
)
from hpcfut.model.errors import FrameRefusedError
from hpcfut.model.failure import LOST
from hpcfut.wire.messages import (
    Argument,
    BytesLent,
    LoanRecalled,
    LoanRequested,
    LoanReturned,
    ObjectAsked,
    ObjectFailed,
    ObjectFreed,
    ObjectLocated,
    ReadRefused,
    Result,
    TaskPushed,
    TaskReturned,
    TasksHandedBack,
)
from tests.core.cores import LARGE, SMALL, Hand, MakeCore, foreign, lost, of, only, place_of, sent, takes
from tests.core.test_references import THEIRS, borrow

ALL = (0, 1, 2)


def ask(hand: Hand) -> None:
    """User code waits for an object of rank 2, which rank 1 of this host holds."""
    borrow(hand)
    hand.start_waiting(THEIRS)
    assert sent(hand.get(2, ObjectLocated(THEIRS, 1, 100))) == [(1, LoanRequested(THEIRS))]


# --- as a reader ---


@takes("copies", ("absent", "lent"), ("lent", "free"))
def test_the_owner_reads_a_result_without_a_message(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    task = hand.push_to_1()
    hand.get(1, TaskReturned(task, (Result(None, 100, (), 640),)))
    woken = only(hand.start_waiting(task), WakeWaiter)
    assert woken.values == [place_of(task, 1, 100, 640)]
    assert sent(hand.release(task)) == [(1, ObjectFreed(task)), (1, LoanReturned(task, 1))]


def test_what_is_at_hand_is_read_without_a_turn(make_core: MakeCore) -> None:
    hand = make_core(neighbours=(0, 1))
    task, at_hand = hand.push_to_1(), hand.core.waits.open_at_hand
    assert at_hand(task) is None, "It does not exist."
    hand.get(1, TaskReturned(task, (Result(None, 100, (), 640),)))
    assert at_hand(task) == place_of(task, 1, 100, 640)
    hand.core.check()
    assert not hand.get(1, LoanRecalled(task)), "A value is built over it."
    assert sent(hand.tell(ViewsClosed([task]))) == [(1, LoanReturned(task, 1))]
    assert at_hand(task) is None, "Its loan was returned."
    assert sent(hand.release(task)) == [(1, ObjectFreed(task))]
    small, mine = hand.push_to_1(2), hand.own(9)
    hand.get(1, TaskReturned(small, (SMALL,)))
    far = hand.push_to_1(3)
    hand.get(1, TaskReturned(far, (Result(None, 100),)))
    hand.tell(ObjectPut(mine, LARGE))
    assert (at_hand(small), at_hand(far)) == (None, None)
    assert at_hand(mine) == place_of(mine, 0, LARGE.nbytes)
    assert not of(hand.release(small, far, mine), FreeSegment)
    assert at_hand(mine) is None, "Nobody holds it."
    assert hand.tell(ViewsClosed([mine])) == [FreeSegment(mine, 0)]


def test_a_loan_is_kept_for_as_long_as_a_value_is(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    hand.keeps_values = True
    task = hand.push_to_1()
    hand.get(1, TaskReturned(task, (Result(None, 100, (), 640),)))
    hand.start_waiting(task)
    assert sent(hand.release(task)) == [(1, ObjectFreed(task))]
    assert sent(hand.tell(ViewsClosed([task]))) == [(1, LoanReturned(task, 1))]


def test_a_result_that_nobody_wants_is_returned_at_once(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    task = hand.push_to_1()
    hand.release(task)
    effects = hand.get(1, TaskReturned(task, (Result(None, 100, (), 640),)))
    assert sent(effects) == [(1, ObjectFreed(task)), (1, LoanReturned(task, 1))]


@takes("copies", ("absent", "ask"), ("asked", "lent"))
def test_a_borrower_asks_the_holder(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    ask(hand)
    woken = only(hand.get(1, BytesLent(THEIRS, 640, 100)), WakeWaiter)
    assert woken.values == [place_of(THEIRS, 1, 100, 640)]
    assert (1, LoanReturned(THEIRS, 1)) in sent(hand.release(THEIRS))


@takes("copies", ("asked", "failed"))
def test_a_holder_that_has_nothing_is_named(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    ask(hand)
    failure = lost(hand.get(1, ReadRefused(THEIRS, 0)))
    assert only(hand.get(2, ObjectFailed(THEIRS, failure)), WakeWaiter).values == [failure]
    assert failure.kind == LOST
    assert "Rank 1 was said to hold object 2.7" in failure.text
    hand.release(THEIRS)


@takes("copies", ("asked", "free"))
def test_a_loan_that_comes_too_late_is_returned(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    ask(hand)
    hand.tell(WaitAbandoned(1))
    hand.release(THEIRS)
    assert sent(hand.get(1, BytesLent(THEIRS, 640, 100))) == [(1, LoanReturned(THEIRS, 1))]
    assert hand.stale("loan that came too late") == 1
    hand.get(1, ReadRefused(THEIRS, 0))
    assert hand.stale("refusal of a loan that nobody wants") == 1


def test_loans_of_one_object_are_counted_and_returned_together(make_core: MakeCore) -> None:
    # Rank 0 owns the object and lends it with two tasks.
    hand = make_core(1, neighbours=ALL)
    hand.lend()
    lent = Argument(foreign(0, 50), None, 0, 100, (), 640)
    assert only(hand.accept(1, arguments=(lent, lent)), RunTask).places == (place_of(foreign(0, 50), 0, 100, 640),) * 2
    assert (0, LoanReturned(foreign(0, 50), 2)) in sent(hand.tell(RunReturned(foreign(0, 1), (SMALL,))))


def test_tasks_with_the_same_argument_share_a_view_of_it(make_core: MakeCore) -> None:
    hand = make_core(1, cpus=1, neighbours=ALL)
    hand.keeps_values = True
    hand.lend()
    hand.core.scheduler.grants[0, 1].depth = 4
    object_id, place = foreign(0, 50), place_of(foreign(0, 50), 0, 100, 640)
    lent = Argument(object_id, None, 0, 100, (), 640)
    assert only(hand.accept(1, arguments=(lent,)), RunTask).places == (place,)
    hand.accept(2, arguments=(lent,))
    assert hand.core.copies.copies[object_id].n_pins == 2
    effects = hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    assert only(effects, RunTask).places == (place,)
    assert hand.core.copies.copies[object_id].n_views == 1
    assert not of(effects, CloseArgument), "A task has it as argument."
    effects = hand.tell(RunReturned(foreign(0, 2), (SMALL,)))
    assert of(effects, CloseArgument) == [CloseArgument(object_id)]
    assert not of(effects, LoanReturned), "Something may still be built over it."
    assert only(hand.accept(3, arguments=(lent,)), RunTask)
    assert hand.core.copies.copies[object_id].n_views == 2, "The view that was shared may be gone."
    assert of(hand.tell(RunReturned(foreign(0, 3), (SMALL,))), CloseArgument)
    assert not sent(hand.tell(ViewsClosed([object_id])))
    assert sent(hand.tell(ViewsClosed([object_id]))) == [(0, LoanReturned(object_id, 3))]


def test_a_view_that_is_shared_is_given_up_when_the_loan_is_recalled(make_core: MakeCore) -> None:
    # A second task has not started; it would else find the view open, and the loan would never be returned.
    hand = make_core(1, cpus=1, neighbours=ALL)
    hand.lend()
    hand.core.scheduler.grants[0, 1].depth = 4
    object_id = foreign(0, 50)
    lent = Argument(object_id, None, 0, 100, (), 640)
    hand.accept(1, arguments=(lent,))
    hand.accept(2, arguments=(lent,))
    assert hand.get(0, LoanRecalled(object_id)) == [CloseArgument(object_id)]
    effects = hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    started = only(effects, RunTask)
    assert started.task_id == foreign(0, 2), "It starts in the moment in which the first ends, and opens one anew."
    hand.accept(3, arguments=(lent,))
    effects = hand.tell(RunReturned(foreign(0, 2), (SMALL,)))
    assert of(effects, CloseArgument), "It is not kept for the third."
    hand.tell(RunReturned(foreign(0, 3), (SMALL,)))
    assert not hand.core.copies.copies


def test_a_task_that_is_handed_back_returns_what_came_with_it(make_core: MakeCore) -> None:
    hand = make_core(1, neighbours=ALL)
    hand.lend()
    lent = Argument(foreign(0, 50), None, 0, 100, (), 640)
    effects = hand.accept(1, arguments=(lent,), lease_id=2)
    assert sent(effects) == [(0, LoanReturned(foreign(0, 50), 1)), (0, TasksHandedBack(2, (foreign(0, 1),)))]


def test_an_owner_that_holds_the_object_lends_it_with_its_answer(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    borrow(hand)
    hand.start_waiting(THEIRS)
    woken = only(hand.get(2, ObjectLocated(THEIRS, 2, 100, (), 640)), WakeWaiter)
    assert woken.values == [place_of(THEIRS, 2, 100, 640)]
    assert (2, LoanReturned(THEIRS, 1)) in sent(hand.release(THEIRS))


def test_an_answer_that_comes_too_late_brings_a_loan_all_the_same(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    borrow(hand)
    hand.start_waiting(THEIRS)
    hand.tell(WaitAbandoned(1))
    hand.release(THEIRS)
    assert sent(hand.get(2, ObjectLocated(THEIRS, 2, 100, (), 640))) == [(2, LoanReturned(THEIRS, 1))]


def test_a_loan_from_another_place_is_not_mixed_with_the_first(make_core: MakeCore) -> None:
    hand = make_core(1, neighbours=ALL)
    hand.lend()
    hand.accept(1, arguments=(Argument(THEIRS, None, 2, 100, (), 640),))
    assert sent(hand.get(0, BytesLent(THEIRS, 64, 100))) == [(0, LoanReturned(THEIRS, 1))]
    assert (2, LoanReturned(THEIRS, 1)) in sent(hand.tell(RunReturned(foreign(0, 1), (SMALL,))))


def test_nobody_lends_across_hosts(make_core: MakeCore) -> None:
    hand = make_core(neighbours=(0, 1))
    borrow(hand)
    hand.start_waiting(THEIRS)
    with pytest.raises(FrameRefusedError, match="on another host"):
        hand.get(2, ObjectLocated(THEIRS, 2, 100, (), 640))
    hand.may_keep = True


# --- as a holder ---


def test_what_is_lent_is_freed_when_all_loans_are_returned(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    for rank in (1, 2, 2):
        assert sent(hand.get(rank, LoanRequested(mine))) == [(rank, BytesLent(mine, 0, LARGE.nbytes))]
    assert hand.release(mine) == []
    assert hand.get(1, LoanReturned(mine, 1)) == []
    assert hand.get(2, LoanReturned(mine, 1)) == []
    assert hand.get(2, LoanReturned(mine, 1)) == [FreeSegment(mine, 0)]


def test_a_reader_of_something_that_is_not_here_is_told_so(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    assert sent(hand.get(2, LoanRequested(hand.own(9)))) == [(2, ReadRefused(hand.own(9), 0))]
    assert hand.stale("read of an object that is not here") == 1


def test_a_question_of_this_host_is_answered_with_a_loan(make_core: MakeCore) -> None:
    hand = make_core(neighbours=(0, 1))
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    assert sent(hand.get(1, ObjectAsked(mine))) == [(1, ObjectLocated(mine, 0, LARGE.nbytes, (), 0))]
    assert sent(hand.get(2, ObjectAsked(mine))) == [(2, ObjectLocated(mine, 0, LARGE.nbytes))]
    hand.get(1, LoanReturned(mine, 1))
    assert hand.release(mine) == [FreeSegment(mine, 0)]


def test_a_task_is_lent_its_arguments(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.submit(1, arguments=(mine,))
    pushed = only(hand.grant(), TaskPushed)
    assert pushed.arguments == (Argument(mine, None, 0, LARGE.nbytes, (), 0),)
    hand.get(1, LoanReturned(mine, 1), TaskReturned(hand.own(1), (SMALL,)))
    assert hand.release(mine, hand.own(1)) == [FreeSegment(mine, 0)]


def test_tasks_are_told_where_their_argument_lies_now(make_core: MakeCore) -> None:
    room = LARGE.nbytes + 64
    hand = make_core(neighbours=ALL, nbytes_store=2 * room, nbytes_spill_file=1)
    mine, other = hand.own(50), hand.own(51)
    hand.tell(ObjectPut(mine, LARGE))
    hand.tell(ObjectPut(other, LARGE))

    def told() -> Argument:
        task = len(hand.core.ownership.objects)
        pushed = of(hand.submit(task, arguments=(mine,)), TaskPushed) or of(hand.grant(), TaskPushed)
        hand.get(1, TaskReturned(hand.own(task), (SMALL,)))
        (argument,) = pushed[0].arguments
        return argument

    first = told()
    assert first == Argument(mine, None, 0, LARGE.nbytes, (), 0)
    assert told() is first, "It is lent once more."
    hand.core.copies.touch(hand.core.copies.copies[other])
    assert sent(hand.tell(RoomWanted(7, hand.own(60), LARGE.nbytes))) == [(1, LoanRecalled(mine))]
    assert told() is first
    assert not of(hand.get(1, LoanReturned(mine, 2)), SpillObjects), "A third loan is on its way."
    hand.keeps_values = True
    hand.start_waiting(other, waiter=9)
    assert only(hand.get(1, LoanReturned(mine, 1)), SpillObjects).places[0].object_id == mine
    assert only(hand.tell(ObjectsSpilled(1, 3)), GiveRoom).offset == 0
    assert told() == Argument(mine, None, 0, LARGE.nbytes), "It is in a file."
    hand.tell(ViewsClosed([other]))
    hand.release(other)
    assert only(hand.get(1, LoanRequested(mine)), RestoreObject).offset == room
    assert sent(hand.tell(ReadCompleted(1))) == [(1, BytesLent(mine, room, LARGE.nbytes))]
    assert told() == Argument(mine, None, 0, LARGE.nbytes, (), room)
    hand.get(1, LoanReturned(mine, 2))
    hand.tell(RoomReturned(hand.own(60)))
    hand.release(mine, *(hand.own(n) for n in range(2, 7)))


def test_a_result_is_lent_to_its_owner(make_core: MakeCore) -> None:
    hand = make_core(1, neighbours=ALL)
    hand.lend()
    hand.accept(1)
    task = foreign(0, 1)
    returned = only(hand.tell(RunReturned(task, (Result(None, LARGE.nbytes),))), TaskReturned)
    assert returned.results == (Result(None, LARGE.nbytes, (), 0),)
    assert not of(hand.get(0, ObjectFreed(task)), FreeSegment)
    assert hand.get(0, LoanReturned(task, 1)) == [FreeSegment(task, 0)]


def test_nobody_returns_more_than_was_lent(make_core: MakeCore) -> None:
    hand = make_core(neighbours=ALL)
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.get(1, LoanRequested(mine))
    with pytest.raises(FrameRefusedError, match="returns more than it was lent"):
        hand.get(1, LoanReturned(mine, 2))
    hand.may_keep = True
