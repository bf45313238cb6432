"""Actors as their owner, a caller and the rank of their home see them."""

from __future__ import annotations

from typing import Any

from hpcfut.core.effects import AnswerName, DropActor, InterruptTask, RunTask, WakeWaiter
from hpcfut.core.events import (
    ActorCreated,
    ActorKillWanted,
    MethodCalled,
    NamesListed,
    QueryAbandoned,
    RankLost,
    RefsAdded,
    RefsReleased,
    RunRaised,
    RunReturned,
)
from hpcfut.model.failure import ACTOR_DIED, ACTOR_EXITED, CANCELLED, Failure
from hpcfut.model.template import RESOURCE_UNIT, ActorTemplate, TaskTemplate
from hpcfut.wire.actors import (
    ActorAsked,
    ActorDismissed,
    ActorGone,
    ActorLeft,
    ActorLocated,
    MethodPushed,
    MethodRefused,
)
from hpcfut.wire.messages import LeaseRequested, TaskDone, TaskPushed, TaskRaised, TaskReturned
from tests.core.cores import SMALL, Hand, MakeCore, foreign, of, only, sent, takes
from tests.core.test_references import borrow

CLASS = TaskTemplate(20, "Counter", b"", n_returns=0, actor=ActorTemplate())
LASTING = TaskTemplate(21, "Lasting", b"", n_returns=0, actor=ActorTemplate(n_restarts_max=2))
METHOD = TaskTemplate(22, "Counter.add", b"", resources=(), method="add")
GREEDY_CLASS = TaskTemplate(
    23, "Greedy", b"", n_returns=0, actor=ActorTemplate(), resources=(("CPU", 99 * RESOURCE_UNIT),)
)
THEIRS = foreign(1, 5)
GONE = Failure(ACTOR_DIED, "It is dead.")


def create(hand: Hand, kind: TaskTemplate = CLASS) -> int:
    """``Counter.remote()``: the constructor is sent to rank 1; gives the actor."""
    hand.define(CLASS, LASTING, METHOD, GREEDY_CLASS)
    actor = hand.own(10)
    hand.tell(ActorCreated(actor, kind.template_id, b"create"))
    assert of(hand.grant(1, lease_id=newest_lease(hand)), TaskPushed)
    return actor


def newest_lease(hand: Hand) -> int:
    return max(hand.core.leases.leases)


def construct(hand: Hand, actor: int, rank: int = 1) -> list[Any]:
    """The constructor returns."""
    return hand.get(rank, TaskReturned(actor, ()))


def call(hand: Hand, actor: int, n: int = 30) -> list[Any]:
    """``counter.add.remote()``."""
    task_id = hand.own(n)
    return hand.tell(MethodCalled(task_id, actor, METHOD.template_id, b"call", (task_id,)))


def failure_of(hand: Hand, n: int = 30) -> Failure:
    (value,) = only(hand.start_waiting(hand.own(n)), WakeWaiter).values
    assert isinstance(value, Failure)
    return value


# -- the owner ---------------------------------------------------------------------------------------------------------


@takes("ownership", ("pending", "create"), ("actor", "collect"))
@takes("actor", ("pending", "construct"), ("alive", "die"))
@takes("address", ("new", "ask"), ("asking", "locate"), ("known", "end"))
def test_an_actor_lives_until_its_last_handle_goes(make_core: MakeCore) -> None:
    hand = make_core()
    actor = create(hand)
    assert call(hand, actor) == []
    assert only(construct(hand, actor), MethodPushed) == MethodPushed(hand.own(30), actor, METHOD.template_id, b"call")
    hand.get(1, TaskDone(hand.own(30), b"1"))
    assert only(hand.release(hand.own(30), actor), ActorDismissed).failure.kind == ACTOR_DIED


@takes("actor", ("pending", "die"))
@takes("address", ("asking", "end"))
def test_an_actor_that_no_rank_can_hold(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(GREEDY_CLASS, METHOD)
    actor = hand.own(10)
    hand.tell(ActorCreated(actor, GREEDY_CLASS.template_id, b"create"))
    call(hand, actor)
    assert failure_of(hand).kind == ACTOR_DIED
    hand.release(hand.own(30), actor)


@takes("actor", ("pending", "restart"), ("restarting", "restart"), ("restarting", "construct"))
def test_ranks_die_while_they_construct(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, survives_deaths=True)
    actor = create(hand, LASTING)
    hand.tell(RankLost(1, "killed"))
    hand.grant(2, lease_id=newest_lease(hand))
    hand.tell(RankLost(2, "killed"))
    assert of(hand.grant(3, lease_id=newest_lease(hand)), TaskPushed)
    construct(hand, actor, 3)
    assert hand.core.actors.actors[actor].incarnation == 2
    hand.release(actor)


@takes("actor", ("alive", "restart"), ("restarting", "die"))
@takes("address", ("known", "lose"))
def test_a_rank_dies_and_another_cannot_construct(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    actor = create(hand, LASTING)
    construct(hand, actor)
    assert of(call(hand, actor), MethodPushed)
    assert (2, LeaseRequested(2, LASTING.resources)) in sent(hand.tell(RankLost(1, "killed")))
    hand.grant(2, lease_id=newest_lease(hand))
    assert "at most once" in failure_of(hand).text
    hand.get(2, TaskRaised(actor, Failure("raised", "It raised."), False))
    call(hand, actor, 31)
    assert "could not be started again. It raised." in failure_of(hand, 31).text
    hand.release(hand.own(30), hand.own(31), actor)


def test_a_kill_may_come_late(make_core: MakeCore) -> None:
    hand = make_core()
    actor = create(hand)
    construct(hand, actor)
    hand.tell(ActorKillWanted(actor, is_final=True), ActorKillWanted(actor, is_final=True))
    assert hand.stale("kill of a dead actor") == 1
    hand.get(1, ActorLeft(actor, GONE))
    assert hand.stale("end of an earlier incarnation") == 1
    hand.release(actor)


# -- a caller ----------------------------------------------------------------------------------------------------------


@takes("address", ("known", "locate"))
@takes("task", ("pushed", "refuse"))
def test_calls_move_when_nothing_is_left_of_what_was_sent(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(METHOD)
    borrow(hand, THEIRS, 1)
    assert sent(call(hand, THEIRS)) == [(1, ActorAsked(THEIRS))]
    assert of(hand.get(1, ActorLocated(THEIRS, 2)), MethodPushed)
    hand.get(1, ActorLocated(THEIRS, 1))
    assert call(hand, THEIRS, 31) == []
    pushed = of(hand.get(2, MethodRefused(hand.own(30))), MethodPushed)
    assert [message.task_id for message in pushed] == [hand.own(30), hand.own(31)]
    hand.get(1, TaskDone(hand.own(30), b"1"), TaskDone(hand.own(31), b"2"))
    hand.get(1, ActorGone(THEIRS, GONE), ActorLocated(THEIRS, 1))
    assert hand.stale("place of an actor that is gone") == 1
    hand.get(1, ActorGone(THEIRS, GONE))
    assert hand.stale("end of an actor that is gone") == 1
    hand.release(hand.own(30), hand.own(31), THEIRS)


# -- where it lives ----------------------------------------------------------------------------------------------------


def move_in(hand: Hand) -> int:
    """Rank 0 has an actor constructed here; gives it."""
    hand.lend(CLASS)
    assert only(hand.accept(1, CLASS), RunTask).actor_id == foreign(0, 1)
    hand.tell(RunReturned(foreign(0, 1), ()))
    return foreign(0, 1)


@takes("resident", ("living", "leave"), ("leaving", "go"))
def test_an_actor_is_dismissed(make_core: MakeCore) -> None:
    hand = make_core(1)
    actor = move_in(hand)
    pushed = [MethodPushed(foreign(0, n), actor, METHOD.template_id, b"call") for n in (2, 3)]
    hand.define(METHOD)
    assert [run.task_id for run in of(hand.get(0, *pushed), RunTask)] == [foreign(0, 2)]
    effects = hand.get(0, ActorDismissed(actor, GONE))
    assert of(effects, DropActor) == [DropActor(actor)]
    assert of(effects, InterruptTask) == [InterruptTask(foreign(0, 2), False)]
    assert [message for _, message in sent(effects)] == [
        MethodRefused(foreign(0, 3)),
        TaskRaised(foreign(0, 2), GONE, False),
    ]
    assert sent(hand.get(0, MethodPushed(foreign(0, 4), actor, METHOD.template_id, b"call"))) == [
        (0, MethodRefused(foreign(0, 4)))
    ]
    hand.get(0, ActorDismissed(actor, GONE))
    assert hand.stale("dismissal of an actor that had left") == 1
    assert sent(hand.tell(RunRaised(foreign(0, 2), Failure(CANCELLED), False))) == []


def test_an_actor_ends_itself_while_another_method_runs(make_core: MakeCore) -> None:
    hand = make_core(1)
    kind = TaskTemplate(24, "Pair", b"", n_returns=0, actor=ActorTemplate(groups=(("", 2),)))
    hand.lend(kind)
    hand.accept(1, kind)
    actor = foreign(0, 1)
    hand.tell(RunReturned(actor, ()))
    hand.define(METHOD)
    hand.get(0, *(MethodPushed(foreign(0, n), actor, METHOD.template_id, b"call") for n in (2, 3)))
    effects = hand.tell(RunRaised(foreign(0, 3), Failure(ACTOR_EXITED, "It is dead."), False))
    assert [message for _, message in sent(effects)] == [
        ActorLeft(actor, GONE),
        TaskRaised(foreign(0, 2), GONE, False),
        TaskRaised(foreign(0, 3), GONE, False),
    ]
    hand.tell(RunReturned(foreign(0, 2), (SMALL,)))


def test_what_a_disowned_method_was_given_is_reported(make_core: MakeCore) -> None:
    hand = make_core(1)
    actor, ref = move_in(hand), foreign(2, 7)
    hand.define(METHOD)
    hand.get(0, MethodPushed(foreign(0, 2), actor, METHOD.template_id, b"call", nested=(ref,)))
    hand.tell(RefsAdded([ref]))
    effects = hand.get(0, ActorDismissed(actor, GONE))
    assert only(effects, TaskRaised).borrowed == (ref,)
    hand.tell(RunReturned(foreign(0, 2), (SMALL,)))
    assert [rank for rank, _ in sent(hand.tell(RefsReleased([ref])))] == [2]


def test_the_place_of_an_actor_on_a_rank_that_has_died(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.define(METHOD)
    borrow(hand, THEIRS, 1)
    call(hand, THEIRS)
    hand.tell(RankLost(2, "killed"))
    assert of(hand.get(1, ActorLocated(THEIRS, 2)), MethodPushed) == []
    assert hand.stale("place of an actor whose rank has died") == 1
    hand.get(1, ActorGone(THEIRS, GONE))
    hand.release(hand.own(30), THEIRS)


def test_a_query_is_abandoned_when_it_has_been_answered(make_core: MakeCore) -> None:
    hand = make_core()
    assert of(hand.tell(NamesListed(1)), AnswerName) == [AnswerName(1, [])]
    hand.tell(QueryAbandoned(1))
    assert hand.stale("query that was answered before it was abandoned") == 1
