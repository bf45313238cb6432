"""Who is told of objects one by one, and what that means for the rank meanwhile."""

from __future__ import annotations

from hpcfut.core.effects import RunTask, StartRead, TellWatcher
from hpcfut.core.events import ReadCompleted, ReadFailed, RefsAdded, RunReturned, WatchEnded, WatchStarted
from hpcfut.model.place import Place
from hpcfut.wire.messages import LeaseReturned, ObjectLocated, ObjectResolved, TaskDone, TaskRaised, TaskReturned
from tests.core.cores import BROKEN, LARGE, SMALL, Hand, MakeCore, foreign, of, only, takes
from tests.core.test_references import THEIRS, borrow
from tests.core.test_waiting import put


def watch(
    *object_ids: int, watch_id: int = 1, is_fetching: bool = True, is_waiting: bool = False, task_id: int = 0
) -> WatchStarted:
    return WatchStarted(watch_id, list(object_ids), is_fetching, is_waiting, task_id)


def two_tasks(hand: Hand) -> tuple[int, int]:
    """Two tasks on rank 1."""
    hand.submit(1)
    hand.submit(2)
    hand.grant(1, depth=2)
    return hand.own(1), hand.own(2)


def test_what_is_ready_is_told_at_once_and_the_rest_one_by_one(make_core: MakeCore) -> None:
    hand = make_core()
    ready = put(hand, 8, 9)
    first, second = two_tasks(hand)
    effects = hand.tell(watch(first, *ready, second))
    assert effects == [TellWatcher(1, ready, [b"small", b"small"], False)]
    effects = hand.get(1, TaskDone(second, b"value"))
    assert only(effects, TellWatcher) == TellWatcher(1, [second], [b"value"], False)
    effects = hand.get(1, TaskRaised(first, BROKEN, False))
    assert only(effects, TellWatcher) == TellWatcher(1, [first], [BROKEN], True), "A failure is ready, too."
    assert not hand.core.watches.watches
    hand.release(first, second, *ready)


def test_a_watch_of_what_is_ready_is_over_at_once(make_core: MakeCore) -> None:
    hand = make_core()
    ready = put(hand, 8, 9)
    assert hand.tell(watch(*ready)) == [TellWatcher(1, ready, [b"small", b"small"], True)]
    assert hand.tell(WatchEnded(1)) == []
    assert hand.stale("end of a watch that was over") == 1
    hand.release(*ready)


def test_nobody_is_told_after_the_end(make_core: MakeCore) -> None:
    hand = make_core()
    first, second = two_tasks(hand)
    hand.tell(watch(first, second, is_waiting=True))
    assert of(hand.tell(WatchEnded(1)), TellWatcher) == []
    assert not hand.core.scheduler.n_driver_waits
    assert of(hand.get(1, TaskDone(first, b""), TaskDone(second, b"")), TellWatcher) == []
    hand.release(first, second)


def test_several_watches_and_waits_of_one_object(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.tell(watch(task, watch_id=1), watch(task, watch_id=2), watch(task, watch_id=4))
    hand.start_waiting(task, waiter=3)
    hand.tell(WatchEnded(4))
    effects = hand.get(1, TaskDone(task, b"value"))
    assert [effect.watch_id for effect in of(effects, TellWatcher)] == [1, 2]
    hand.release(task)


@takes("copies", ("absent", "read"), ("reading", "completed"))
def test_who_fetches_is_told_when_the_bytes_are_here(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.tell(watch(task, watch_id=1), watch(task, watch_id=2, is_fetching=False))
    effects = hand.get(1, TaskReturned(task, (LARGE,)))
    assert of(effects, TellWatcher) == [TellWatcher(2, [task], [None], True)]
    assert only(effects, StartRead).object_id == task
    place = Place(task, 0, 0, LARGE.nbytes)
    assert hand.tell(ReadCompleted(1)) == [TellWatcher(1, [task], [place], True, True)]
    hand.release(task)


def test_bytes_that_will_never_be_here_are_told_as_a_failure(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.tell(watch(task))
    hand.get(1, TaskReturned(task, (LARGE,)))
    assert of(hand.tell(ReadFailed(1, BROKEN)), TellWatcher) == [TellWatcher(1, [task], [BROKEN], True)]
    hand.release(task)


def test_the_end_of_a_watch_while_bytes_are_under_way(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.tell(watch(task))
    hand.get(1, TaskReturned(task, (LARGE,)))
    hand.tell(WatchEnded(1))
    assert of(hand.tell(ReadCompleted(1)), TellWatcher) == []
    hand.release(task)


def test_borrowed_objects_are_asked_for(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.tell(watch(THEIRS))
    effects = hand.get(2, ObjectResolved(THEIRS, b"value"))
    assert only(effects, TellWatcher) == TellWatcher(1, [THEIRS], [b"value"], True)
    hand.release(THEIRS)


def test_borrowed_objects_that_are_stored_elsewhere(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.tell(watch(THEIRS, is_fetching=False))
    effects = hand.get(2, ObjectLocated(THEIRS, 1, 10**6))
    assert effects == [TellWatcher(1, [THEIRS], [None], True)]
    hand.release(THEIRS)


def test_a_driver_whose_event_loop_waits_lends_its_rank(make_core: MakeCore) -> None:
    # With one rank there is nobody else: asyncio.run(main()), where main awaits f.remote() and then g.remote().
    hand = make_core(n_ranks=1)
    hand.submit(1)
    assert only(hand.tell(watch(hand.own(1), is_waiting=True)), RunTask).waiter_id == 0
    effects = hand.tell(RunReturned(hand.own(1), (SMALL,)))
    assert only(effects, TellWatcher) == TellWatcher(1, [hand.own(1)], [b"small"], True)
    assert not hand.core.scheduler.n_driver_waits
    hand.release(hand.own(1))


def test_a_watch_alone_claims_nothing(make_core: MakeCore) -> None:
    # for ref in as_completed([f.remote()]): the driver computes between two refs.
    hand = make_core(n_ranks=1)
    hand.submit(1)
    assert of(hand.tell(watch(hand.own(1))), RunTask) == []
    assert of(hand.start_waiting(hand.own(1), waiter=2), RunTask)
    hand.tell(RunReturned(hand.own(1), (SMALL,)))
    hand.release(hand.own(1))


@takes("run", ("running", "block"), ("blocked", "unblock"))
def test_a_task_whose_event_loop_waits_gives_its_slot_back(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    task, borrowed = foreign(0, 1), foreign(0, 9)
    hand.accept(1)
    hand.tell(RefsAdded([borrowed]))
    hand.tell(watch(borrowed, is_waiting=True, task_id=task))
    assert hand.core.scheduler.n_slots_free == 1
    hand.get(0, ObjectResolved(borrowed, b"value"))
    assert hand.core.scheduler.n_slots_free == 0
    hand.release(borrowed)
    hand.tell(RunReturned(task, (SMALL,)))
    hand.get(0, LeaseReturned(1))


def test_a_watch_may_outlive_its_task(make_core: MakeCore) -> None:
    # A task leaves a future behind.
    hand = make_core(1)
    hand.lend()
    task, borrowed = foreign(0, 1), foreign(0, 9)
    hand.accept(1)
    hand.tell(RefsAdded([borrowed]))
    hand.tell(watch(borrowed, is_waiting=True, task_id=task))
    hand.tell(RunReturned(task, (SMALL,)))
    effects = hand.get(0, ObjectResolved(borrowed, b"value"))
    assert only(effects, TellWatcher).object_ids == [borrowed]
    assert hand.stale("wait that outlived its task") == 1
    hand.release(borrowed)
    hand.get(0, LeaseReturned(1))
