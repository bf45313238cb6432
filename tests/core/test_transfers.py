"""Reads from other hosts, on both ends, and what becomes of bytes that came for a run or a thread."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import FreeSegment, RunTask, SendObject, StartRead, WakeWaiter
from hpcfut.core.events import (
    Event,
    ObjectPut,
    ReadCompleted,
    ReadFailed,
    RefsAdded,
    RunReturned,
    SendCompleted,
    WaitAbandoned,
)
from hpcfut.model.failure import FULL, INTERNAL, LOST, Failure
from hpcfut.wire.messages import (
    Argument,
    CopyGone,
    ObjectFailed,
    ObjectFreed,
    ObjectLocated,
    ReadRefused,
    ReadRequested,
    RedirectionEnded,
    TaskDone,
    TaskRaised,
    TaskReturned,
)
from tests.core.cores import LARGE, SMALL, Hand, MakeCore, foreign, lost, of, only, place_of, sent, takes
from tests.core.test_references import THEIRS, borrow

BROKEN_LINK = Failure(INTERNAL, "The link broke.")


def read(hand: Hand, n: int = 1) -> None:
    """User code here holds a ref to an object of rank 2, waits for it, and the read starts."""
    borrow(hand, n=n)
    hand.start_waiting(THEIRS)
    assert hand.get(2, ObjectLocated(THEIRS, 2, 100)) == [StartRead(1, THEIRS, 2, 0, 100)]


def give_up(hand: Hand) -> None:
    """The wait is abandoned and the ref dropped, while the read is under way."""
    hand.tell(WaitAbandoned(1))
    assert not of(hand.release(THEIRS), FreeSegment), "The buffer belongs to the edge until the last byte."


@takes("copies", ("absent", "read"), ("queued", "room"), ("reading", "completed"))
def test_an_object_is_read_once_for_all_who_wait(make_core: MakeCore) -> None:
    hand = make_core()
    read(hand)
    assert hand.start_waiting(THEIRS, waiter=2) == []
    assert [woken.waiter_id for woken in of(hand.tell(ReadCompleted(1)), WakeWaiter)] == [1, 2]
    assert only(hand.start_waiting(THEIRS, waiter=3), WakeWaiter).values == [place_of(THEIRS, 0, 100)]
    assert not of(hand.release(THEIRS), FreeSegment), "Others may ask for it."
    assert hand.free_kept() == [FreeSegment(THEIRS, 0)]


@takes("copies", ("missing", "free"))
def test_what_can_never_fit_ends_the_wait_with_the_reason(make_core: MakeCore) -> None:
    hand = make_core(nbytes_store=128)
    borrow(hand)
    hand.start_waiting(THEIRS)
    effects = hand.get(2, ObjectLocated(THEIRS, 2, 100))
    (failure,) = only(effects, WakeWaiter).values
    assert isinstance(failure, Failure)
    assert failure.kind == FULL
    assert "no room for object 2.7 of 100 bytes on rank 0" in failure.text
    effects += hand.release(THEIRS)
    assert not of(effects, FreeSegment) + of(effects, StartRead), "Nobody was asked for anything."


@takes("copies", ("reading", "failed"))
def test_a_broken_read_gives_its_buffer_back(make_core: MakeCore) -> None:
    hand = make_core()
    read(hand)
    effects = hand.tell(ReadFailed(1, BROKEN_LINK))
    assert only(effects, WakeWaiter).values == [BROKEN_LINK]
    assert of(effects, FreeSegment) == [FreeSegment(THEIRS, 0)]
    assert not of(hand.release(THEIRS), FreeSegment)


def test_a_holder_that_has_nothing_is_named(make_core: MakeCore) -> None:
    hand = make_core()
    read(hand)
    failure = lost(hand.get(2, ReadRefused(THEIRS, 1)))
    assert only(hand.get(2, ObjectFailed(THEIRS, failure)), WakeWaiter).values == [failure]
    assert failure.kind == LOST
    assert "Rank 2 was said to hold object 2.7" in failure.text
    hand.release(THEIRS)


@pytest.mark.parametrize("event", [ReadCompleted(1), ReadFailed(1, BROKEN_LINK)])
@takes("copies", ("reading", "free"))
def test_a_read_that_nobody_wants_is_freed_when_it_ends(make_core: MakeCore, event: Event) -> None:
    hand = make_core()
    read(hand)
    give_up(hand)
    assert not hand.free_kept()
    assert hand.tell(event) == [FreeSegment(THEIRS, 0)]


@takes("copies", ("abandoned", "completed"), ("abandoned", "failed"))
def test_an_abandoned_read_ends_in_every_way(make_core: MakeCore) -> None:
    for event in (ReadCompleted(1), ReadFailed(1, BROKEN_LINK)):
        hand = make_core()
        read(hand)
        give_up(hand)
        hand.free_kept()
        hand.tell(event)
        assert not hand.core.copies.copies


@takes("copies", ("abandoned", "keep"))
def test_a_read_that_nobody_wants_here_is_kept_for_others(make_core: MakeCore) -> None:
    hand = make_core()
    read(hand)
    give_up(hand)
    assert not hand.tell(ReadCompleted(1))
    borrow(hand, n=2)
    hand.start_waiting(THEIRS, waiter=2)
    assert only(hand.get(2, ObjectLocated(THEIRS, 2, 100)), WakeWaiter).values == [place_of(THEIRS, 0, 100)]
    assert not of(hand.release(THEIRS), FreeSegment)
    assert hand.get(2, RedirectionEnded(THEIRS)) == [FreeSegment(THEIRS, 0)]
    hand.get(2, RedirectionEnded(THEIRS))
    assert hand.stale("end of redirection to a copy that has gone") == 1


def test_a_read_that_breaks_off_and_that_nobody_wants_is_kept_for_nobody(make_core: MakeCore) -> None:
    hand = make_core()
    read(hand)
    give_up(hand)
    effects = hand.tell(ReadFailed(1, BROKEN_LINK))
    assert (sent(effects), of(effects, FreeSegment)) == ([(2, CopyGone(THEIRS, 0))], [FreeSegment(THEIRS, 0)])


@takes("copies", ("abandoned", "read"))
def test_an_abandoned_read_serves_whoever_wants_it_next(make_core: MakeCore) -> None:
    hand = make_core()
    read(hand)
    give_up(hand)
    borrow(hand, n=2)
    hand.start_waiting(THEIRS, waiter=2)
    assert hand.get(2, ObjectLocated(THEIRS, 2, 100)) == [], "It is on its way already."
    assert only(hand.tell(ReadCompleted(1)), WakeWaiter).waiter_id == 2
    hand.release(THEIRS)


# --- as the holder ---


def test_a_reader_is_sent_what_is_here(make_core: MakeCore) -> None:
    hand = make_core()
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    assert hand.get(2, ReadRequested(mine, 5)) == [SendObject(5, mine, 2, 0, LARGE.nbytes)]
    assert hand.tell(SendCompleted(mine)) == []
    effects = hand.release(mine)
    assert sent(effects) == [(2, RedirectionEnded(mine))]
    assert of(effects, FreeSegment) == [FreeSegment(mine, 0)]


@takes("copies", ("local", "free while used"), ("doomed", "let go"))
def test_what_is_being_sent_is_freed_afterwards(make_core: MakeCore) -> None:
    hand = make_core(hosts="abc")
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.get(1, ReadRequested(mine, 5))
    hand.get(2, ReadRequested(mine, 6))
    # Nobody is sent to them any more, who may drop what they read.
    assert sent(hand.release(mine)) == [(1, RedirectionEnded(mine)), (2, RedirectionEnded(mine))]
    assert hand.tell(SendCompleted(mine)) == []
    assert of(hand.tell(SendCompleted(mine)), FreeSegment) == [FreeSegment(mine, 0)]


def test_a_reader_of_something_that_is_not_here_is_told_so(make_core: MakeCore) -> None:
    hand = make_core()
    assert sent(hand.get(2, ReadRequested(hand.own(9), 5))) == [(2, ReadRefused(hand.own(9), 5))]
    assert hand.stale("read of an object that is not here") == 1


def test_what_is_freed_while_being_sent_is_not_sent_again(make_core: MakeCore) -> None:
    hand = make_core()
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    hand.get(1, ReadRequested(mine, 5))
    hand.release(mine)
    assert sent(hand.get(2, ReadRequested(mine, 6))) == [(2, ReadRefused(mine, 6))]
    hand.tell(SendCompleted(mine))


def test_a_result_for_another_owner_stays_until_that_owner_frees_it(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    task = foreign(0, 1)
    assert only(hand.tell(RunReturned(task, (LARGE,))), TaskReturned).results == (LARGE,)
    assert hand.get(0, ObjectFreed(task)) == [FreeSegment(task, 0)]


# --- arguments of runs ---


def test_an_argument_is_read_before_the_run_starts_and_kept_after_it(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    effects = hand.accept(1, arguments=(Argument(THEIRS, None, 2, 100), Argument(THEIRS, None, 2, 100)))
    assert effects == [StartRead(1, THEIRS, 2, 0, 100)], "It is read once, though it stands at two places of the call."
    run = only(hand.tell(ReadCompleted(1)), RunTask)
    assert (run.task_id, run.places) == (foreign(0, 1), (place_of(THEIRS, 1, 100),) * 2)
    effects = hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    assert only(effects, TaskDone)
    assert not of(effects, FreeSegment)
    assert only(hand.accept(2, arguments=(Argument(THEIRS, None, 2, 100),)), RunTask), "It is read once for all tasks."
    assert not of(hand.tell(RunReturned(foreign(0, 2), (SMALL,))), FreeSegment)


def test_an_argument_that_is_here_already_is_not_read(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    hand.tell(RunReturned(foreign(0, 1), (LARGE,)))
    effects = hand.accept(2, arguments=(Argument(foreign(0, 1), None, 1, LARGE.nbytes),))
    assert only(effects, RunTask)
    assert hand.get(0, ObjectFreed(foreign(0, 1))) == [], "The run still has it."
    assert of(hand.tell(RunReturned(foreign(0, 2), (SMALL,))), FreeSegment) == [FreeSegment(foreign(0, 1), 0)]


def test_a_run_fails_with_an_argument_that_cannot_be_read(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1, arguments=(Argument(THEIRS, None, 2, 100),))
    effects = hand.tell(ReadFailed(1, BROKEN_LINK))
    assert not of(effects, RunTask)
    assert only(effects, TaskRaised) == TaskRaised(foreign(0, 1), BROKEN_LINK, False)


def test_a_thread_keeps_what_came_for_a_run(make_core: MakeCore) -> None:
    # A task has it as argument, and user code of the same rank, which got the ref otherwise, gets it meanwhile.
    hand = make_core(1)
    hand.lend()
    hand.accept(1, arguments=(Argument(THEIRS, None, 2, 100),))
    hand.tell(ReadCompleted(1), RefsAdded([THEIRS]))
    hand.start_waiting(THEIRS, parent=foreign(0, 1))
    woken = only(hand.get(2, ObjectLocated(THEIRS, 2, 100)), WakeWaiter)
    assert woken.values == [place_of(THEIRS, 1, 100)]
    assert not of(hand.tell(RunReturned(foreign(0, 1), (SMALL,))) + hand.free_kept(), FreeSegment)
    assert of(hand.release(THEIRS), FreeSegment) == [FreeSegment(THEIRS, 0)]


def test_the_holder_may_read_its_own_result_for_its_own_user(make_core: MakeCore) -> None:
    # A borrower on the rank that stores the object: the value is here, and stays when the borrower lets go.
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    task = foreign(0, 1)
    hand.tell(RunReturned(task, (LARGE,)))
    hand.tell(RefsAdded([task]))
    hand.start_waiting(task)
    woken = only(hand.get(0, ObjectLocated(task, 1, LARGE.nbytes)), WakeWaiter)
    assert woken.values == [place_of(task, 1, LARGE.nbytes)]
    assert not of(hand.release(task), FreeSegment)
    assert hand.get(0, ObjectFreed(task)) == [FreeSegment(task, 0)]
