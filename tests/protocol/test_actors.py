"""Actors between ranks: each test is a small user program, told above it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcfut.core.events import (
    ActorKillWanted,
    CancelRequested,
    NameClaimed,
    NameGivenBack,
    NamesListed,
    NameSought,
    OwnActorHeld,
    QueryAbandoned,
    TemplateDropped,
)
from hpcfut.model.failure import ACTOR_DIED, ACTOR_EXITED, ACTOR_UNAVAILABLE, CANCELLED, RAISED, UNSCHEDULABLE, Failure
from hpcfut.model.named import NamedActor
from hpcfut.model.template import RESOURCE_UNIT, STREAMING
from hpcfut.wire.actors import ActorAsked, ActorLocated, MethodPushed, MethodRefused
from hpcfut.wire.messages import BorrowAdded, TaskPushed
from tests.protocol.wired import Ranks

MakeRanks = Callable[..., Ranks]


@pytest.fixture
def mortal(make_ranks: MakeRanks) -> Ranks:
    """Three ranks on three hosts, in a job that survives deaths."""
    return make_ranks(survives_deaths=True)


def failure_of(ranks: Ranks, ref: int, rank: int = 0) -> Failure:
    value = ranks.value(rank, ref)
    assert isinstance(value, Failure)
    return value


def home_of(ranks: Ranks, actor: int) -> int:
    (home,) = [rank for rank, actor_id in ranks.begun if actor_id == actor]
    return home


def test_an_actor_is_called_where_it_was_constructed(ranks: Ranks) -> None:
    # counter = Counter.remote(); get(counter.add.remote())
    actor = ranks.create(ranks.actor_class())
    assert home_of(ranks, actor) == 1
    ref = ranks.call_method(actor, ranks.method())
    assert ranks.running == {ref: 1}
    ranks.returns(ref, b"1")
    assert ranks.value(0, ref) == b"1"
    assert ranks.sent(ActorAsked) == ranks.sent(ActorLocated) == []  # The owner asks itself.
    ranks.drop(0, ref, actor)
    assert not ranks.begun


def test_calls_before_the_constructor_has_returned_wait_in_order(ranks: Ranks) -> None:
    # counter = Counter.remote(); refs = [counter.add.remote() for _ in range(3)]
    actor = ranks.create(ranks.actor_class(), runs=False)
    method = ranks.method()
    refs = [ranks.call_method(actor, method) for _ in range(3)]
    assert ranks.running == {actor: 1}
    ranks.ends(actor)
    for ref in refs:
        assert ranks.running == {ref: 1}  # One at a time.
        ranks.returns(ref)
    assert ranks.begun[1, actor] == refs
    ranks.drop(0, *refs, actor)


def test_a_call_whose_argument_is_not_ready_holds_up_those_behind_it(ranks: Ranks) -> None:
    # a = counter.add.remote(slow.remote()); b = counter.add.remote()
    actor, method = ranks.create(ranks.actor_class()), ranks.method()
    slow = ranks.call(ranks.function(on=2))
    refs = [ranks.call_method(actor, method, (slow,)), ranks.call_method(actor, method)]
    assert not ranks.begun[1, actor]
    ranks.returns(slow, b"value")
    for ref in refs:
        ranks.returns(ref)
    assert ranks.begun[1, actor] == refs
    ranks.drop(0, *refs, slow, actor)


def test_a_method_that_may_begin_out_of_order_overtakes(ranks: Ranks) -> None:
    # allow_out_of_order_execution=True
    actor, method = ranks.create(ranks.actor_class()), ranks.method(is_ordered=False)
    slow = ranks.call(ranks.function(on=2))
    refs = [ranks.call_method(actor, method, (slow,)), ranks.call_method(actor, method)]
    assert ranks.begun[1, actor] == refs[1:]
    ranks.returns(refs[1])
    ranks.returns(slow, b"value")
    ranks.returns(refs[0])
    ranks.drop(0, *refs, slow, actor)


def test_a_call_whose_argument_is_read_there_holds_up_its_caller_only(ranks: Ranks) -> None:
    # a = counter.add.remote(large); b = counter.add.remote()     # and another rank calls meanwhile
    actor, method = ranks.create(ranks.actor_class()), ranks.method()
    large = ranks.put(0, is_large=True)
    ranks.jammed.append((0, 1))
    refs = [ranks.call_method(actor, method, (large,)), ranks.call_method(actor, method)]
    task = ranks.call(ranks.function(on=2), nested=(actor,))
    ranks.hold(2, actor)
    other = ranks.call_method(actor, ranks.method(2))
    assert ranks.begun[1, actor] == [other]
    ranks.returns(other)
    ranks.unjam()
    for ref in refs:
        ranks.returns(ref)
    assert ranks.begun[1, actor] == [other, *refs]
    ranks.returns(task)
    ranks.drop(2, other, actor)
    ranks.drop(0, *refs, large, task, actor)


def test_a_borrower_asks_once_where_the_actor_is(ranks: Ranks) -> None:
    # f.remote(counter)          # def f(counter): counter.add.remote(); counter.add.remote()
    actor = ranks.create(ranks.actor_class(on=1))
    task = ranks.call(ranks.function(on=2), nested=(actor,))
    ranks.hold(2, actor)
    method = ranks.method(2)
    refs = [ranks.call_method(actor, method), ranks.call_method(actor, method)]
    assert ranks.sent(ActorAsked) == [ActorAsked(actor)]
    assert len(ranks.sent(MethodPushed, 2)) == 2
    for ref in refs:
        ranks.returns(ref)
    ranks.drop(2, *refs, actor)
    ranks.returns(task)
    ranks.drop(0, task, actor)


def test_an_actor_lives_while_a_borrower_holds_it(ranks: Ranks) -> None:
    # ref = f.remote(counter); del counter            # the task keeps the handle
    actor = ranks.create(ranks.actor_class(on=1))
    task = ranks.call(ranks.function(on=2), nested=(actor,))
    ranks.hold(2, actor)
    ranks.drop(0, actor)
    ranks.returns(task)
    assert ranks.sent(BorrowAdded) == []
    ref = ranks.call_method(actor, ranks.method(2))
    ranks.returns(ref, b"1")
    assert ranks.value(2, ref) == b"1"
    ranks.drop(2, ref)
    assert ranks.begun
    ranks.drop(2, actor)
    assert not ranks.begun
    ranks.drop(0, task)


def test_a_call_keeps_its_actor(ranks: Ranks) -> None:
    # ref = Counter.remote().add.remote(); get(ref)
    actor = ranks.create(ranks.actor_class(), runs=False)
    ref = ranks.call_method(actor, ranks.method())
    ranks.drop(0, actor)
    ranks.ends(actor)
    ranks.returns(ref, b"1")
    assert ranks.value(0, ref) == b"1"
    assert not ranks.begun
    ranks.drop(0, ref)


def test_an_actor_that_nobody_holds_is_not_constructed(ranks: Ranks) -> None:
    # Counter.remote(slow.remote())
    slow = ranks.call(ranks.function(on=2))
    actor = ranks.create(ranks.actor_class(), (slow,), runs=False)
    ranks.drop(0, actor)
    ranks.returns(slow)
    assert not ranks.running
    ranks.drop(0, slow)


def test_a_constructor_that_nobody_waits_for_any_more_is_interrupted(ranks: Ranks) -> None:
    # Counter.remote()
    actor = ranks.create(ranks.actor_class(), runs=False)
    ranks.drop(0, actor)
    assert ranks.interrupted == [actor]
    ranks.ends(actor)  # It has returned all the same.
    assert not ranks.begun


def test_a_constructor_that_raises_fails_all_calls(ranks: Ranks) -> None:
    # counter = Counter.remote(); ref = counter.add.remote(); get(ref)
    actor, method = ranks.create(ranks.actor_class(name="Counter"), runs=False), ranks.method()
    ref = ranks.call_method(actor, method)
    ranks.raises(actor, Failure(RAISED, "Task Counter raised on rank 1:\nZeroDivisionError"))
    failure = failure_of(ranks, ref)
    assert failure.kind == ACTOR_DIED
    assert "(Counter) never came to be. Task Counter raised on rank 1:\nZeroDivisionError" in failure.text
    later = ranks.call_method(actor, method)
    assert failure_of(ranks, later) == failure
    ranks.drop(0, ref, later, actor)


def test_an_actor_that_no_rank_can_hold(ranks: Ranks) -> None:
    # Counter.options(num_cpus=99).remote()
    kind = ranks.actor_class(resources=(("CPU", 99 * RESOURCE_UNIT),))
    actor = ranks.create(kind, runs=False)
    ref = ranks.call_method(actor, ranks.method())
    failure = failure_of(ranks, ref)
    assert failure.kind == ACTOR_DIED
    assert "no rank of the job can ever give it CPU" in failure.text
    ranks.drop(0, ref, actor)


def test_an_actor_holds_its_resources_for_life(make_ranks: MakeRanks) -> None:
    # a = Counter.options(num_cpus=4).remote(); f.options(num_cpus=1).remote()
    ranks = make_ranks(2)
    held = (("CPU", 4 * RESOURCE_UNIT),)
    actor = ranks.create(ranks.actor_class(on=1, resources=held, held=held))
    assert ranks.hands[1].core.scheduler.free["CPU"] == 0
    task = ranks.call(ranks.function(on=1))
    assert not ranks.running
    ranks.drop(0, actor)
    assert ranks.running == {task: 1}
    ranks.returns(task)
    ranks.drop(0, task)


def test_methods_take_no_slot(ranks: Ranks) -> None:
    # a = actor.method.remote(); b = f.remote()          # both on rank 1
    actor = ranks.create(ranks.actor_class(on=1))
    ref = ranks.call_method(actor, ranks.method())
    task = ranks.call(ranks.function(on=1))
    assert ranks.running == {ref: 1, task: 1}
    ranks.returns(task)
    ranks.returns(ref)
    ranks.drop(0, ref, task, actor)


def test_as_many_at_a_time_as_the_group_allows(ranks: Ranks) -> None:
    # concurrency_groups={"io": 2}
    actor = ranks.create(ranks.actor_class(groups=(("", 1), ("io", 2))))
    plain, io = ranks.method(), ranks.method(group="io")
    refs = [ranks.call_method(actor, io) for _ in range(3)] + [ranks.call_method(actor, plain) for _ in range(2)]
    assert list(ranks.running) == [refs[0], refs[1], refs[3]]
    ranks.returns(refs[0])
    assert list(ranks.running) == [refs[1], refs[3], refs[2]]
    for ref in (refs[3], refs[4], refs[2], refs[1]):
        ranks.returns(ref)
    ranks.drop(0, *refs, actor)


def test_a_blocked_method_keeps_its_turn(ranks: Ranks) -> None:
    # def method(self): get(f.remote())
    actor, method = ranks.create(ranks.actor_class(on=1)), ranks.method()
    refs = [ranks.call_method(actor, method) for _ in range(2)]
    inner = ranks.call(ranks.function(1, on=2), parent=refs[0])
    ranks.get(1, inner, parent=refs[0])
    assert ranks.running == {refs[0]: 1, inner: 2}
    ranks.returns(inner)
    ranks.drop(1, inner)
    ranks.returns(refs[0])
    assert ranks.running == {refs[1]: 1}
    ranks.returns(refs[1])
    ranks.drop(0, *refs, actor)


def test_a_generator_method(ranks: Ranks) -> None:
    # for ref in actor.items.remote(): …
    actor = ranks.create(ranks.actor_class())
    ref = ranks.call_method(actor, ranks.method(n_returns=STREAMING))
    items = [ranks.yields(ref), ranks.yields(ref, is_large=True)]
    ranks.ends(ref)
    assert ranks.value(0, items[0]) == b"item"
    ranks.drop(0, items[0], items[1], items[1] + 1, actor)


def test_killed(ranks: Ranks) -> None:
    # refs = [actor.method.remote() for _ in range(2)]; kill(actor); actor.method.remote()
    actor, method = ranks.create(ranks.actor_class(name="Counter")), ranks.method()
    refs = [ranks.call_method(actor, method) for _ in range(2)]
    ranks.tell(0, ActorKillWanted(actor, is_final=True))
    ranks.settle()
    for ref in (*refs, later := ranks.call_method(actor, method)):
        failure = failure_of(ranks, ref)
        assert failure.kind == ACTOR_DIED
        assert failure.text.endswith("(Counter) was killed with kill().")
    assert ranks.interrupted == [refs[0]]
    ranks.returns(refs[0], is_large=True)  # Its code cannot be stopped so soon; nobody wants what it gives.
    ranks.drop(0, *refs, later, actor)


def test_a_method_ends_after_its_caller_has_forgotten_it(ranks: Ranks) -> None:
    # ref = actor.method.remote(); kill(actor); del actor, ref            # its code cannot be stopped so soon
    actor, method = ranks.create(ranks.actor_class()), ranks.method()
    ref = ranks.call_method(actor, method)
    ranks.tell(0, ActorKillWanted(actor, is_final=True))
    ranks.settle()
    ranks.tell(0, TemplateDropped(method.template_id))
    ranks.settle()
    core = ranks.hands[1].core
    assert core.template(method.template_id) == method
    ranks.raises(ref, Failure(CANCELLED))
    assert method.template_id not in core.templates.here
    ranks.drop(0, ref, actor)


def test_killed_by_a_borrower_and_started_again(ranks: Ranks) -> None:
    # kill(actor, no_restart=False)                  # what had not begun goes to the new incarnation
    actor, method = ranks.create(ranks.actor_class(n_restarts_max=1)), ranks.method()
    task = ranks.call(ranks.function(on=2), nested=(actor,))
    ranks.hold(2, actor)
    refs = [ranks.call_method(actor, method) for _ in range(3)]
    ranks.tell(2, ActorKillWanted(actor, is_final=False))
    ranks.settle()
    assert failure_of(ranks, refs[0]).kind == ACTOR_UNAVAILABLE
    ranks.raises(refs[0], Failure(CANCELLED))
    ranks.ends(actor)
    assert len(ranks.sent(MethodRefused)) == 2
    for ref in refs[1:]:
        ranks.returns(ref, b"again")
        assert ranks.value(0, ref) == b"again"
    assert ranks.begun[home_of(ranks, actor), actor] == refs[1:]
    ranks.tell(2, ActorKillWanted(actor, is_final=False))  # That was its last life.
    ranks.settle()
    last = ranks.call_method(actor, method)
    assert failure_of(ranks, last).kind == ACTOR_DIED
    ranks.returns(task)
    ranks.drop(2, actor)
    ranks.drop(0, *refs, last, task, actor)


def test_killed_while_it_is_constructed(ranks: Ranks) -> None:
    # actor = Counter.remote(); kill(actor)
    actor, method = ranks.create(ranks.actor_class(n_restarts_max=5), runs=False), ranks.method()
    ref = ranks.call_method(actor, method)
    ranks.tell(0, ActorKillWanted(actor, is_final=True))
    ranks.settle()
    assert failure_of(ranks, ref).kind == ACTOR_DIED
    ranks.raises(actor, Failure(CANCELLED))
    ranks.drop(0, ref, actor)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_killed_while_it_is_constructed_and_started_again(ranks: Ranks, is_stopped: bool) -> None:
    # actor = Counter.remote(); kill(actor, no_restart=False)
    actor, method = ranks.create(ranks.actor_class(n_restarts_max=1), runs=False), ranks.method()
    ref = ranks.call_method(actor, method)
    ranks.tell(0, ActorKillWanted(actor, is_final=False))
    ranks.settle()
    assert ranks.interrupted == [actor]
    if is_stopped:
        ranks.raises(actor, Failure(CANCELLED))
    else:
        ranks.ends(actor)  # Its constructor returns all the same.
    ranks.ends(actor)
    ranks.returns(ref, b"1")
    assert ranks.value(0, ref) == b"1"
    ranks.drop(0, ref, actor)


def test_an_actor_ends_itself(ranks: Ranks) -> None:
    # def method(self): exit_actor()
    actor, method = ranks.create(ranks.actor_class(n_restarts_max=5)), ranks.method(n_retries_max=5)
    refs = [ranks.call_method(actor, method) for _ in range(2)]
    ranks.raises(refs[0], Failure(ACTOR_EXITED, "It ended itself."))
    for ref in refs:
        assert failure_of(ranks, ref) == Failure(ACTOR_DIED, "It ended itself.")
    assert not ranks.begun
    ranks.drop(0, *refs, actor)


def test_a_constructor_that_never_returns(ranks: Ranks) -> None:
    # class Counter: def __init__(self): while True: …
    actor = ranks.create(ranks.actor_class(name="Counter", start_within_s=5.0), runs=False)
    ref = ranks.call_method(actor, ranks.method())
    for _ in range(2):
        ranks.pass_time(4.0)
        assert not ranks.interrupted
    ranks.pass_time(6.0)
    assert "its constructor has not returned within 5 s on rank 1" in failure_of(ranks, ref).text
    assert ranks.interrupted == [actor]
    ranks.raises(actor, Failure(CANCELLED))
    ranks.drop(0, ref, actor)


def test_a_call_is_cancelled_before_it_was_sent(ranks: Ranks) -> None:
    # cancel(ref)
    actor, method = ranks.create(ranks.actor_class(), runs=False), ranks.method()
    refs = [ranks.call_method(actor, method) for _ in range(2)]
    ranks.tell(0, CancelRequested(refs[0], is_recursive=False))
    ranks.ends(actor)
    assert failure_of(ranks, refs[0]).kind == CANCELLED
    assert list(ranks.running) == refs[1:]
    ranks.returns(refs[1])
    ranks.drop(0, *refs, actor)


def test_a_call_is_cancelled_before_it_has_begun_and_another_while_it_runs(ranks: Ranks) -> None:
    actor, method = ranks.create(ranks.actor_class()), ranks.method()
    refs = [ranks.call_method(actor, method) for _ in range(3)]
    for ref in refs[:2]:
        ranks.tell(0, CancelRequested(ref, is_recursive=False))
    ranks.settle()
    assert failure_of(ranks, refs[1]).kind == CANCELLED
    assert ranks.interrupted == refs[:1]
    ranks.raises(refs[0], Failure(CANCELLED))
    assert list(ranks.running) == refs[2:]
    ranks.returns(refs[2])
    ranks.drop(0, *refs, actor)


def test_a_method_is_tried_again_if_it_may(ranks: Ranks) -> None:
    # max_task_retries=1, retry_exceptions=True
    actor, method = ranks.create(ranks.actor_class()), ranks.method(n_retries_max=1)
    refs = [ranks.call_method(actor, method) for _ in range(2)]
    ranks.raises(refs[0], Failure(RAISED, "it raised"), is_retriable=True)
    ranks.returns(refs[1])
    ranks.returns(refs[0], b"1")
    assert ranks.value(0, refs[0]) == b"1"
    ranks.drop(0, *refs, actor)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_calls_go_on_behind_one_that_never_began(ranks: Ranks, is_cancelled: bool) -> None:
    # a = actor.method.remote(slow.remote()); b = actor.method.remote()            # slow raises, or a is cancelled
    actor, method = ranks.create(ranks.actor_class()), ranks.method()
    slow = ranks.call(ranks.function(on=2))
    refs = [ranks.call_method(actor, method, (slow,)), ranks.call_method(actor, method)]
    if is_cancelled:
        ranks.tell(0, CancelRequested(refs[0], is_recursive=False))
        ranks.settle()
    ranks.raises(slow, Failure(RAISED, "no"))
    assert list(ranks.running) == refs[1:]
    ranks.returns(refs[1])
    ranks.drop(0, *refs, slow, actor)


def test_an_actor_ends_with_its_last_call_where_all_are_on_one_rank(ranks: Ranks) -> None:
    # ref = Counter.remote().add.remote()
    actor, method = ranks.create(ranks.actor_class(1, on=1)), ranks.method(1)
    ref = ranks.call_method(actor, method)
    ranks.drop(1, actor)
    ranks.returns(ref)
    assert not ranks.begun
    ranks.drop(1, ref)


def test_an_actor_is_started_again_where_its_old_life_has_not_ended(ranks: Ranks) -> None:
    # kill(actor, no_restart=False)            # while a method of it cannot be stopped
    actor, method = ranks.create(ranks.actor_class(on=1, n_restarts_max=1)), ranks.method()
    old = ranks.call_method(actor, method)
    ranks.tell(0, ActorKillWanted(actor, is_final=False))
    ranks.settle()
    ranks.ends(actor)
    new = ranks.call_method(actor, method)
    ranks.raises(old, Failure(ACTOR_EXITED, "It ended itself, which it had long ago."))
    ranks.returns(new)
    last = ranks.call_method(actor, method)
    ranks.returns(last, b"1")
    assert ranks.value(0, last) == b"1"
    ranks.drop(0, old, new, last, actor)


def test_the_time_of_a_constructor_begins_when_it_is_with_a_rank(ranks: Ranks) -> None:
    # Counter.remote(slow.remote())
    slow = ranks.call(ranks.function(on=2))
    actor = ranks.create(ranks.actor_class(on=1, start_within_s=10.0), (slow,), runs=False)
    ranks.pass_time(9.9)
    ranks.returns(slow)
    ranks.pass_time(9.9)
    assert not ranks.interrupted
    ranks.ends(actor)
    ranks.drop(0, slow, actor)


def test_an_actor_that_keeps_a_handle_on_itself(ranks: Ranks) -> None:
    # def method(self): self.me = get_runtime_context().current_actor
    actor = ranks.create(ranks.actor_class(on=1))
    ref = ranks.call_method(actor, ranks.method())
    ranks.tell(1, OwnActorHeld(ref))
    ranks.hold(1, actor)
    ranks.returns(ref)
    ranks.drop(0, ref, actor)
    assert ranks.begun
    ranks.drop(1, actor)
    assert not ranks.begun


def test_a_method_ends_while_a_thread_of_it_waits(ranks: Ranks) -> None:
    actor, never = ranks.create(ranks.actor_class(on=1)), ranks.call(ranks.function(on=2))
    ref = ranks.call_method(actor, ranks.method(), nested=(never,))
    ranks.hold(1, never)
    ranks.get(1, never, parent=ref)
    ranks.returns(ref)
    ranks.returns(never)
    assert [resident.n_blocked for resident in ranks.hands[1].core.residents.residents.values()] == [0]
    ranks.drop(1, never)
    ranks.drop(0, never, ref, actor)


def test_a_method_is_tried_again_when_its_first_attempt_has_ended(ranks: Ranks) -> None:
    # max_task_retries=1; kill(actor, no_restart=False)            # while a method of it cannot be stopped
    actor, method = ranks.create(ranks.actor_class(on=1, n_restarts_max=1)), ranks.method(n_retries_max=1)
    ref = ranks.call_method(actor, method)
    ranks.tell(0, ActorKillWanted(actor, is_final=False))
    ranks.settle()
    ranks.ends(actor)
    assert ranks.running == {ref: 1}
    ranks.returns(ref, b"of a dead actor")
    assert ranks.running == {ref: 1}
    ranks.returns(ref, b"1")
    assert ranks.value(0, ref) == b"1"
    ranks.drop(0, ref, actor)


def test_a_group_that_the_class_does_not_have(ranks: Ranks) -> None:
    # actor.method.options(concurrency_group="io").remote()
    actor = ranks.create(ranks.actor_class())
    ref = ranks.call_method(actor, ranks.method(group="io"))
    assert "with the concurrency group 'io', but the class of its actor has none." in failure_of(ranks, ref).text
    ranks.drop(0, ref, actor)


# -- names ------------------------------------------------------------------------------------------------------------


def test_names(ranks: Ranks) -> None:
    # rank 1: Counter.options(name="c").remote(); rank 2: get_actor("c")
    kind = ranks.actor_class(1, on=1)
    actor = ranks.new_id(1) + 1
    ranks.tell(1, NameClaimed(1, "", "c", actor, b"class"))
    ranks.settle()
    assert ranks.told[-1] is None
    assert ranks.create(kind) == actor
    ranks.tell(2, NameSought(2, "", "c"))
    ranks.settle()
    assert ranks.told[-1] == NamedActor(actor, b"class")
    ranks.tell(0, NameClaimed(3, "", "c", ranks.new_id(0), b"other"))
    ranks.settle()
    assert ranks.told[-1] == NamedActor(actor, b"class")
    ranks.tell(1, NamesListed(4))
    ranks.settle()
    assert ranks.told[-1] == [("", "c")]
    ranks.drop(1, actor)
    ref = ranks.call_method(actor, ranks.method(2))
    ranks.returns(ref)
    ranks.drop(2, ref, actor)
    assert ranks.begun
    ranks.drop(0, actor)
    assert not ranks.begun
    ranks.tell(2, NameSought(5, "", "c"))
    ranks.settle()
    assert ranks.told[-1] is None


def test_a_name_is_looked_up_while_its_actor_ends(ranks: Ranks) -> None:
    kind = ranks.actor_class(1, on=1)
    actor = ranks.new_id(1) + 1
    ranks.tell(1, NameClaimed(1, "", "c", actor, b"class"))
    ranks.settle()
    assert ranks.create(kind) == actor
    ranks.held = [(1, 0)]
    ranks.drop(1, actor)
    ranks.tell(2, NameSought(2, "", "c"))
    ranks.settle()
    assert ranks.told[-1] == NamedActor(0, b"")
    ranks.held.clear()
    ranks.settle()
    ranks.tell(2, NameSought(3, "", "c"))
    ranks.settle()
    assert ranks.told[-1] is None


def test_a_name_is_given_back(ranks: Ranks) -> None:
    # Counter.options(name="c").remote(Lock())            # which cannot be pickled
    actor = ranks.new_id(1)
    ranks.tell(1, NameClaimed(1, "", "c", actor, b""))
    ranks.settle()
    ranks.tell(1, NameGivenBack(actor))
    ranks.settle()
    ranks.tell(2, NameSought(2, "", "c"))
    ranks.settle()
    assert ranks.told[-1] is None


def test_who_asks_for_a_name_is_interrupted(ranks: Ranks) -> None:
    # Ctrl-C in get_actor("c"), and in Counter.options(name="d").remote()
    kind = ranks.actor_class(1, on=1)
    actor = ranks.new_id(1) + 1
    ranks.tell(1, NameClaimed(1, "", "c", actor, b"class"))
    ranks.settle()
    assert ranks.create(kind) == actor
    ranks.told.clear()
    ranks.tell(2, NameSought(2, "", "c"), QueryAbandoned(2))
    ranks.tell(2, NameClaimed(3, "", "d", ranks.new_id(2), b"class"), QueryAbandoned(3))
    ranks.settle()
    assert not ranks.told
    ranks.drop(1, actor)
    assert not ranks.begun
    ranks.tell(0, NamesListed(4))
    ranks.settle()
    assert ranks.told == [[]]


# -- deaths -----------------------------------------------------------------------------------------------------------


def test_an_actor_dies_with_its_rank(mortal: Ranks) -> None:
    # refs = [actor.method.remote() for _ in range(2)]            # rank 1 dies
    ranks = mortal
    actor, method = ranks.create(ranks.actor_class(name="Counter")), ranks.method()
    refs = [ranks.call_method(actor, method) for _ in range(2)]
    ranks.kill(1)
    for ref in refs:
        failure = failure_of(ranks, ref)
        assert failure.kind == ACTOR_DIED
        assert "was on rank 1 when that died. Rank 1 on host host1" in failure.text
        assert "called at most once" in failure.text
    later = failure_of(ranks, last := ranks.call_method(actor, method))
    assert "(Counter) was on rank 1 when that died. Rank 1" in later.text
    assert "It is not to be started again: max_restarts=N." in later.text
    ranks.drop(0, *refs, last, actor)


def test_calls_of_an_actor_that_is_started_again_fail_in_a_way_of_their_own(mortal: Ranks) -> None:
    # max_restarts=1, max_task_retries=0
    ranks = mortal
    actor, method = ranks.create(ranks.actor_class(n_restarts_max=1)), ranks.method()
    ref = ranks.call_method(actor, method)
    ranks.kill(1)
    assert failure_of(ranks, ref).kind == ACTOR_UNAVAILABLE
    later = ranks.call_method(actor, method)
    ranks.ends(actor)
    ranks.returns(later, b"1")
    assert ranks.value(0, later) == b"1"
    ranks.drop(0, ref, later, actor)


def test_an_actor_is_started_again_elsewhere(mortal: Ranks) -> None:
    # max_restarts=1, max_task_retries=1: calls are repeated in order, before later ones
    ranks = mortal
    value = ranks.put(0)
    actor = ranks.create(ranks.actor_class(n_restarts_max=1), (value,))
    ranks.drop(0, value)
    method = ranks.method(n_retries_max=1)
    refs = [ranks.call_method(actor, method) for _ in range(2)]
    ranks.kill(1)
    refs.append(ranks.call_method(actor, method))
    assert ranks.running == {actor: 2}
    ranks.ends(actor)
    for ref in refs:
        ranks.returns(ref, b"1")
        assert ranks.value(0, ref) == b"1"
    assert ranks.begun[2, actor] == refs
    ranks.drop(0, *refs, actor)


def test_an_actor_whose_rank_dies_while_it_is_constructed(mortal: Ranks) -> None:
    ranks = mortal
    actors = [ranks.create(ranks.actor_class(n_restarts_max=n, on=-1), runs=False) for n in (0, 1)]
    homes = [ranks.running[actor] for actor in actors]
    assert homes == [1, 2]
    ranks.kill(1)
    ref = ranks.call_method(actors[0], ranks.method())
    assert failure_of(ranks, ref).kind == ACTOR_DIED
    ranks.ends(actors[1])
    ranks.drop(0, ref, *actors)


def test_a_borrower_calls_on_when_the_actor_has_moved(make_ranks: MakeRanks) -> None:
    # the borrower hears of the new place before it hears of the death
    ranks = make_ranks(4, survives_deaths=True)
    actor = ranks.create(ranks.actor_class(n_restarts_max=1))
    task = ranks.call(ranks.function(on=2), nested=(actor,))
    ranks.hold(2, actor)
    method = ranks.method(2, n_retries_max=1)
    refs = [ranks.call_method(actor, method)]
    ranks.kill(1, unaware=(2,))
    (home,) = [rank for task_id, rank in ranks.running.items() if task_id == actor]
    ranks.ends(actor)
    refs.append(ranks.call_method(actor, method))
    assert not ranks.begun[home, actor]
    ranks.hear(2, 1)
    ranks.settle()
    for ref in refs:
        ranks.returns(ref)
    assert ranks.begun[home, actor] == refs
    ranks.returns(task)
    ranks.drop(2, *refs, actor)
    ranks.drop(0, task, actor)


def test_a_caller_is_told_of_a_place_that_it_knows_to_be_dead(mortal: Ranks) -> None:
    # the owner says where the actor lives, and hears of the death after the caller
    ranks = mortal
    actor = ranks.create(ranks.actor_class(n_restarts_max=5), runs=False)
    assert ranks.running == {actor: 1}
    task = ranks.call(ranks.function(on=2), nested=(actor,))
    ranks.hold(2, actor)
    ref = ranks.call_method(actor, ranks.method(2))
    ranks.held.append((0, 2))
    ranks.ends(actor)
    ranks.kill(1, unaware=(0,))
    ranks.held.clear()
    ranks.settle()
    assert ref not in ranks.running
    ranks.hear(0, 1)
    ranks.settle()
    ranks.returns(task)
    ranks.ends(actor)
    assert ranks.running == {ref: 2}
    ranks.returns(ref)
    ranks.drop(2, ref, actor)
    ranks.drop(0, task, actor)


def test_the_owner_of_an_actor_dies(make_ranks: MakeRanks) -> None:
    # an actor of rank 1's on rank 2, which rank 3 calls
    ranks = make_ranks(4, survives_deaths=True)
    kind = ranks.actor_class(1, on=2)
    actor = ranks.new_id(1) + 1
    ranks.tell(1, NameClaimed(1, "", "c", actor, b""))
    ranks.settle()
    assert ranks.create(kind) == actor
    ranks.tell(3, NameSought(2, "", "c"))
    ranks.settle()
    method = ranks.method(3)
    ref = ranks.call_method(actor, method)
    assert ranks.running == {ref: 2}
    ranks.kill(1)
    assert failure_of(ranks, ref, 3).kind == ACTOR_DIED
    ranks.raises(ref, Failure(CANCELLED))
    later = failure_of(ranks, last := ranks.call_method(actor, method), 3)
    assert "is gone with its owner. Rank 1 on host" in later.text
    ranks.tell(3, NameSought(3, "", "c"))
    ranks.settle()
    assert ranks.told[-1] is None
    ranks.drop(3, ref, last, actor)


def test_the_caller_of_an_actor_dies(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(4, survives_deaths=True)
    actor = ranks.create(ranks.actor_class(on=1))
    task = ranks.call(ranks.function(on=2), nested=(actor,))
    ranks.hold(2, actor)
    refs = [ranks.call_method(actor, ranks.method(2)) for _ in range(2)]
    ranks.drop(0, actor)
    ranks.kill(2)
    assert ranks.interrupted == refs[:1]
    ranks.raises(refs[0], Failure(CANCELLED))
    assert failure_of(ranks, task).kind != UNSCHEDULABLE
    assert not ranks.begun
    ranks.drop(0, task)


def test_a_caller_dies_whose_running_call_has_been_answered(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(4, survives_deaths=True)
    actor = ranks.create(ranks.actor_class(on=1))
    task = ranks.call(ranks.function(on=2), nested=(actor,))
    ranks.hold(2, actor)
    ref = ranks.call_method(actor, ranks.method(2))
    ranks.tell(0, ActorKillWanted(actor, is_final=True))
    ranks.settle()
    ranks.kill(2)
    ranks.returns(ref)
    ranks.drop(0, task, actor)


def test_pushed_tasks_are_not_methods(ranks: Ranks) -> None:
    # what a constructor and a plain task send
    actor = ranks.create(ranks.actor_class())
    assert [type(message) for message in ranks.sent(TaskPushed)] == [TaskPushed]
    ranks.drop(0, actor)


# -- standstills ------------------------------------------------------------------------------------------------------


def test_an_actor_that_waits_for_a_call_of_itself(ranks: Ranks) -> None:
    # def method(self): get(this.method.remote())
    actor = ranks.create(ranks.actor_class(on=1))
    ref = ranks.call_method(actor, ranks.method())
    ranks.hold(1, actor)
    inner = ranks.call_method(actor, ranks.method(1, name="Counter.inner"), parent=ref)
    waiter = ranks.get(1, inner, parent=ref, is_for_good=True)
    ranks.pass_time(2 * ranks.hands[0].core.context.config.standstill_after_s)
    (failure,) = ranks.woken[waiter].values
    assert isinstance(failure, Failure)
    assert "Method Counter.inner waits for its turn, which function has, and that waits" in failure.text
    ranks.drop(1, inner, actor)
    ranks.returns(ref)
    ranks.drop(0, ref, actor)


def test_two_actors_that_wait_for_each_other(ranks: Ranks) -> None:
    # a.f: get(b.g.remote()); b.g: get(a.f.remote())
    actors = [ranks.create(ranks.actor_class(on=rank)) for rank in (1, 2)]
    first = ranks.call_method(actors[0], ranks.method(name="A.f"))
    ranks.hold(1, actors[1])
    second = ranks.call_method(actors[1], ranks.method(1, name="B.g"), parent=first)
    ranks.get(1, second, parent=first, is_for_good=True)
    ranks.hold(2, actors[0])
    third = ranks.call_method(actors[0], ranks.method(2, name="A.h"), parent=second)
    waiter = ranks.get(2, third, parent=second, is_for_good=True)
    ranks.pass_time(2 * ranks.hands[0].core.context.config.standstill_after_s)
    (failure,) = ranks.woken[waiter].values
    assert isinstance(failure, Failure)
    assert "Method A.h waits for its turn, which A.f has" in failure.text
    ranks.drop(2, third, actors[0])
    ranks.returns(second)
    ranks.drop(1, second, actors[1])
    ranks.returns(first)
    ranks.drop(0, first, *actors)


def test_an_event_loop_that_waits_with_its_thread_for_a_call_of_itself(ranks: Ranks) -> None:
    # async def method(self): get(this.inner.remote())            # instead of: await this.inner.remote()
    actor = ranks.create(ranks.actor_class(on=1, is_async=True, groups=(("", 1000),)))
    ref = ranks.call_method(actor, ranks.method())
    ranks.hold(1, actor)
    inner = ranks.call_method(actor, ranks.method(1, name="Counter.inner", n_retries_max=3), parent=ref)
    assert ranks.running == {ref: 1, inner: 1}
    waiter = ranks.get(1, inner, parent=ref, is_for_good=True)
    ranks.pass_time(2 * ranks.hands[0].core.context.config.standstill_after_s)
    (failure,) = ranks.woken[waiter].values
    assert isinstance(failure, Failure)
    assert "Method Counter.inner waits for its turn, which function has" in failure.text
    assert ranks.interrupted == [inner]
    ranks.raises(inner, Failure(CANCELLED))
    ranks.drop(1, inner, actor)
    ranks.returns(ref)
    ranks.drop(0, ref, actor)
