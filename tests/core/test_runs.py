"""Runs as their executor sees them: rank 1, a worker, to which rank 0 pushes tasks."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import FreeSegment, InterruptTask, RunTask, StartRead, WakeWaiter
from hpcfut.core.events import (
    ObjectPut,
    ReadCompleted,
    RefsAdded,
    RefsReleased,
    RunRaised,
    RunReturned,
    WaitAbandoned,
)
from hpcfut.core.run import BLOCKED, FETCHING, READY, RUNNING
from hpcfut.model.errors import FrameRefusedError
from hpcfut.model.failure import CANCELLED, Failure
from hpcfut.wire.messages import (
    Argument,
    BorrowAdded,
    BorrowConfirmed,
    BorrowReleased,
    LeaseGranted,
    LeaseRequested,
    ObjectFreed,
    ObjectLocated,
    ObjectResolved,
    Result,
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
    LARGE,
    ON_RANK_2,
    PAIR,
    PLAIN,
    SMALL,
    Hand,
    MakeCore,
    foreign,
    of,
    only,
    sent,
    takes,
)
from tests.core.test_references import borrow

TASK = foreign(0, 1)
OTHER = foreign(0, 2)
THEIRS = foreign(2, 7)
STORED = Argument(THEIRS, None, 2, 100)


def deepen(hand: Hand, lease_id: int = 1) -> None:
    """Let rank 0 have a lease that is open and deep, as if its tasks had been short."""
    hand.lend(lease_id=lease_id)
    grant = hand.core.scheduler.grants[0, lease_id]
    assert grant.depth
    grant.depth = 4


def state_of(hand: Hand, task_id: int) -> str:
    return hand.core.runs.runs[task_id].state


@takes("run", ("new", "ready"), ("ready", "start"), ("running", "end"))
def test_a_task_runs_and_its_small_result_goes_back(make_core: MakeCore) -> None:
    hand = make_core(1)
    assert sent(hand.lend()) == [(0, LeaseGranted(1, 1))]
    (run,) = hand.accept(1)
    assert isinstance(run, RunTask)
    assert (run.task_id, run.template_id, run.payload) == (TASK, PLAIN.template_id, b"call")
    assert (run.return_ids, run.waiter_id) == ((TASK,), 0)
    assert (0, TaskDone(TASK, b"small")) in sent(hand.tell(RunReturned(TASK, (SMALL,))))


def test_several_results_and_large_ones_are_told_apart(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend(PAIR)
    assert only(hand.accept(1, PAIR, return_ids=(TASK, OTHER)), RunTask).return_ids == (TASK, OTHER)
    assert only(hand.tell(RunReturned(TASK, (SMALL, LARGE))), TaskReturned) == TaskReturned(TASK, (SMALL, LARGE))
    assert hand.get(0, ObjectFreed(OTHER)) == [FreeSegment(OTHER, 0)]


def test_a_failure_goes_back_and_the_next_one_starts(make_core: MakeCore) -> None:
    hand = make_core(1)
    deepen(hand)
    hand.accept(1)
    hand.accept(2)
    effects = hand.tell(RunRaised(TASK, BROKEN, True))
    assert only(effects, TaskRaised) == TaskRaised(TASK, BROKEN, True)
    assert only(effects, RunTask).task_id == OTHER
    hand.tell(RunReturned(OTHER, (SMALL,)))


@takes("run", ("new", "fetch"), ("fetching", "ready"))
def test_a_run_holds_no_slot_while_its_arguments_come(make_core: MakeCore) -> None:
    hand = make_core(1)
    deepen(hand)
    assert hand.accept(1, arguments=(STORED,)) == [StartRead(1, THEIRS, 2, 0, 100)]
    assert state_of(hand, TASK) == FETCHING
    assert only(hand.accept(2), RunTask).task_id == OTHER
    assert not of(hand.tell(ReadCompleted(1)), RunTask)
    assert state_of(hand, TASK) == READY
    assert only(hand.tell(RunReturned(OTHER, (SMALL,))), RunTask).task_id == TASK
    hand.tell(RunReturned(TASK, (SMALL,)))


# --- handed back ---


@takes("run", ("new", "hand back"))
def test_what_comes_under_a_closed_lease_goes_back(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    assert sent(hand.accept(1, lease_id=2)) == [(0, TasksHandedBack(2, (TASK,)))]
    assert not hand.core.runs.runs


@takes("run", ("ready", "hand back"), ("fetching", "hand back"))
def test_behind_a_long_task_nothing_waits_for_long(make_core: MakeCore) -> None:
    hand = make_core(1)
    deepen(hand)
    for n, arguments in ((1, ()), (2, ()), (3, (STORED,))):
        hand.accept(n, arguments=arguments)
    effects = hand.wait(hand.core.context.config.hand_back_after_s)
    assert sent(effects) == [(0, LeaseGranted(1, 0)), (0, TasksHandedBack(1, (OTHER, foreign(0, 3))))]
    assert list(hand.core.runs.runs) == [TASK]
    assert not hand.tell(ReadCompleted(1))
    assert hand.free_kept() == [FreeSegment(THEIRS, 0)]
    hand.tell(RunReturned(TASK, (SMALL,)))


def test_what_is_handed_back_keeps_no_ref(make_core: MakeCore) -> None:
    hand = make_core(1)
    deepen(hand)
    hand.accept(1)
    hand.accept(2, nested=(THEIRS,))
    assert THEIRS in hand.core.borrowing.objects
    hand.wait(hand.core.context.config.hand_back_after_s)
    assert THEIRS not in hand.core.borrowing.objects
    hand.tell(RunReturned(TASK, (SMALL,)))


# --- covered refs, and refs in results ---


def test_refs_of_a_call_are_covered_until_the_reply(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1, nested=(THEIRS,))
    assert hand.tell(RefsAdded([THEIRS]), RefsReleased([THEIRS])) == [], "Nobody is told of a covered ref."
    assert only(hand.tell(RunReturned(TASK, (SMALL,))), TaskDone)
    assert THEIRS not in hand.core.borrowing.objects


def test_refs_that_are_kept_are_listed_in_the_reply(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    inside = foreign(2, 8)
    hand.accept(1, nested=(THEIRS,), arguments=(Argument(foreign(0, 9), b"list", contained=(inside,)),))
    hand.tell(RefsAdded([THEIRS, inside]))
    assert only(hand.tell(RunReturned(TASK, (SMALL,))), TaskReturned).borrowed == (THEIRS, inside)
    assert sent(hand.release(THEIRS)) == [(2, BorrowReleased(THEIRS, {0: 1}))]
    hand.release(inside)


def test_refs_of_the_caller_are_released_to_the_caller(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    callers = foreign(0, 9)
    hand.accept(1, nested=(callers,))
    hand.tell(RefsAdded([callers]))
    assert only(hand.tell(RunRaised(TASK, BROKEN, False)), TaskRaised).borrowed == (callers,)
    assert sent(hand.release(callers)) == [(0, BorrowReleased(callers, {0: 1}))]


def test_own_refs_that_come_with_a_call_are_not_listed(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.tell(ObjectPut(hand.own(5), SMALL))
    hand.accept(1, nested=(hand.own(5),))
    hand.tell(RefsAdded([hand.own(5)]))
    assert only(hand.tell(RunReturned(TASK, (SMALL,))), TaskDone)
    hand.release(hand.own(5), hand.own(5))


def test_a_returned_ref_of_ones_own_is_counted_for_the_caller(make_core: MakeCore) -> None:
    # return [hpcfut.put(1)]
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    mine = hand.own(5)
    hand.tell(ObjectPut(mine, SMALL))
    hand.tell(RunReturned(TASK, (Result(b"list", 4, (mine,)),)), RefsReleased([mine]))
    assert hand.owned(5).borrowers == {(1, 0): 1}
    hand.get(0, BorrowReleased(mine, {1: 1}))


def test_a_returned_ref_of_another_is_held_until_its_owner_knows(make_core: MakeCore) -> None:
    # def f(list_with_a_ref): return list_with_a_ref
    hand = make_core(1)
    hand.lend()
    hand.accept(1, nested=(THEIRS,))
    effects = hand.tell(RunReturned(TASK, (Result(b"list", 4, (THEIRS,)),)))
    assert (2, BorrowAdded(THEIRS, 0)) in sent(effects)
    assert only(effects, TaskReturned).borrowed == (THEIRS,), "Until confirmed this rank is a borrower as well."
    assert sent(hand.get(2, BorrowConfirmed(THEIRS))) == [(2, BorrowReleased(THEIRS, {0: 1}))]


# --- waiting in a task ---


@takes("run", ("running", "block"), ("blocked", "unblock"))
def test_a_task_that_waits_gives_its_slot_away(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1, nested=(THEIRS,))
    hand.tell(RefsAdded([THEIRS]))
    effects = hand.start_waiting(THEIRS, parent=TASK)
    assert state_of(hand, TASK) == BLOCKED
    assert (0, LeaseGranted(1, 2, 1)) in sent(effects), "What it waits for may be a task of the same lease."
    assert only(hand.accept(2), RunTask).task_id == OTHER
    assert only(hand.get(2, ObjectResolved(THEIRS, b"value")), WakeWaiter).values == [b"value"]
    assert state_of(hand, TASK) == RUNNING
    assert hand.core.scheduler.n_slots_free == -1, "For a moment two run in one slot."
    hand.release(THEIRS)
    hand.tell(RunReturned(TASK, (SMALL,)), RunReturned(OTHER, (SMALL,)))


def test_a_task_is_blocked_until_all_its_threads_go_on(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1, nested=(THEIRS,))
    hand.start_waiting(THEIRS, waiter=1, parent=TASK)
    hand.start_waiting(THEIRS, waiter=2, parent=TASK)
    hand.tell(WaitAbandoned(1))
    assert state_of(hand, TASK) == BLOCKED
    hand.tell(WaitAbandoned(2))
    assert state_of(hand, TASK) == RUNNING
    hand.tell(RunReturned(TASK, (SMALL,)))


@takes("run", ("blocked", "end"))
def test_a_thread_may_outlive_its_task(make_core: MakeCore) -> None:
    # The task has started a thread that waits, and returns before it.
    hand = make_core(1)
    hand.lend()
    hand.accept(1, nested=(THEIRS,))
    hand.tell(RefsAdded([THEIRS]))
    hand.start_waiting(THEIRS, parent=TASK)
    assert only(hand.tell(RunReturned(TASK, (SMALL,))), TaskReturned).borrowed == (THEIRS,)
    assert only(hand.get(2, ObjectResolved(THEIRS, b"value")), WakeWaiter).values == [b"value"]
    assert hand.stale("wait that outlived its task") == 1
    hand.tell(RefsAdded([foreign(2, 8)]))
    hand.start_waiting(foreign(2, 8), waiter=2, parent=TASK)
    assert hand.stale("wait that outlived its task") == 2
    hand.tell(WaitAbandoned(2), RefsReleased([THEIRS, foreign(2, 8)]))


# --- cancellation ---


def test_a_running_task_is_interrupted_once(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    assert hand.get(0, TaskCancelled(TASK, False)) == [InterruptTask(TASK)]
    assert hand.get(0, TaskCancelled(TASK, False)) == []
    hand.tell(RunReturned(TASK, (SMALL,)))


def test_a_task_that_goes_on_after_its_cancellation_may_be_forced_to_end(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    assert hand.get(0, TaskCancelled(TASK, False)) == [InterruptTask(TASK)]
    assert hand.get(0, TaskCancelled(TASK, False, forced=True)) == [InterruptTask(TASK, is_forced=True)]
    hand.tell(RunRaised(TASK, Failure(CANCELLED), False))


def test_what_a_task_submits_after_its_cancellation_is_cancelled_as_it_ends(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    hand.define(ON_RANK_2)
    hand.get(0, TaskCancelled(TASK, False))
    hand.get(0, TaskCancelled(TASK, True))
    hand.submit(2, ON_RANK_2, parent=TASK)
    hand.tell(RunRaised(TASK, Failure(CANCELLED), False))
    assert hand.owned(2).failure is not None
    hand.release(hand.own(2))


def test_what_a_cancelled_task_has_submitted_goes_on_if_it_returns(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    hand.define(ON_RANK_2)
    hand.get(0, TaskCancelled(TASK, True))
    hand.submit(2, ON_RANK_2, parent=TASK)
    hand.tell(RunReturned(TASK, (SMALL,)))
    assert of(hand.grant(2), TaskPushed)
    hand.get(2, TaskDone(hand.own(2), b""))
    hand.release(hand.own(2))


@takes("run", ("ready", "drop"))
def test_a_ready_task_that_is_cancelled_never_runs(make_core: MakeCore) -> None:
    hand = make_core(1)
    deepen(hand)
    hand.accept(1)
    hand.accept(2)
    raised = only(hand.get(0, TaskCancelled(OTHER, False)), TaskRaised)
    assert (raised.task_id, raised.failure.kind, raised.retriable) == (OTHER, CANCELLED, False)
    assert not of(hand.tell(RunReturned(TASK, (SMALL,))), RunTask)


@takes("run", ("fetching", "drop"))
def test_a_fetching_task_that_is_cancelled_wants_its_argument_no_more(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1, arguments=(STORED,))
    assert only(hand.get(0, TaskCancelled(TASK, False)), TaskRaised).failure.kind == CANCELLED
    assert not hand.free_kept(), "It is under way."
    assert hand.tell(ReadCompleted(1)) == [FreeSegment(THEIRS, 0)]


def test_a_cancellation_may_come_too_late(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    hand.tell(RunReturned(TASK, (SMALL,)))
    assert hand.get(0, TaskCancelled(TASK, False)) == []
    assert hand.stale("cancellation of an ended run") == 1


def test_a_run_that_was_handed_back_in_the_same_moment_is_not_told_of_its_argument(make_core: MakeCore) -> None:
    # The driver waits for an object that a task on its rank has as argument. When it comes, the driver goes on, and
    # the task is handed back before it is told.
    hand = make_core(0)
    borrow(hand)
    hand.start_waiting(THEIRS)
    hand.get(2, ObjectLocated(THEIRS, 2, 100))
    hand.get(1, TemplateRegistered(PLAIN), LeaseRequested(1, PLAIN.resources))
    assert sent(hand.wait(hand.core.context.config.driver_lends_after_s)) == [(1, LeaseGranted(1, 1))]
    hand.get(1, TaskPushed(foreign(1, 1), 1, PLAIN.template_id, b"call", (STORED,)))
    effects = hand.tell(ReadCompleted(1))
    assert only(effects, WakeWaiter).waiter_id == 1
    assert only(effects, TasksHandedBack).task_ids == (foreign(1, 1),)
    hand.release(THEIRS)


# --- what cannot be ---


@pytest.mark.parametrize("event", [RunReturned(TASK, (SMALL,)), RunRaised(TASK, BROKEN, False)])
def test_the_end_of_what_does_not_run_raises(make_core: MakeCore, event: RunReturned) -> None:
    hand = make_core(1)
    with pytest.raises(KeyError):
        hand.core.handle(event, 0.0)


def test_a_task_of_a_function_that_was_not_told_raises(make_core: MakeCore) -> None:
    hand = make_core(1)
    with pytest.raises(FrameRefusedError, match="KeyError"):
        hand.accept(1)
