"""Tasks as their submitter sees them: rank 0, whose driver submits, and which is lent to nobody."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import WakeWaiter
from hpcfut.core.events import CancelRequested, ObjectPut, StopRequested
from hpcfut.core.ownership import FAILED, INLINE, STORED
from hpcfut.model.errors import FrameRefusedError
from hpcfut.model.failure import CANCELLED, UNSCHEDULABLE, Failure
from hpcfut.wire.messages import (
    Argument,
    BorrowAdded,
    BorrowConfirmed,
    BorrowReleased,
    CancelAsked,
    LeaseGranted,
    LeaseRequested,
    ObjectAsked,
    ObjectFreed,
    TaskCancelled,
    TaskDone,
    TaskPushed,
    TaskRaised,
    TaskReturned,
    TasksHandedBack,
    TemplateRegistered,
)
from tests.core.cores import (
    BROKEN,
    GREEDY,
    LARGE,
    PAIR,
    PLAIN,
    RETRIED,
    SMALL,
    MakeCore,
    foreign,
    of,
    only,
    sent,
    takes,
)

CANCELLATION = Failure(CANCELLED, "It was interrupted.")


@takes("task", ("new", "queue"), ("queued", "push"), ("pushed", "return"))
@takes("ownership", ("pending", "returned inline"), ("inline", "collect"))
def test_a_task_is_pushed_under_a_lease_and_returns(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.own(1)
    assert sent(hand.submit(1)) == [(1, LeaseRequested(1, PLAIN.resources))]
    pushed = TaskPushed(task, 1, PLAIN.template_id, b"call")
    assert sent(hand.grant(1)) == [(1, TemplateRegistered(PLAIN)), (1, pushed)]
    assert hand.get(1, TaskDone(task, b"value")) == []
    assert (hand.owned(1).state, hand.owned(1).payload) == (INLINE, b"value")
    assert hand.release(task) == []


@takes("ownership", ("pending", "returned stored"), ("stored", "collect"))
def test_a_large_result_stays_where_it_was_made(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(1, PAIR)
    hand.get(1, TaskReturned(hand.own(1), (SMALL, LARGE)))
    assert (hand.owned(1).state, hand.owned(2).state) == (INLINE, STORED)
    assert (hand.owned(2).rank, hand.owned(2).nbytes) == (1, LARGE.nbytes)
    assert sent(hand.release(hand.own(1), hand.own(2))) == [(1, ObjectFreed(hand.own(2)))]


@takes("task", ("pushed", "fail"))
@takes("ownership", ("pending", "failed"), ("failed", "collect"))
def test_a_task_that_raises_fails_its_results(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(1, PAIR)
    hand.get(1, TaskRaised(hand.own(1), BROKEN, True))
    assert [hand.owned(n).failure for n in (1, 2)] == [BROKEN, BROKEN]
    hand.release(hand.own(1), hand.own(2))


def test_a_result_that_nobody_wants_is_collected_when_it_comes(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    assert hand.release(task) == []
    assert sent(hand.get(1, TaskReturned(task, (LARGE,)))) == [(1, ObjectFreed(task))]


# --- arguments ---


@takes("task", ("new", "wait"), ("waiting", "queue"))
def test_a_task_waits_for_its_arguments(make_core: MakeCore) -> None:
    hand = make_core()
    first = hand.push_to_1()
    assert hand.submit(2, arguments=(first, first)) == []
    hand.release(first)
    pushed = only(hand.get(1, TaskDone(first, b"value")), TaskPushed)
    assert pushed.arguments == (Argument(first, b"value"), Argument(first, b"value"))
    hand.get(1, TaskDone(hand.own(2), b""))
    assert first not in hand.core.ownership.objects, "The task was the last to hold it."
    hand.release(hand.own(2))


def test_a_stored_argument_is_told_by_its_place(make_core: MakeCore) -> None:
    hand = make_core()
    first = hand.push_to_1()
    hand.get(1, TaskReturned(first, (LARGE,)))
    pushed = only(hand.submit(2, arguments=(first,)), TaskPushed)
    assert pushed.arguments == (Argument(first, None, 1, LARGE.nbytes),)
    hand.get(1, TaskDone(hand.own(2), b""))
    hand.release(first, hand.own(2))


@takes("task", ("waiting", "fail"))
def test_a_task_fails_with_its_argument(make_core: MakeCore) -> None:
    hand = make_core()
    first = hand.push_to_1()
    hand.submit(2, arguments=(first,))
    effects = hand.get(1, TaskRaised(first, BROKEN, False))
    assert not of(effects, TaskPushed)
    assert hand.owned(2).failure == BROKEN
    hand.release(first, hand.own(2))


@takes("task", ("new", "fail"))
def test_a_task_fails_at_once_with_an_argument_that_has_failed(make_core: MakeCore) -> None:
    hand = make_core()
    first = hand.push_to_1()
    hand.get(1, TaskRaised(first, BROKEN, False))
    assert hand.submit(2, arguments=(first,)) == []
    assert hand.owned(2).failure == BROKEN
    hand.release(first, hand.own(2))


def test_a_task_that_no_rank_can_run_fails_with_a_sentence(make_core: MakeCore) -> None:
    hand = make_core()
    assert hand.submit(1, GREEDY) == []
    failure = hand.owned(1).failure
    assert failure is not None
    assert failure.kind == UNSCHEDULABLE
    assert "greedy asks for CPU 99" in failure.text
    hand.release(hand.own(1))


def test_refs_inside_a_call_are_held_until_its_end(make_core: MakeCore) -> None:
    hand = make_core()
    hand.tell(ObjectPut(hand.own(9), SMALL))
    task = hand.push_to_1(nested=(hand.own(9),))
    hand.release(hand.own(9))
    assert hand.owned(9).n_uses == 1
    hand.get(1, TaskDone(task, b""))
    assert hand.own(9) not in hand.core.ownership.objects
    hand.release(task)


# --- what the executor keeps ---


def test_an_executor_that_keeps_a_ref_is_counted_before_the_task_lets_go(make_core: MakeCore) -> None:
    hand = make_core()
    kept = hand.own(9)
    hand.tell(ObjectPut(kept, SMALL))
    task = hand.push_to_1(nested=(kept,))
    hand.release(kept)
    assert hand.get(1, TaskReturned(task, (SMALL,), borrowed=(kept,))) == []
    assert hand.owned(9).borrowers == {(0, 1): 1}
    hand.get(1, BorrowReleased(kept, {0: 1}))
    assert kept not in hand.core.ownership.objects
    hand.release(task)


def test_the_owner_of_a_ref_that_the_executor_keeps_is_told(make_core: MakeCore) -> None:
    hand = make_core()
    kept = foreign(2, 7)
    task = hand.push_to_1(nested=(kept,))
    effects = hand.get(1, TaskReturned(task, (SMALL,), borrowed=(kept,)))
    assert sent(effects) == [(2, BorrowAdded(kept, 1))]
    assert kept in hand.core.borrowing.objects, "Held until the owner has counted the executor."
    hand.get(2, BorrowConfirmed(kept))
    assert kept not in hand.core.borrowing.objects
    hand.release(task)


# --- another attempt ---


@takes("task", ("pushed", "hand back"))
def test_a_task_that_is_handed_back_goes_to_another_rank(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    effects = hand.get(1, LeaseGranted(1, 0), TasksHandedBack(1, (task,)))
    assert sent(effects) == [(2, LeaseRequested(2, PLAIN.resources))], "Rank 1 has no room for long."
    pushed = only(hand.grant(2, lease_id=2), TaskPushed)
    assert (pushed.task_id, pushed.lease_id) == (task, 2)
    hand.get(2, TaskDone(task, b""))
    hand.release(task)


def test_what_is_handed_back_goes_before_what_came_later(make_core: MakeCore) -> None:
    hand = make_core()
    first, second, third = (hand.own(n) for n in (1, 2, 3))
    hand.submit(1)
    hand.submit(2)
    hand.grant(1, depth=2)
    hand.submit(3)
    hand.get(1, LeaseGranted(1, 0), TasksHandedBack(1, (first, second)))
    pushed = of(hand.grant(2, depth=3, lease_id=2), TaskPushed)
    assert [message.task_id for message in pushed] == [first, second, third]
    hand.get(2, *(TaskDone(task, b"") for task in (first, second, third)))
    hand.release(first, second, third)


@takes("task", ("pushed", "retry"))
def test_a_failure_is_tried_again_as_often_as_the_function_says(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1(template=RETRIED)
    again = only(hand.get(1, TaskRaised(task, BROKEN, True)), TaskPushed)
    assert again.task_id == task
    assert not of(hand.get(1, TaskRaised(task, BROKEN, True)), TaskPushed)
    assert hand.owned(1).failure == BROKEN
    hand.release(task)


def test_a_failure_that_the_function_does_not_name_is_not_tried_again(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1(template=RETRIED)
    assert hand.get(1, TaskRaised(task, BROKEN, False)) == []
    assert hand.owned(1).failure == BROKEN
    hand.release(task)


# --- cancellation ---


@takes("task", ("waiting", "cancel"))
def test_a_waiting_task_is_cancelled_at_once(make_core: MakeCore) -> None:
    hand = make_core()
    first = hand.push_to_1()
    hand.submit(2, arguments=(first,))
    assert hand.tell(CancelRequested(hand.own(2), False)) == []
    failure = hand.owned(2).failure
    assert failure is not None
    assert failure.kind == CANCELLED
    assert not of(hand.get(1, TaskDone(first, b"")), TaskPushed)
    hand.release(first, hand.own(2))


@takes("task", ("queued", "cancel"))
def test_a_queued_task_that_is_cancelled_is_never_pushed(make_core: MakeCore) -> None:
    hand = make_core()
    hand.submit(1)
    hand.submit(2)
    hand.tell(CancelRequested(hand.own(1), False))
    assert [message.task_id for message in of(hand.grant(1, depth=5), TaskPushed)] == [hand.own(2)]
    hand.get(1, TaskDone(hand.own(2), b""))
    hand.release(hand.own(1), hand.own(2))


@takes("task", ("pushed", "cancel"))
def test_a_pushed_task_is_cancelled_where_it_is(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1(template=RETRIED)
    assert sent(hand.tell(CancelRequested(task, False))) == [(1, TaskCancelled(task, False))]
    assert hand.tell(CancelRequested(task, False)) == [], "Once is enough."
    hand.get(1, TaskRaised(task, CANCELLATION, False))
    assert hand.owned(1).failure == CANCELLATION
    hand.release(task)


def test_force_is_passed_on_even_after_a_cancellation(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1(template=RETRIED)
    hand.tell(CancelRequested(task, False))
    forced = TaskCancelled(task, False, forced=True)
    assert sent(hand.tell(CancelRequested(task, False, is_forced=True))) == [(1, forced)]
    assert sent(hand.get(2, CancelAsked(task, False, forced=True))) == [(1, forced)]
    hand.get(1, TaskRaised(task, CANCELLATION, False))
    hand.release(task)
    theirs = foreign(2, 5)
    asked = sent(hand.tell(CancelRequested(theirs, False, is_forced=True)))
    assert asked == [(2, CancelAsked(theirs, False, forced=True))]


def test_a_cancelled_task_may_still_return(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.tell(CancelRequested(task, False))
    hand.get(1, TaskDone(task, b"value"))
    assert hand.owned(1).payload == b"value"
    hand.release(task)


def test_a_cancelled_task_is_not_tried_again(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1(template=RETRIED)
    hand.tell(CancelRequested(task, False))
    assert not of(hand.get(1, TaskRaised(task, BROKEN, True)), TaskPushed)
    assert hand.owned(1).failure == BROKEN
    hand.release(task)


def test_a_cancelled_task_that_is_handed_back_is_over(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.tell(CancelRequested(task, False))
    assert not of(hand.get(1, TasksHandedBack(1, (task,))), TaskPushed)
    assert hand.owned(1).state == FAILED
    hand.release(task)


def test_a_borrower_asks_the_owner_to_cancel(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    assert sent(hand.get(2, CancelAsked(task, True))) == [(1, TaskCancelled(task, True))]
    hand.get(1, TaskRaised(task, CANCELLATION, False))
    hand.release(task)
    assert sent(hand.tell(CancelRequested(foreign(2, 5), False))) == [(2, CancelAsked(foreign(2, 5), False))]


def test_what_has_ended_cannot_be_cancelled(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.get(1, TaskDone(task, b""))
    assert hand.tell(CancelRequested(task, False)) == []
    assert hand.stale("cancellation of an ended task") == 1
    hand.release(task)


def test_children_of_a_task_are_cancelled_with_it(make_core: MakeCore) -> None:
    # A task of rank 2 runs on rank 0 and has submitted one that is queued and one that rank 1 has.
    hand = make_core()
    parent = foreign(2, 1)
    hand.push_to_1(parent=parent)
    hand.submit(2, parent=parent)
    hand.submit(3)
    assert sent(hand.get(2, TaskCancelled(parent, True))) == [(1, TaskCancelled(hand.own(1), True))]
    assert hand.stale("cancellation of an ended run") == 1
    assert hand.owned(2).state == FAILED
    pushed = of(hand.get(1, TaskRaised(hand.own(1), CANCELLATION, False)), TaskPushed)
    assert [message.task_id for message in pushed] == [hand.own(3)]
    hand.get(1, TaskDone(hand.own(3), b""))
    hand.release(*(hand.own(n) for n in (1, 2, 3)))


# --- others who want the value ---


def test_who_asks_early_is_told_when_the_value_comes(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    assert hand.get(2, ObjectAsked(task)) == []
    hand.start_waiting(task)
    effects = hand.get(1, TaskDone(task, b"value"))
    assert [rank for rank, _ in sent(effects)] == [2]
    assert only(effects, WakeWaiter).values == [b"value"]
    hand.release(task)


# --- what cannot be ---


@pytest.mark.parametrize(
    "message",
    [TaskDone(foreign(0, 1), b""), TaskReturned(foreign(0, 1), (SMALL,)), TaskRaised(foreign(0, 1), BROKEN, False)],
    ids=lambda message: type(message).__name__,
)
def test_an_end_that_comes_twice_or_too_early_raises(make_core: MakeCore, message: TaskDone) -> None:
    hand = make_core()
    hand.may_keep = True
    hand.submit(1)
    with pytest.raises(FrameRefusedError, match=r"'(return|fail)' in state 'queued'"):
        hand.get(1, message)
    again = make_core()
    again.push_to_1()
    again.get(1, message)
    with pytest.raises(FrameRefusedError, match="KeyError"):
        again.get(1, message)
    again.release(again.own(1))


def test_after_the_end_of_the_session_nothing_matters(make_core: MakeCore) -> None:
    hand = make_core()
    hand.may_keep = True
    task = hand.push_to_1()
    hand.tell(StopRequested(0, "", True))
    assert hand.get(1, TaskDone(task, b"")) == []
    assert hand.stale("told after the end of the session") == 1
