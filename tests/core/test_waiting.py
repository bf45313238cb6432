"""Threads that wait: what wakes them with what, and which tasks they run on their own stacks meanwhile."""

from __future__ import annotations

from hpcfut.core.effects import InterruptTask, RunTask, StartRead, WakeWaiter
from hpcfut.core.events import (
    CancelRequested,
    ObjectPut,
    ReadCompleted,
    ReadFailed,
    RunRaised,
    RunReturned,
    WaitAbandoned,
    WaitStarted,
)
from hpcfut.model.failure import CANCELLED, Failure
from hpcfut.wire.messages import (
    LeaseGranted,
    ObjectLocated,
    ObjectResolved,
    TaskDone,
    TaskRaised,
    TaskReturned,
    TasksHandedBack,
)
from tests.core.cores import BROKEN, GENERATOR, LARGE, PAIR, PLAIN, SMALL, Hand, MakeCore, foreign, of, only, takes
from tests.core.test_references import THEIRS, borrow


def put(hand: Hand, *numbers: int) -> list[int]:
    for n in numbers:
        hand.tell(ObjectPut(hand.own(n), SMALL))
    return [hand.own(n) for n in numbers]


# --- what wakes a thread ---


def test_what_is_ready_wakes_at_once_in_the_order_of_the_request(make_core: MakeCore) -> None:
    hand = make_core()
    ids = put(hand, 7, 8, 9)
    woken = only(hand.start_waiting(ids[2], ids[0], ids[1], n_wanted=2), WakeWaiter)
    assert woken == WakeWaiter(1, [ids[2], ids[0]], [b"small", b"small"])
    assert not hand.core.waits.waits
    hand.release(*ids)


def test_a_thread_is_woken_by_as_many_as_it_wants(make_core: MakeCore) -> None:
    hand = make_core()
    (ready,) = put(hand, 9)
    hand.submit(1)
    hand.submit(2)
    hand.grant(1, depth=2)
    assert hand.start_waiting(hand.own(1), ready, hand.own(2), n_wanted=2) == []
    woken = only(hand.get(1, TaskRaised(hand.own(2), BROKEN, False)), WakeWaiter)
    assert woken == WakeWaiter(1, [ready, hand.own(2)], [b"small", BROKEN]), "A failure is ready, too."
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.release(ready, hand.own(1), hand.own(2))


def test_nothing_wanted_asks_what_is_ready_now(make_core: MakeCore) -> None:
    hand = make_core()
    (ready,) = put(hand, 9)
    task = hand.push_to_1()
    assert hand.tell(WaitStarted(1, [task, ready], 0, True, False, 0)) == [WakeWaiter(1, [ready], [b"small"])]
    hand.get(1, TaskDone(task, b""))
    hand.release(ready, task)


def test_who_does_not_fetch_wants_to_know_only(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.tell(WaitStarted(1, [task], 1, False, False, 0))
    assert hand.get(1, TaskReturned(task, (LARGE,))) == [WakeWaiter(1, [task], [None])]
    assert hand.start_waiting(task, waiter=2) == [StartRead(1, task, 1, 0, LARGE.nbytes)]
    hand.tell(WaitAbandoned(2))
    hand.release(task)
    hand.tell(ReadFailed(1, BROKEN))


def test_an_abandoned_wait_is_forgotten(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.start_waiting(task)
    assert hand.tell(WaitAbandoned(1)) == []
    assert not of(hand.get(1, TaskDone(task, b"")), WakeWaiter)
    hand.release(task)


def test_a_wait_may_be_over_when_it_is_abandoned(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.start_waiting(task)
    hand.get(1, TaskDone(task, b""))
    assert hand.tell(WaitAbandoned(1)) == []
    assert hand.stale("abandoned wait that was over") == 1
    hand.release(task)


# --- running what is waited for ---


@takes("waits", ("waiting", "run"), ("working", "run ended"), ("waiting", "ready"))
def test_on_one_rank_the_waiting_thread_runs_the_task(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=1)
    task = hand.own(1)
    assert hand.submit(1) == []
    run = only(hand.start_waiting(task, may_run=True), RunTask)
    assert (run.task_id, run.waiter_id) == (task, 1)
    assert hand.tell(RunReturned(task, (SMALL,))) == [WakeWaiter(1, [task], [b"small"])]
    hand.release(task)


def test_a_thread_that_may_not_run_waits_for_another(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=1)
    hand.submit(1)
    assert [run.waiter_id for run in of(hand.start_waiting(hand.own(1)), RunTask)] == [0]
    hand.tell(RunReturned(hand.own(1), (SMALL,)))
    hand.release(hand.own(1))


def test_a_thread_sees_one_task_run_after_the_other(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=1)
    ids = [hand.own(n) for n in (1, 2, 3)]
    for n in (1, 2, 3):
        hand.submit(n)
    started = of(hand.start_waiting(*ids, may_run=True), RunTask)
    for task in ids:
        assert [run.task_id for run in started] == [task], "By the thread itself, or on another one under a lease."
        effects = hand.tell(RunReturned(task, (SMALL,)))
        started = of(effects, RunTask)
    assert only(effects, WakeWaiter).object_ids == ids
    hand.release(*ids)


def test_nested_waits_run_on_one_stack(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=1)
    hand.submit(1)
    hand.start_waiting(hand.own(1), may_run=True)
    hand.submit(2, PAIR, parent=hand.own(1))
    run = only(hand.start_waiting(hand.own(3), waiter=2, may_run=True, parent=hand.own(1)), RunTask)
    assert (run.task_id, run.waiter_id) == (hand.own(2), 2)
    assert only(hand.tell(RunReturned(hand.own(2), (SMALL, SMALL))), WakeWaiter).waiter_id == 2
    assert only(hand.tell(RunReturned(hand.own(1), (SMALL,))), WakeWaiter).waiter_id == 1
    hand.release(*(hand.own(n) for n in (1, 2, 3)))


@takes("waits", ("working", "ready"), ("covered", "run ended"))
def test_a_wait_that_is_over_lasts_as_long_as_the_task_on_its_stack(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=1, n_slots=2)
    first, second = hand.own(1), hand.own(2)
    hand.submit(1)
    hand.submit(2)
    effects = hand.start_waiting(first, second, n_wanted=1, may_run=True)
    assert [(run.task_id, run.waiter_id) for run in of(effects, RunTask)] == [(first, 1), (second, 0)]
    assert only(hand.tell(RunReturned(second, (SMALL,))), WakeWaiter).object_ids == [second]
    assert hand.core.scheduler.n_driver_waits == 1, "The driver cannot go on yet."
    hand.tell(RunReturned(first, (SMALL,)))
    assert hand.core.scheduler.n_driver_waits == 0
    hand.release(first, second)


def test_a_thread_may_leave_just_when_it_is_given_a_task(make_core: MakeCore) -> None:
    # Both happen before the other is heard: another thread takes the task.
    hand = make_core(n_ranks=1)
    task = hand.own(1)
    hand.submit(1)
    assert only(hand.start_waiting(task, may_run=True), RunTask).waiter_id == 1
    assert hand.tell(WaitAbandoned(1)) == []
    assert hand.core.scheduler.n_driver_waits == 0
    assert hand.tell(RunReturned(task, (SMALL,))) == []
    assert hand.stale("end of a task of an abandoned wait") == 1
    hand.release(task)


def test_a_thread_may_leave_just_when_its_wait_is_over(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=1, n_slots=2)
    first, second = hand.own(1), hand.own(2)
    hand.submit(1)
    hand.submit(2)
    hand.start_waiting(first, second, n_wanted=1, may_run=True)
    hand.tell(RunReturned(second, (SMALL,)))
    assert hand.tell(WaitAbandoned(1)) == []
    assert hand.core.scheduler.n_driver_waits == 0
    hand.tell(RunReturned(first, (SMALL,)))
    hand.release(first, second)


def test_a_task_that_comes_back_is_run_where_it_is_waited_for(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    assert not of(hand.start_waiting(task, may_run=True), RunTask)
    effects = hand.get(1, LeaseGranted(1, 0), TasksHandedBack(1, (task,)))
    assert only(effects, RunTask).task_id == task, "The own rank is as idle as the third, and nearer."
    hand.tell(RunReturned(task, (SMALL,)))
    hand.release(task)


def test_a_thread_runs_what_becomes_ready_when_there_are_no_threads_left(make_core: MakeCore) -> None:
    # A task of rank 0 on this rank waits for one of its own, whose argument comes now.
    hand = make_core(1, n_blocked_max=1)
    hand.define(PLAIN)
    hand.lend()
    parent, child = foreign(0, 1), hand.own(1)
    hand.accept(1, nested=(THEIRS,))
    hand.submit(1, arguments=(THEIRS,), parent=parent)
    assert not of(hand.start_waiting(child, may_run=True, parent=parent), RunTask)
    effects = hand.get(2, ObjectResolved(THEIRS, b"value"))
    assert [(run.task_id, run.waiter_id) for run in of(effects, RunTask)] == [(child, 1)]
    hand.tell(RunReturned(child, (SMALL,)))
    hand.tell(RunReturned(parent, (SMALL,)))
    hand.release(child)


def test_a_thread_does_not_run_what_does_not_belong_here(make_core: MakeCore) -> None:
    hand = make_core()
    hand.submit(1, GENERATOR)
    assert not of(hand.start_waiting(hand.own(1), may_run=True), RunTask), "It could be held back by its own consumer."
    hand.tell(WaitAbandoned(1), CancelRequested(hand.own(1), False))
    hand.release(*(hand.own(n) for n in (1, 2, 3)))


def test_a_thread_runs_a_task_when_its_argument_has_come(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.submit(2, arguments=(THEIRS,))
    hand.get(1, LeaseGranted(1, 0))
    hand.get(2, ObjectLocated(THEIRS, 2, 100), load=100)
    effects = hand.start_waiting(hand.own(2), may_run=True)
    assert of(effects, StartRead) == [StartRead(1, THEIRS, 2, 0, 100)]
    assert only(hand.tell(ReadCompleted(1)), RunTask).task_id == hand.own(2)
    hand.tell(RunReturned(hand.own(2), (SMALL,)))
    hand.release(THEIRS, hand.own(2))


def test_a_task_on_a_stack_can_be_interrupted(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=1)
    task = hand.own(1)
    hand.submit(1)
    hand.start_waiting(task, may_run=True)
    assert hand.tell(CancelRequested(task, False)) == [InterruptTask(task)]
    cancelled = Failure(CANCELLED)
    assert only(hand.tell(RunRaised(task, cancelled, False)), WakeWaiter).values == [cancelled]
    hand.release(task)
