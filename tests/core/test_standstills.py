"""Standstills as one rank sees them: what it asks, what it answers, and what it makes of it."""

from __future__ import annotations

import msgspec
import pytest

from hpcfut.core.effects import InterruptTask, RunTask
from hpcfut.core.events import RankLost, RunReturned, WaitAbandoned, WaitStarted
from hpcfut.model.failure import UNSCHEDULABLE
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.model.waiting import BlockedRun, BlockedWait, QueuedTask
from hpcfut.wire.messages import TaskCancelled
from hpcfut.wire.standstills import StandstillFound, WaitersAsked, WaitersReported
from tests.core.cores import PLAIN, SMALL, Hand, MakeCore, foreign, of, sent, takes

TAPE = TaskTemplate(9, "record", b"", resources=(("CPU", RESOURCE_UNIT), ("tape", RESOURCE_UNIT)))


def with_tapes(hand: Hand) -> Hand:
    """Every rank has a tape."""
    for record in hand.core.membership.roster:
        record.resources["tape"] = RESOURCE_UNIT
    hand.core.scheduler.free["tape"] = RESOURCE_UNIT
    return hand


def hold_and_wait(hand: Hand) -> None:
    """A task of rank 0 holds the tape of this rank, and waits for a child that needs one."""
    hand.lend(TAPE)
    hand.accept(1, TAPE)
    hand.define(TAPE)
    hand.submit(1, TAPE, parent=foreign(0, 1))
    hand.tell(WaitStarted(1, [hand.own(1)], 1, True, True, foreign(0, 1), True))


def end(hand: Hand) -> None:
    """The task goes on, and ends."""
    hand.tell(WaitAbandoned(1), RunReturned(foreign(0, 1), (SMALL,)))


def test_a_gpu_is_held_like_anything_else(make_core: MakeCore) -> None:
    on_gpu = TaskTemplate(10, "train", b"", resources=(("CPU", RESOURCE_UNIT), ("GPU", RESOURCE_UNIT)))
    hand = make_core(1, n_ranks=2, n_slots=2)
    amounts = {"CPU": 4 * RESOURCE_UNIT, "GPU": RESOURCE_UNIT}
    other, own = hand.core.membership.roster
    hand.core.membership.roster = (other, msgspec.structs.replace(own, resources=amounts))
    hand.core.scheduler.free.update(amounts)
    hand.may_keep = True
    hand.lend(on_gpu)
    hand.accept(1, on_gpu)
    hand.define(on_gpu)
    hand.submit(1, on_gpu, parent=foreign(0, 1))
    hand.tell(WaitStarted(1, [hand.own(1)], 1, True, True, foreign(0, 1), True))
    hand.wait(hand.core.context.config.standstill_after_s)
    for number in (1, 2):
        hand.get(0, WaitersReported(number, (), (), (), ()))
    failure = hand.owned(1).failure
    assert failure is not None
    assert failure.kind == UNSCHEDULABLE
    assert "asks for GPU 1" in failure.text
    assert "train on rank 1 (GPU 1)" in failure.text
    end(hand)


@takes("task", ("queued", "give up"))
def test_two_rounds_that_agree(make_core: MakeCore) -> None:
    hand = with_tapes(make_core(1, n_ranks=2, n_slots=2))
    hand.may_keep = True
    hold_and_wait(hand)
    wait_s = hand.core.context.config.standstill_after_s
    assert of(hand.wait(wait_s), WaitersAsked) == [WaitersAsked(1, ())]
    other = BlockedRun(foreign(0, 5), "other", (("tape", RESOURCE_UNIT),), (BlockedWait(3, 1, (foreign(0, 6),)),))
    queued = QueuedTask(foreign(0, 6), "record", TAPE.key)
    report = ((other,), (queued,), (), ((foreign(0, 6), foreign(0, 6)),))
    assert of(hand.get(0, WaitersReported(1, *report)), WaitersAsked) == [WaitersAsked(2, ())]
    effects = hand.get(0, WaitersReported(2, *report))
    (found,) = of(effects, StandstillFound)
    assert found.task_id == foreign(0, 6)
    failure = hand.owned(1).failure
    assert failure is not None
    assert failure.kind == UNSCHEDULABLE
    assert "record on rank 1 (tape 1), other on rank 0 (tape 1)" in failure.text
    hand.tell(RunReturned(foreign(0, 1), (SMALL,)))


def test_a_wait_that_changed_between_the_rounds(make_core: MakeCore) -> None:
    hand = with_tapes(make_core(1, n_ranks=2, n_slots=2))
    hand.may_keep = True
    hold_and_wait(hand)
    hand.wait(hand.core.context.config.standstill_after_s)
    makers = ((foreign(0, 6), foreign(0, 6)),)
    for number in range(1, 4):
        wait = BlockedWait(number, 1, (foreign(0, 6),))
        other = BlockedRun(foreign(0, 5), "other", (("tape", RESOURCE_UNIT),), (wait,))
        queued = QueuedTask(foreign(0, 6), "record", TAPE.key)
        effects = hand.get(0, WaitersReported(number, (other,), (queued,), (), makers))
        assert not of(effects, StandstillFound)
        assert of(effects, WaitersAsked) == [WaitersAsked(number + 1, ())]
    assert not of(hand.get(0, WaitersReported(4, (), (), (), ())), WaitersAsked), "Its tape may become free."
    hand.get(0, WaitersReported(4, (), (), (), ()))
    end(hand)


def test_what_is_told_of_the_own_rank(make_core: MakeCore) -> None:
    hand = with_tapes(make_core(1, n_ranks=2, n_slots=2))
    hand.may_keep = True
    hold_and_wait(hand)
    ((_, answer),) = [pair for pair in sent(hand.get(0, WaitersAsked(7, ()))) if isinstance(pair[1], WaitersReported)]
    child = hand.own(1)
    held = (("tape", RESOURCE_UNIT),)
    waits = (BlockedWait(1, 1, (child,)),)
    run = BlockedRun(foreign(0, 1), "record", held, waits)
    assert answer == WaitersReported(7, (run,), (QueuedTask(child, "record", TAPE.key),), (), ((child, child),))
    end(hand)


def test_a_cancelled_task_cannot_leave_before_what_runs_on_its_stack(make_core: MakeCore) -> None:
    hand = with_tapes(make_core(1, n_ranks=2))
    hand.may_keep = True
    hand.lend(TAPE)
    hand.accept(1, TAPE)
    hand.define(TAPE, PLAIN)
    parent, middle, leaf = foreign(0, 1), hand.own(1), hand.own(2)
    hand.submit(1, PLAIN, parent=parent)
    started = hand.tell(WaitStarted(1, [middle], 1, True, True, parent, True))
    assert [run.waiter_id for run in of(started, RunTask)] == [1]
    hand.submit(2, TAPE, parent=middle)
    hand.tell(WaitStarted(2, [leaf], 1, True, True, middle, True))
    assert of(hand.get(0, TaskCancelled(parent, recursive=False)), InterruptTask)
    (answer,) = of(hand.get(0, WaitersAsked(7, ())), WaitersReported)
    assert {run.task_id: run.waits for run in answer.runs} == {
        parent: (BlockedWait(1, 1, (middle,)),),
        middle: (BlockedWait(2, 1, (leaf,)),),
    }
    hand.tell(WaitAbandoned(2), RunReturned(middle, (SMALL,)))
    assert of(hand.get(0, WaitersAsked(8, ())), WaitersReported)[0].runs == (), "It is about to leave."
    hand.tell(WaitAbandoned(1), RunReturned(parent, (SMALL,)))


def test_answers_and_verdicts_that_come_late(make_core: MakeCore) -> None:
    hand = with_tapes(make_core(1, n_ranks=2, n_slots=2))
    hand.get(0, WaitersReported(1, (), (), (), ()))
    assert hand.stale("answer to a finished inquiry") == 1
    hand.get(0, StandstillFound(hand.own(1), "It was long ago.", (0, 1)))
    assert hand.stale("standstill that was over") == 1


@pytest.mark.parametrize("is_late", [True, False])
def test_a_verdict_of_a_rank_that_has_not_heard_of_a_death(make_core: MakeCore, is_late: bool) -> None:
    hand = make_core(1, n_slots=1, survives_deaths=True)
    elsewhere = msgspec.structs.replace(TAPE, affinity=0)
    with_tapes(hand).define(elsewhere)
    hand.submit(1, elsewhere)
    hand.tell(RankLost(2, "It was killed"))
    hand.get(0, StandstillFound(hand.own(1), "Rank 2 had the tape.", (0, 1, 2) if is_late else (0, 1)))
    assert hand.stale("standstill among other ranks") == is_late
    assert (hand.owned(1).failure is None) == is_late
    hand.may_keep = True


def test_who_holds_cores_only_suspects_nothing(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1, nested=(foreign(2, 7),))
    hand.tell(WaitStarted(1, [foreign(2, 7)], 1, True, True, foreign(0, 1), True))
    assert not sent(hand.wait(60.0))
    hand.tell(WaitAbandoned(1), RunReturned(foreign(0, 1), (SMALL,)))
