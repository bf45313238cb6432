"""Fairness on one rank: whose lease is opened when, and whose run starts next."""

from __future__ import annotations

from hpcfut.core.effects import Effect, RunTask
from hpcfut.core.events import RunReturned, WaitAbandoned
from hpcfut.core.grants import EXPECTED_FOR_S
from hpcfut.wire.messages import LeaseGranted, LeaseReturned, TasksHandedBack
from tests.core.cores import SMALL, Hand, MakeCore, foreign, of, only, sent


def granted(effects: list[Effect]) -> list[tuple[int, int]]:
    """(owner, depth) of all grants that are told."""
    return [(rank, message.depth) for rank, message in sent(effects) if isinstance(message, LeaseGranted)]


def finish(hand: Hand, n: int, seconds: float, owner: int = 0) -> list[Effect]:
    """The run of a task ends after so long."""
    hand.now += seconds
    return hand.tell(RunReturned(foreign(owner, n), (SMALL,)))


def test_an_owner_of_many_short_tasks_does_not_keep_others_out(make_core: MakeCore) -> None:
    hand = make_core(1)
    horizon_s = hand.core.context.config.lease_horizon_s
    hand.lend()
    hand.accept(1)
    hand.core.scheduler.grants[0, 1].depth = 9
    hand.accept(2)
    hand.lend(owner=2)
    n, told = 1, list[int]()
    while not told:
        hand.accept(n + 2)  # There is always one more ready than runs.
        told = [owner for owner, depth in granted(finish(hand, n, horizon_s / 8)) if owner == 2]
        n += 1
    assert n < 20, "Its turn comes within a horizon, although no slot is ever free."
    hand.accept(1, owner=2)
    started = only(finish(hand, n, horizon_s / 8), RunTask)
    assert started.task_id == foreign(0, n + 1), "What was ready before comes first."
    assert only(finish(hand, n + 1, horizon_s / 8), RunTask).task_id == foreign(2, 1)
    finish(hand, 1, horizon_s / 8, owner=2)


def test_depths_are_shared_when_another_owner_comes(make_core: MakeCore) -> None:
    hand = make_core(1)
    horizon_s = hand.core.context.config.lease_horizon_s
    hand.lend()
    for n in range(1, 20):
        hand.accept(n)
        finish(hand, n, horizon_s / 8)
    assert hand.core.scheduler.grants[0, 1].depth == 8
    assert granted(hand.lend(owner=2)) == [(2, 1), (0, 3)]
    assert granted(hand.get(2, LeaseReturned(1))) == [(0, 7)]


def test_after_long_tasks_the_owner_that_waited_longest_has_the_slot_alone(make_core: MakeCore) -> None:
    hand = make_core(1, n_ranks=4)
    hand.lend()
    hand.accept(1)
    assert granted(hand.lend(owner=2)) == granted(hand.lend(owner=3)) == []
    assert granted(hand.wait(hand.core.context.config.hand_back_after_s)) == [(0, 0)], "Nothing may queue behind it."
    assert granted(finish(hand, 1, 1.0)) == [(2, 1)]
    hand.accept(1, owner=2)
    assert granted(hand.wait(hand.core.context.config.hand_back_after_s)) == [(2, 0)]
    assert granted(finish(hand, 1, 1.0, owner=2)) == [(3, 1)]
    hand.accept(1, owner=3)
    assert granted(finish(hand, 1, 1.0, owner=3))[:1] == [(0, 1)]


def test_who_has_nothing_left_is_passed_over(make_core: MakeCore) -> None:
    hand = make_core(1, n_ranks=4)
    hand.lend()
    hand.accept(1)
    hand.lend(owner=2)
    hand.wait(hand.core.context.config.hand_back_after_s)
    assert granted(finish(hand, 1, 1.0)) == [(2, 1)]
    assert granted(hand.wait(EXPECTED_FOR_S)) == [(0, 1)], "Rank 2 sends nothing."
    hand.accept(2)
    hand.wait(hand.core.context.config.hand_back_after_s)
    assert granted(finish(hand, 2, 1.0)) == [(0, 1), (2, 1)], "It may have something, but has no turn any more."
    hand.accept(3)
    hand.accept(1, owner=2)
    effects = hand.wait(hand.core.context.config.hand_back_after_s)
    assert of(effects, TasksHandedBack) == [TasksHandedBack(1, (foreign(2, 1),))]
    assert granted(finish(hand, 3, 1.0))[:1] == [(2, 1)], "It has something, and its turn."


def test_a_stream_of_new_runs_over_a_blocked_one_lets_others_in(make_core: MakeCore) -> None:
    hand = make_core(1, n_ranks=4)
    hand.lend()
    hand.accept(1, nested=(foreign(3, 7),))
    hand.start_waiting(foreign(3, 7), parent=foreign(0, 1))
    hand.lend(lease_id=2)
    hand.core.scheduler.grants[0, 2].depth = 9
    hand.core.scheduler._closed.pop((0, 2), None)
    hand.accept(2, lease_id=2)
    hand.lend(owner=2)
    hand.core.scheduler.grants[2, 1].depth = 1
    hand.core.scheduler._closed.pop((2, 1), None)
    hand.accept(1, owner=2)
    started = list[int]()
    for n in range(3, 20):
        hand.accept(n, lease_id=2)
        (run,) = of(finish(hand, n - 1 if not started else started[-1], 0.001), RunTask)
        if run.task_id == foreign(2, 1):
            break
        started.append(run.task_id - foreign(0, 0))
    else:
        raise AssertionError("Rank 2 never had its turn.")
    hand.tell(WaitAbandoned(1), RunReturned(foreign(2, 1), (SMALL,)), RunReturned(foreign(0, 1), (SMALL,)))
    while hand.core.scheduler.running:
        hand.tell(RunReturned(next(iter(hand.core.scheduler.running)), (SMALL,)))
