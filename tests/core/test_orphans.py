"""A rank dies that has called tasks on this one: its runs end, and its leases and functions here are no more."""

from __future__ import annotations

from hpcfut.core.effects import Effect, ForgetTemplate, FreeSegment, InterruptTask
from hpcfut.core.events import RankLost, RunHeldBack, RunRaised, RunReturned, RunYielded, WaitAbandoned
from hpcfut.model.failure import CANCELLED, Failure
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.messages import (
    Argument,
    LeaseGranted,
    LeaseRequested,
    TaskCancelled,
    TaskDone,
    TaskRaised,
    TemplateRegistered,
)
from hpcfut.wire.standstills import WaitersAsked, WaitersReported
from tests.core.cores import GENERATOR, LARGE, PLAIN, SMALL, Hand, MakeCore, foreign, of, only, sent
from tests.core.test_standstills import TAPE, hold_and_wait, with_tapes

ENDED = Failure(CANCELLED)
ON_RANK_3 = TaskTemplate(8, "on rank 3", b"", affinity=3)


def lose(hand: Hand, rank: int) -> list[Effect]:
    """A rank dies."""
    return hand.tell(RankLost(rank, "Its connection was closed."))


def test_what_has_not_started_never_will(make_core: MakeCore) -> None:
    hand = make_core(1, survives_deaths=True)
    hand.lend(owner=2)
    hand.accept(1, owner=2)
    hand.core.scheduler.grants[2, 1].depth = 9
    hand.accept(2, owner=2)
    hand.accept(3, owner=2, arguments=(Argument(foreign(0, 7), None, 0, 10**6),))
    effects = lose(hand, 2)
    assert of(effects, InterruptTask) == [InterruptTask(foreign(2, 1))]
    assert list(hand.core.runs.runs) == [foreign(2, 1)]
    assert not hand.core.scheduler.grants
    hand.core.scheduler.check()
    hand.may_keep = True  # What was to be read for the third.
    assert sent(hand.tell(RunRaised(foreign(2, 1), ENDED, False))) == []
    assert not hand.core.runs.runs


def test_what_runs_is_cancelled_and_all_below(make_core: MakeCore) -> None:
    hand = make_core(1, n_ranks=4, survives_deaths=True)
    hand.lend(owner=2)
    hand.accept(1, owner=2)
    hand.define(ON_RANK_3)
    hand.submit(1, ON_RANK_3, parent=foreign(2, 1))
    hand.grant(3)
    effects = lose(hand, 2)
    assert of(effects, TaskCancelled) == [TaskCancelled(hand.own(1), True)]
    assert of(effects, InterruptTask) == [InterruptTask(foreign(2, 1))]
    hand.get(3, TaskRaised(hand.own(1), ENDED, False))
    hand.submit(2, ON_RANK_3, parent=foreign(2, 1))
    effects = hand.tell(RunReturned(foreign(2, 1), (SMALL,)))
    cancelled = [(3, TaskCancelled(hand.own(2), True))]
    assert sent(effects) == cancelled, "What it has submitted since is not wanted, although it has returned."
    hand.get(3, TaskRaised(hand.own(2), ENDED, False))
    hand.release(hand.own(1), hand.own(2))


def test_the_next_in_line_has_the_room(make_core: MakeCore) -> None:
    hand = make_core(1, survives_deaths=True)
    hand.lend(owner=2)
    hand.accept(1, owner=2)
    hand.core.scheduler.grants[2, 1].depth = 9
    hand.accept(2, owner=2)
    assert of(hand.lend(owner=0), LeaseGranted) == []
    lose(hand, 2)
    effects = hand.tell(RunRaised(foreign(2, 1), ENDED, False))
    assert sent(effects) == [(0, LeaseGranted(1, 1))]


def test_a_lease_that_was_open_for_nobody_is_open_for_others(make_core: MakeCore) -> None:
    hand = make_core(1, survives_deaths=True)
    hand.get(2, TemplateRegistered(PLAIN), LeaseRequested(1, PLAIN.resources))
    hand.get(2, LeaseRequested(2, PLAIN.resources))
    assert of(hand.lend(owner=0), LeaseGranted) == [], "It waits for what rank 2 is going to send."
    assert of(lose(hand, 2), LeaseGranted) == [LeaseGranted(1, 1)]


def test_other_owners_have_deeper_leases(make_core: MakeCore) -> None:
    hand = make_core(1, survives_deaths=True)
    horizon_s = hand.core.context.config.lease_horizon_s
    hand.lend(owner=0)
    for n in range(1, 20):
        hand.accept(n)
        hand.now += horizon_s / 8
        hand.tell(RunReturned(foreign(0, n), (SMALL,)))
    assert of(hand.lend(owner=2), LeaseGranted) == [LeaseGranted(1, 1), LeaseGranted(1, 3)]
    assert [(rank, message) for rank, message in sent(lose(hand, 2)) if isinstance(message, LeaseGranted)] == [
        (0, LeaseGranted(1, 7))
    ]


def test_functions_of_the_dead_are_forgotten_with_their_last_run(make_core: MakeCore) -> None:
    hand = make_core(1, survives_deaths=True)
    hand.lend(owner=2)
    hand.lend(GENERATOR, owner=2, lease_id=2)
    hand.lend(TAPE, owner=0)
    hand.accept(1, owner=2)
    assert of(lose(hand, 2), ForgetTemplate) == [ForgetTemplate(GENERATOR.template_id)]
    effects = hand.tell(RunReturned(foreign(2, 1), (SMALL,)))
    assert of(effects, ForgetTemplate) == [ForgetTemplate(PLAIN.template_id)]
    assert list(hand.core.templates.here) == [TAPE.template_id]


def test_what_is_stored_for_the_dead_goes(make_core: MakeCore) -> None:
    hand = make_core(1, survives_deaths=True)
    hand.lend(owner=2)
    hand.accept(1, owner=2)
    hand.tell(RunReturned(foreign(2, 1), (LARGE,)))
    hand.accept(2, owner=2)
    assert of(lose(hand, 2), FreeSegment) == [FreeSegment(foreign(2, 1), 0)]
    assert of(hand.tell(RunReturned(foreign(2, 2), (LARGE,))), FreeSegment) == [FreeSegment(foreign(2, 2), 0)]


def test_items_for_the_dead_go_as_they_come(make_core: MakeCore) -> None:
    hand = make_core(1, survives_deaths=True)
    hand.lend(GENERATOR, owner=2)
    hand.accept(1, GENERATOR, owner=2, item_ids=(foreign(2, 1), foreign(2, 2)))
    lose(hand, 2)
    effects = hand.tell(RunYielded(foreign(2, 1), foreign(2, 1), LARGE))
    assert effects == [FreeSegment(foreign(2, 1), 0)]
    assert hand.tell(RunYielded(foreign(2, 1), foreign(2, 2), SMALL)) == []
    hand.tell(RunHeldBack(foreign(2, 1)))
    assert hand.tell(RunRaised(foreign(2, 1), ENDED, False)) == [ForgetTemplate(GENERATOR.template_id)]


def test_an_inquiry_begins_anew(make_core: MakeCore) -> None:
    hand = with_tapes(make_core(1, n_ranks=3, n_slots=2, survives_deaths=True))
    hold_and_wait(hand)
    wait_s = hand.core.context.config.standstill_after_s
    nothing = WaitersReported(1, (), (), (), ())
    hand.wait(wait_s)
    hand.get(0, nothing)
    for _ in range(3):
        hand.wait(wait_s)  # The next inquiry would come later and later.
    lose(hand, 2)
    assert hand.get(0, nothing) == []
    assert hand.stale("answer to a finished inquiry") == 1
    asked = [(rank, message) for rank, message in sent(hand.wait(wait_s)) if isinstance(message, WaitersAsked)]
    assert asked == [(0, WaitersAsked(3, ()))]
    hand.get(0, WaitersReported(3, (), (), (), ()))
    hand.may_keep = True
    hand.tell(WaitAbandoned(1), RunReturned(foreign(0, 1), (SMALL,)))


def test_a_run_of_a_live_owner_is_left_alone(make_core: MakeCore) -> None:
    hand = make_core(1, survives_deaths=True)
    hand.lend(owner=0)
    hand.accept(1, owner=0)
    assert of(lose(hand, 2), InterruptTask) == []
    assert only(hand.tell(RunReturned(foreign(0, 1), (SMALL,))), TaskDone)
