"""Leases: what an owner asks for, and what a rank grants on itself."""

from __future__ import annotations

import msgspec
import pytest

from hpcfut.core.effects import RunTask, WakeWaiter
from hpcfut.core.events import ObjectPut, RunReturned, WaitAbandoned
from hpcfut.core.grants import EXPECTED_FOR_S
from hpcfut.model.errors import FrameRefusedError, InvariantError
from hpcfut.model.failure import UNSCHEDULABLE
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.wire.messages import (
    LeaseGranted,
    LeaseRequested,
    LeaseReturned,
    TaskDone,
    TasksHandedBack,
)
from tests.core.cores import ON_RANK_2, PLAIN, SMALL, MakeCore, asked, foreign, of, only, pushed, sent

SPREAD = TaskTemplate(7, "spread", b"", spread=True)
HALF = TaskTemplate(8, "half", b"", resources=(("CPU", RESOURCE_UNIT // 2),))


# --- as the holder ---


def test_one_rank_more_is_asked_for_each_task_that_finds_no_room(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4)
    assert [asked(hand.submit(n)) for n in range(1, 6)] == [[1], [2], [3], [], []]
    assert hand.core.scheduler.grants, "The own rank, whose driver does not wait, was asked last."
    assert pushed(hand.grant(2, lease_id=2)) == [(2, hand.own(1))]
    assert pushed(hand.grant(3, depth=2, lease_id=3)) == [(3, hand.own(2)), (3, hand.own(3))]
    assert pushed(hand.get(2, TaskDone(hand.own(1), b""))) == [(2, hand.own(4))]
    assert pushed(hand.get(3, TaskDone(hand.own(2), b""))) == [(3, hand.own(5))]
    hand.get(3, TaskDone(hand.own(3), b""), TaskDone(hand.own(5), b""))
    hand.get(2, TaskDone(hand.own(4), b""))
    hand.release(*map(hand.own, range(1, 6)))


def test_the_least_loaded_rank_is_asked_first(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4)
    hand.get(1, load=3)
    hand.get(2, load=2)
    hand.get(3, load=2)
    assert asked(hand.submit(1)) == [2]
    hand.get(2, LeaseGranted(1, 1), TaskDone(hand.own(1), b""))
    hand.release(hand.own(1))


def test_functions_with_other_needs_have_leases_of_their_own(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(HALF)
    hand.submit(1)
    assert sent(hand.submit(2, HALF)) == [(1, LeaseRequested(2, HALF.resources))]
    assert pushed(hand.grant(1, lease_id=2)) == [(1, hand.own(2))]
    assert pushed(hand.grant(1, lease_id=1)) == [(1, hand.own(1))]
    hand.get(1, TaskDone(hand.own(1), b""), TaskDone(hand.own(2), b""))
    hand.release(hand.own(1), hand.own(2))


def test_a_task_goes_where_it_is_bound_to(make_core: MakeCore) -> None:
    hand = make_core()
    assert asked(hand.submit(1, ON_RANK_2)) == [2]
    assert pushed(hand.grant(2)) == [(2, hand.own(1))]
    hand.get(2, TaskDone(hand.own(1), b""))
    hand.release(hand.own(1))


@pytest.mark.parametrize("is_soft", [False, True])
def test_what_is_bound_to_a_rank_that_is_not_there(make_core: MakeCore, is_soft: bool) -> None:
    hand = make_core()
    hand.define(msgspec.structs.replace(ON_RANK_2, template_id=9, affinity=7, affinity_soft=is_soft))
    effects = hand.submit(1, hand.core.template(9))
    if is_soft:
        assert asked(effects) == [1]
        hand.get(1, LeaseGranted(1, 1), TaskDone(hand.own(1), b""))
    else:
        failure = hand.owned(1).failure
        assert failure is not None
        assert failure.kind == UNSCHEDULABLE
        assert "bound to rank 7, but the job has ranks 0 to 2 only" in failure.text
    hand.release(hand.own(1))


def test_calls_go_to_the_warm_rank_unless_they_are_to_be_spread(make_core: MakeCore) -> None:
    for template, ranks in ((PLAIN, [1, 1, 1]), (SPREAD, [1, 2, 1])):
        hand = make_core()
        hand.define(SPREAD)
        for n in (1, 2):
            hand.submit(n, template)
        hand.get(1, LeaseGranted(1, 3))
        hand.get(1, TaskDone(hand.own(1), b""), TaskDone(hand.own(2), b""))
        hand.get(2, LeaseGranted(2, 3))
        went = []
        for n in (3, 4, 5):
            ((rank, task),) = pushed(hand.submit(n, template))
            hand.get(rank, TaskDone(task, b""))
            went.append(rank)
        assert went == ranks
        hand.release(*map(hand.own, range(1, 6)))


def test_a_lease_without_work_is_returned(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    linger_s = hand.core.context.config.lease_linger_s
    assert hand.wait(2 * linger_s) == [], "Its task is still there."
    hand.get(1, TaskDone(task, b""))
    assert hand.wait(linger_s / 2) == []
    assert sent(hand.wait(linger_s / 2)) == [(1, LeaseReturned(1))]
    assert hand.get(1, LeaseGranted(1, 5)) == []
    assert hand.stale("grant of a returned lease") == 1
    hand.release(task)


def test_a_full_lease_is_filled_up_when_half_of_its_tasks_have_ended(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=2)
    for n in range(1, 9):
        hand.submit(n)
    assert len(pushed(hand.grant(1, depth=4))) == 4
    assert pushed(hand.get(1, TaskDone(hand.own(1), b""))) == []
    assert pushed(hand.get(1, TaskDone(hand.own(2), b""))) == [(1, hand.own(5)), (1, hand.own(6))]
    hand.get(1, LeaseGranted(1, 6, 2))
    assert pushed(hand.get(1, TaskDone(hand.own(3), b""))) == [], "There are 5, of which 2 are blocked."
    hand.get(1, *(TaskDone(hand.own(n), b"") for n in range(4, 9)))
    ((rank, _),) = pushed(hand.submit(9))
    assert rank == 1
    hand.get(1, TaskDone(hand.own(9), b""))
    hand.release(*map(hand.own, range(1, 10)))


def test_each_lease_is_returned_in_its_time(make_core: MakeCore) -> None:
    hand = make_core()
    linger_s = hand.core.context.config.lease_linger_s
    hand.submit(1)
    hand.submit(2)
    hand.get(1, LeaseGranted(1, 1))
    hand.get(2, LeaseGranted(2, 1))
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.wait(linger_s / 2)
    hand.get(2, TaskDone(hand.own(2), b""))
    assert sent(hand.wait(linger_s / 2)) == [(1, LeaseReturned(1))]
    assert sent(hand.wait(linger_s / 2)) == [(2, LeaseReturned(2))]
    hand.release(hand.own(1), hand.own(2))


def test_a_rank_that_does_not_answer_is_not_waited_for(make_core: MakeCore) -> None:
    hand = make_core()
    hand.submit(1)
    assert asked(hand.wait(hand.core.context.config.lease_linger_s)) == [2]
    assert pushed(hand.grant(2, lease_id=2)) == [(2, hand.own(1))]
    hand.get(1, LeaseGranted(1, 1))
    hand.get(2, TaskDone(hand.own(1), b""))
    hand.release(hand.own(1))


# --- as the rank that grants ---


def test_leases_are_opened_in_the_order_of_the_requests(make_core: MakeCore) -> None:
    hand = make_core(1, n_ranks=6)
    granted = [[rank for rank, _ in sent(hand.lend(owner=owner))] for owner in (0, 2, 3, 4)]
    assert granted == [[0], [2], [], []], "Two for each free slot."
    hand.accept(1)
    opened = [rank for rank, _ in sent(hand.tell(RunReturned(foreign(0, 1), (SMALL,)))) if rank > 2]
    assert opened == [3], "Rank 2 has not sent a task yet."
    assert [rank for rank, _ in sent(hand.wait(EXPECTED_FOR_S))] == [4], "Who does not come is not waited for."


def test_a_busy_rank_opens_nothing(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    assert hand.lend(owner=2) == []
    effects = hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    assert (2, LeaseGranted(1, 1)) in sent(effects)


def test_a_lease_becomes_as_deep_as_its_tasks_are_short(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    horizon_s = hand.core.context.config.lease_horizon_s
    depths = []
    for n in range(1, 40):
        hand.accept(n)
        hand.now += horizon_s / 8
        effects = hand.tell(RunReturned(foreign(0, n), (SMALL,)))
        depths += [message.depth for message in of(effects, LeaseGranted)]
    assert depths == [8], "Told once, because nothing changes afterwards."


def test_a_lease_of_long_tasks_stays_flat(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    for n in range(1, 5):
        hand.accept(n)
        hand.now += 1.0
        assert not of(hand.tell(RunReturned(foreign(0, n), (SMALL,))), LeaseGranted)


def test_a_returned_lease_makes_room_for_another(make_core: MakeCore) -> None:
    hand = make_core(1, n_ranks=5)
    for owner in (0, 2, 3):
        hand.lend(owner=owner)
    assert sent(hand.get(0, LeaseReturned(1))) == [(3, LeaseGranted(1, 1))]
    with pytest.raises(FrameRefusedError, match="KeyError"):
        hand.get(0, LeaseReturned(1))


# --- the driver's rank ---


def test_a_driver_lends_its_rank_while_it_waits(make_core: MakeCore) -> None:
    hand = make_core()
    assert hand.lend(owner=1) == []
    hand.push_to_1()
    lends_after_s = hand.core.context.config.driver_lends_after_s
    assert hand.start_waiting(hand.own(1)) == []
    assert hand.wait(lends_after_s / 2) == []
    assert sent(hand.wait(lends_after_s / 2)) == [(1, LeaseGranted(1, 1))]
    assert only(hand.accept(1, owner=1), RunTask).task_id == foreign(1, 1)
    hand.accept(2, owner=1)
    effects = hand.get(1, TaskDone(hand.own(1), b""))
    assert only(effects, WakeWaiter)
    assert hand.core.runs.runs.keys() == {foreign(1, 1)}, "What runs goes on; what does not is handed back."
    hand.tell(RunReturned(foreign(1, 1), (SMALL,)))
    hand.release(hand.own(1))


def test_a_driver_hands_back_what_has_not_started(make_core: MakeCore) -> None:
    hand = make_core()
    hand.lend(owner=1)
    hand.push_to_1()
    hand.start_waiting(hand.own(1))
    hand.wait(hand.core.context.config.driver_lends_after_s)
    hand.core.scheduler.grants[1, 1].depth = 2
    hand.accept(1, owner=1)
    hand.accept(2, owner=1)
    effects = hand.tell(WaitAbandoned(1))
    assert sent(effects) == [(1, LeaseGranted(1, 0)), (1, TasksHandedBack(1, (foreign(1, 2),)))]
    hand.tell(RunReturned(foreign(1, 1), (SMALL,)))
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.release(hand.own(1))


def test_a_wait_of_a_task_lends_nothing(make_core: MakeCore) -> None:
    # The driver goes on, while a task on its rank still waits.
    hand = make_core()
    hand.lend(owner=1)
    hand.tell(ObjectPut(hand.own(9), SMALL))
    hand.push_to_1()
    hand.start_waiting(hand.own(1), parent=foreign(1, 1))
    assert hand.wait(1.0) == []
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.release(hand.own(1), hand.own(9))


# --- the queue of one rank ---


def test_as_many_run_as_there_are_slots(make_core: MakeCore) -> None:
    hand = make_core(1, n_slots=2)
    hand.lend()
    hand.core.scheduler.grants[0, 1].depth = 8
    started = [task for n in range(1, 5) for task in of(hand.accept(n), RunTask)]
    assert [run.task_id for run in started] == [foreign(0, 1), foreign(0, 2)]
    assert only(hand.tell(RunReturned(foreign(0, 2), (SMALL,))), RunTask).task_id == foreign(0, 3)
    assert only(hand.tell(RunReturned(foreign(0, 3), (SMALL,))), RunTask).task_id == foreign(0, 4)
    hand.tell(RunReturned(foreign(0, 1), (SMALL,)), RunReturned(foreign(0, 4), (SMALL,)))


def test_long_tasks_of_one_lease_take_all_slots(make_core: MakeCore) -> None:
    for slots, cpus, n_at_once in ((2, 4, 2), (4, 3, 3), (4, 1, 1)):
        hand = make_core(1, cpus=cpus, n_slots=slots)
        assert of(hand.lend(), LeaseGranted) == [LeaseGranted(1, n_at_once)]
        started = [task for n in range(n_at_once) for task in of(hand.accept(n + 1), RunTask)]
        assert len(started) == n_at_once
        hand.now += 1.0
        for run in started:
            assert not of(hand.tell(RunReturned(run.task_id, (SMALL,))), LeaseGranted)


def test_slots_are_filled_up_one_by_one(make_core: MakeCore) -> None:
    hand = make_core(0, n_slots=4)
    for n in range(1, 9):
        hand.submit(n)
    assert len(pushed(hand.grant(1, 4))) == 4
    assert len(pushed(hand.get(1, TaskDone(hand.own(1), b"")))) == 1
    for n in range(2, 9):
        hand.get(1, TaskDone(hand.own(n), b""))
    hand.release(*map(hand.own, range(1, 9)))


def test_a_slot_that_is_free_beside_a_long_task_keeps_leases_open(make_core: MakeCore) -> None:
    hand = make_core(1, n_slots=2)
    hand.lend()
    hand.accept(1)
    hand.lend(owner=2)
    assert not of(hand.wait(1.0), LeaseGranted)
    assert of(hand.accept(1, owner=2), RunTask)
    assert [message.depth for message in of(hand.wait(1.0), LeaseGranted)] == [0, 0], "Now there is no room."
    hand.tell(RunReturned(foreign(0, 1), (SMALL,)), RunReturned(foreign(2, 1), (SMALL,)))


def test_a_run_waits_for_its_resources_and_lets_smaller_ones_pass(make_core: MakeCore) -> None:
    hand = make_core(1, cpus=1, n_slots=4)
    hand.lend(HALF)
    hand.core.scheduler.grants[0, 1].depth = 8
    hand.lend(PLAIN, lease_id=2)
    hand.core.scheduler.grants[0, 2].depth = 8
    assert of(hand.accept(1, HALF), RunTask)
    assert not of(hand.accept(2, PLAIN, lease_id=2), RunTask)
    assert of(hand.accept(3, HALF), RunTask)
    assert not of(hand.tell(RunReturned(foreign(0, 1), (SMALL,))), RunTask)
    assert only(hand.tell(RunReturned(foreign(0, 3), (SMALL,))), RunTask).task_id == foreign(0, 2)
    hand.tell(RunReturned(foreign(0, 2), (SMALL,)))
    assert hand.core.scheduler.free == {"CPU": RESOURCE_UNIT}


def test_what_a_blocked_run_keeps_is_looked_for_elsewhere(make_core: MakeCore) -> None:
    # Both tasks want all memory of a rank; the first waits for an object that may depend on the second.
    hand = make_core(1, standstill_after_s=9.0)
    greedy = TaskTemplate(9, "greedy", b"", resources=(("memory", 5),))
    hand.core.scheduler.free["memory"] = 5
    total = hand.core.membership.roster[1].resources
    total["memory"] = 5
    hand.lend(greedy)
    hand.core.scheduler.grants[0, 1].depth = 2
    hand.accept(1, greedy, nested=(foreign(2, 7),))
    hand.accept(2, greedy)
    hand.start_waiting(foreign(2, 7), parent=foreign(0, 1))
    effects = hand.wait(hand.core.context.config.hand_back_after_s)
    assert sent(effects) == [(0, LeaseGranted(1, 0)), (0, TasksHandedBack(1, (foreign(0, 2),)))]
    assert not sent(hand.wait(1.0)), "The lease stays closed while the memory is kept."
    effects = hand.lend(owner=2)
    assert sent(effects) == [(2, LeaseGranted(1, 1))], "Others are granted leases meanwhile."
    effects = hand.tell(WaitAbandoned(1), RunReturned(foreign(0, 1), (SMALL,)))
    assert [message.lease_id for rank, message in sent(effects) if isinstance(message, LeaseGranted)] == [1]


def test_a_driver_that_goes_on_while_blocked_runs_keep_what_others_want(make_core: MakeCore) -> None:
    hand = make_core()
    greedy = TaskTemplate(9, "greedy", b"", resources=(("memory", 5),))
    hand.core.scheduler.free["memory"] = 5
    hand.core.membership.roster[0].resources["memory"] = 5
    hand.lend(greedy, owner=1)
    hand.push_to_1()
    hand.start_waiting(hand.own(1))
    hand.wait(hand.core.context.config.driver_lends_after_s)
    hand.core.scheduler.grants[1, 1].depth = 2
    hand.accept(1, greedy, owner=1, nested=(foreign(2, 7),))
    hand.accept(2, greedy, owner=1)
    hand.start_waiting(foreign(2, 7), waiter=2, parent=foreign(1, 1))
    effects = hand.tell(WaitAbandoned(1))
    assert of(effects, TasksHandedBack) == [TasksHandedBack(1, (foreign(1, 2),))]
    hand.tell(WaitAbandoned(2), RunReturned(foreign(1, 1), (SMALL,)))
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.release(hand.own(1))


def test_once_a_run_is_blocked_the_newest_starts_first(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.core.scheduler.grants[0, 1].depth = 8
    hand.accept(1, nested=(foreign(2, 7),))
    for n in (2, 3):
        hand.accept(n)
    effects = hand.start_waiting(foreign(2, 7), parent=foreign(0, 1))
    assert only(effects, RunTask).task_id == foreign(0, 3)
    hand.tell(WaitAbandoned(1), RunReturned(foreign(0, 3), (SMALL,)))
    assert only(hand.tell(RunReturned(foreign(0, 1), (SMALL,))), RunTask).task_id == foreign(0, 2)
    hand.tell(RunReturned(foreign(0, 2), (SMALL,)))


def test_at_the_most_blocked_runs_all_leases_are_closed(make_core: MakeCore) -> None:
    hand = make_core(1, n_blocked_max=1)
    hand.lend()
    hand.core.scheduler.grants[0, 1].depth = 8
    hand.accept(1, nested=(foreign(2, 7),))
    hand.accept(2)
    effects = hand.start_waiting(foreign(2, 7), parent=foreign(0, 1))
    assert [message for rank, message in sent(effects) if rank == 0][1:] == [
        LeaseGranted(1, 0),
        TasksHandedBack(1, (foreign(0, 2),)),
    ]
    effects = hand.wait(hand.core.context.config.hand_back_after_s)
    assert sent(effects) == [(0, LeaseGranted(1, 2, 1))], "What it waits for may be behind it."
    hand.tell(WaitAbandoned(1), RunReturned(foreign(0, 1), (SMALL,)))


@pytest.mark.parametrize(
    ("damage", "sentence"), [("slots", "slots are free"), ("CPU", "Nothing runs, but"), ("grant", "in the wrong list")]
)
def test_check_sees_what_is_wrong(make_core: MakeCore, damage: str, sentence: str) -> None:
    hand = make_core(1)
    hand.may_keep = True
    hand.lend()
    scheduler = hand.core.scheduler
    if damage == "slots":
        scheduler.n_slots_free = 0
    elif damage == "CPU":
        scheduler.free["CPU"] -= 1
    else:
        scheduler.grants[0, 1].depth = 0
    with pytest.raises(InvariantError, match=sentence):
        hand.core.check()
    scheduler.n_slots_free, scheduler.free["CPU"], scheduler.grants[0, 1].depth = 1, 4 * RESOURCE_UNIT, 1
