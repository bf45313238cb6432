"""Generators: items with names given ahead, credit, back-pressure, and how an end is told."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import ResumeGenerator, RunTask, WakeWaiter
from hpcfut.core.events import CancelRequested, RunHeldBack, RunReturned, RunYielded, StreamAdvanced, StreamEndWanted
from hpcfut.core.ownership import PENDING
from hpcfut.core.run import BLOCKED, RUNNING
from hpcfut.model.failure import ENDED, Failure
from hpcfut.model.template import STREAMING, TaskTemplate
from hpcfut.wire.messages import (
    ItemYielded,
    LeaseGranted,
    Result,
    StreamCredit,
    TaskPushed,
    TaskRaised,
    TaskReturned,
    TasksHandedBack,
)
from tests.core.cores import BROKEN, GENERATOR, LARGE, SMALL, Hand, MakeCore, foreign, of, only, sent
from tests.core.test_runs import deepen

RETRIED_GENERATOR = TaskTemplate(7, "retried generator", b"", n_returns=STREAMING, n_retries_max=1)
TASK = foreign(0, 1)


def failures(hand: Hand, *numbers: int) -> list[Failure | None]:
    return [hand.owned(n).failure for n in numbers]


# --- as its owner ---


def test_an_item_is_an_object_as_soon_as_it_is_made(make_core: MakeCore) -> None:
    # The consumer may be two items behind; the third name is kept back for telling the end.
    hand = make_core()
    hand.submit(1, GENERATOR)
    assert only(hand.grant(), TaskPushed).item_ids == (hand.own(1), hand.own(2))
    hand.start_waiting(hand.own(1))
    assert only(hand.get(1, ItemYielded(TASK, hand.own(1), SMALL)), WakeWaiter).values == [SMALL.payload]
    hand.get(1, ItemYielded(TASK, hand.own(2), LARGE))
    hand.get(1, TaskReturned(TASK, ()))
    assert failures(hand, 1, 2, 3) == [None, None, Failure(ENDED)]
    hand.release(*(hand.own(n) for n in (1, 2, 3)))


def test_a_consumer_gives_credit(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(1, GENERATOR)
    hand.get(1, ItemYielded(TASK, hand.own(1), SMALL))
    effects = hand.tell(StreamAdvanced(TASK, (hand.own(4),)))
    assert sent(effects) == [(1, StreamCredit(TASK, (hand.own(3),)))], "Now the fourth name is the one kept back."
    hand.get(1, ItemYielded(TASK, hand.own(2), SMALL), ItemYielded(TASK, hand.own(3), SMALL), TaskReturned(TASK, ()))
    assert failures(hand, 1, 2, 3, 4) == [None, None, None, Failure(ENDED)]
    hand.release(*(hand.own(n) for n in (1, 2, 3, 4)))


def test_a_failure_is_the_last_item_and_then_comes_the_end(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(1, GENERATOR)
    hand.get(1, ItemYielded(TASK, hand.own(1), SMALL), TaskRaised(TASK, BROKEN, False))
    assert failures(hand, 1, 2, 3) == [None, BROKEN, Failure(ENDED)]
    hand.release(*(hand.own(n) for n in (1, 2, 3)))


def test_names_given_after_the_end_tell_it_as_well(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(1, GENERATOR)
    hand.get(1, TaskReturned(TASK, ()))
    assert hand.tell(StreamAdvanced(TASK, (hand.own(4),))) == []
    assert failures(hand, 4) == [Failure(ENDED)]
    hand.release(*(hand.own(n) for n in (1, 2, 3, 4)))


def test_credit_for_a_task_that_waits_goes_with_it(make_core: MakeCore) -> None:
    hand = make_core()
    hand.submit(1, GENERATOR)
    assert hand.tell(StreamAdvanced(TASK, (hand.own(4),))) == []
    assert only(hand.grant(), TaskPushed).item_ids == (hand.own(1), hand.own(2), hand.own(3))
    hand.get(1, TaskReturned(TASK, ()))
    hand.release(*(hand.own(n) for n in (1, 2, 3, 4)))


def test_another_attempt_makes_the_first_items_again_and_throws_them_away(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(RETRIED_GENERATOR)
    hand.push_to_1(1, RETRIED_GENERATOR)
    hand.get(1, ItemYielded(TASK, hand.own(1), SMALL))
    again = only(hand.get(1, TaskRaised(TASK, BROKEN, True)), TaskPushed)
    assert again.item_ids == (0, hand.own(2))
    hand.get(1, ItemYielded(TASK, hand.own(2), SMALL), TaskReturned(TASK, ()))
    assert failures(hand, 1, 2, 3) == [None, None, Failure(ENDED)]
    hand.release(*(hand.own(n) for n in (1, 2, 3)))


def want_end(hand: Hand, n: int, *item_ids: int, failure: Failure | None = None) -> None:
    hand.tell(StreamEndWanted(TASK, hand.own(n), Result(b"nothing", 7), item_ids, failure))


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
def test_who_wants_to_know_the_end_is_told_it(make_core: MakeCore, how: str) -> None:
    hand = make_core()
    hand.submit(1, GENERATOR)
    want_end(hand, 8, hand.own(1))
    hand.start_waiting(hand.own(8))
    if how == "is cancelled":
        effects = hand.tell(CancelRequested(TASK, False))
    else:
        hand.grant()
        hand.get(1, ItemYielded(TASK, hand.own(1), SMALL))
        assert hand.owned(8).state == PENDING
        effects = hand.get(1, TaskReturned(TASK, ()) if how == "returns" else TaskRaised(TASK, BROKEN, False))
    (value,) = only(effects, WakeWaiter).values
    if how == "returns":
        assert value == b"nothing"
    else:
        assert isinstance(value, Failure)
        assert value == (BROKEN if how == "raises" else hand.owned(1).failure)
    hand.release(*(hand.own(n) for n in (1, 2, 3, 8)))


def test_who_asks_after_the_end_is_told_it_as_well(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(1, GENERATOR)
    hand.get(1, ItemYielded(TASK, hand.own(1), SMALL), TaskRaised(TASK, BROKEN, False))
    want_end(hand, 7, *(hand.own(n) for n in (1, 2, 3)))
    want_end(hand, 8, hand.own(3), failure=BROKEN)
    want_end(hand, 9, hand.own(3))
    assert failures(hand, 7, 8, 9) == [BROKEN, BROKEN, None]
    assert hand.owned(9).payload == b"nothing"
    hand.release(*(hand.own(n) for n in (1, 2, 3, 7, 8, 9)))


def test_nobody_may_want_to_know_any_more(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(1, GENERATOR)
    want_end(hand, 8)
    hand.release(hand.own(8))
    hand.get(1, TaskReturned(TASK, ()))
    hand.release(*(hand.own(n) for n in (1, 2, 3)))


# --- where it runs ---


def run_generator(hand: Hand, *item_ids: int) -> None:
    deepen_generator(hand)
    assert only(hand.accept(1, GENERATOR, item_ids=item_ids), RunTask).item_ids == item_ids


def deepen_generator(hand: Hand) -> None:
    hand.lend(GENERATOR)
    deepen(hand, lease_id=2)


def test_an_item_leaves_as_it_is_made(make_core: MakeCore) -> None:
    hand = make_core(1)
    run_generator(hand, 0, TASK)
    assert hand.tell(RunYielded(TASK, 0, SMALL)) == [], "The owner has the first one from an earlier attempt."
    assert sent(hand.tell(RunYielded(TASK, TASK, SMALL))) == [(0, ItemYielded(TASK, TASK, SMALL))]
    assert only(hand.tell(RunReturned(TASK, ())), TaskReturned).results == ()


def test_a_generator_without_credit_gives_its_slot_away(make_core: MakeCore) -> None:
    hand = make_core(1)
    run_generator(hand, TASK)
    hand.tell(RunYielded(TASK, TASK, SMALL))
    effects = hand.tell(RunHeldBack(TASK))
    assert hand.core.runs.runs[TASK].state == BLOCKED
    assert (0, LeaseGranted(1, 2, 1)) in sent(effects)
    assert only(hand.accept(5, lease_id=2), RunTask)
    assert hand.get(0, StreamCredit(TASK, (foreign(0, 2),))) == [ResumeGenerator(TASK, 1, (foreign(0, 2),))]
    assert hand.core.runs.runs[TASK].state == RUNNING
    hand.tell(RunReturned(TASK, ()), RunReturned(foreign(0, 5), (SMALL,)))


def test_credit_may_cross_the_news_that_it_is_needed(make_core: MakeCore) -> None:
    hand = make_core(1)
    run_generator(hand, TASK)
    hand.tell(RunYielded(TASK, TASK, SMALL))
    resume = ResumeGenerator(TASK, 1, (foreign(0, 2),))
    assert hand.get(0, StreamCredit(TASK, (foreign(0, 2),))) == [resume]
    assert hand.tell(RunHeldBack(TASK)) == [resume]
    assert hand.stale("generator held back after credit had come") == 1
    assert hand.core.runs.runs[TASK].state == RUNNING
    hand.tell(RunReturned(TASK, ()))


def test_credit_that_came_before_the_code_began_is_told_again(make_core: MakeCore) -> None:
    # Another attempt: the consumer went on taking the items of the first one.
    hand = make_core(1)
    run_generator(hand, 0, TASK)
    assert hand.get(0, StreamCredit(TASK, (foreign(0, 2),))) == [ResumeGenerator(TASK, 2, (foreign(0, 2),))]
    assert hand.get(0, StreamCredit(TASK, (foreign(0, 3),))) == [ResumeGenerator(TASK, 3, (foreign(0, 3),))]
    hand.tell(RunYielded(TASK, 0, SMALL), RunYielded(TASK, TASK, SMALL))
    again = ResumeGenerator(TASK, 2, (foreign(0, 2), foreign(0, 3)))
    assert hand.tell(RunHeldBack(TASK)) == [again], "Nobody was there to hear it."
    hand.tell(RunReturned(TASK, ()))


def test_credit_for_a_run_that_has_not_started_is_added_to_its_names(make_core: MakeCore) -> None:
    hand = make_core(1)
    deepen_generator(hand)
    hand.accept(5, lease_id=2)
    hand.accept(1, GENERATOR, lease_id=2, item_ids=(TASK,))
    assert hand.get(0, StreamCredit(TASK, (foreign(0, 2),))) == []
    started = only(hand.tell(RunReturned(foreign(0, 5), (SMALL,))), RunTask)
    assert started.item_ids == (TASK, foreign(0, 2))
    hand.tell(RunReturned(TASK, ()))


def test_credit_may_come_too_late(make_core: MakeCore) -> None:
    hand = make_core(1)
    run_generator(hand, TASK)
    hand.tell(RunReturned(TASK, ()))
    assert hand.get(0, StreamCredit(TASK, (foreign(0, 2),))) == []
    assert hand.stale("credit for an ended generator") == 1


def test_a_generator_that_was_handed_back_gets_all_its_names_again(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(1, GENERATOR)
    hand.tell(StreamAdvanced(TASK, (hand.own(4),)))
    again = of(hand.get(1, TasksHandedBack(1, (TASK,))), TaskPushed)
    assert [pushed.item_ids for pushed in again] == [(hand.own(1), hand.own(2), hand.own(3))]
    hand.get(1, TaskReturned(TASK, ()))
    hand.release(*(hand.own(n) for n in (1, 2, 3, 4)))
