"""Tasks between ranks: each test is a small user program, told above it."""

from __future__ import annotations

from collections.abc import Callable

from hpcfut.core.events import CancelRequested, ResourcesQueried, RunHeldBack, StreamAdvanced
from hpcfut.model.failure import CANCELLED, ENDED, RAISED, Failure
from hpcfut.model.template import STREAMING
from hpcfut.wire.messages import (
    LeaseGranted,
    LeaseRequested,
    LeaseReturned,
    TaskCancelled,
    TaskDone,
    TaskPushed,
    TasksHandedBack,
)
from hpcfut.wire.queries import ResourcesReported
from tests.protocol.wired import Ranks

BROKEN = Failure(RAISED, "ValueError: no")
MakeRanks = Callable[..., Ranks]


def kind_of(value: bytes | Failure) -> str:
    assert isinstance(value, Failure)
    return value.kind


def test_a_task_runs_on_another_rank(ranks: Ranks) -> None:
    # ref = f.remote()
    # get(ref)
    ref = ranks.call(ranks.function())
    assert ranks.running == {ref: 1}
    waiter = ranks.get(0, ref)
    ranks.returns(ref, b"42")
    assert ranks.woken[waiter].values == [b"42"]
    ranks.drop(0, ref)
    assert len(ranks.sent(TaskPushed)) == len(ranks.sent(TaskDone)) == 1


def test_many_tasks_share_what_there_is(ranks: Ranks) -> None:
    # refs = [f.remote() for _ in range(20)]
    # get(refs)
    f = ranks.function()
    refs = [ranks.call(f) for _ in range(20)]
    waiter = ranks.get(0, *refs)
    where = []
    while ranks.running:
        task, rank = next(iter(ranks.running.items()))
        where.append(rank)
        ranks.returns(task)
    assert ranks.woken[waiter].object_ids == refs
    assert set(where) == {0, 1, 2}, "While the driver waits, its own rank works, too."
    ranks.drop(0, *refs)


def test_a_ref_as_argument_is_its_value(ranks: Ranks) -> None:
    # a = f.remote()
    # b = g.remote(a)
    # del a
    # get(b)
    f, g = ranks.function(on=1), ranks.function(on=2)
    a = ranks.call(f)
    b = ranks.call(g, arguments=(a,))
    ranks.drop(0, a)
    assert ranks.running == {a: 1}
    ranks.returns(a, b"a")
    (argument,) = ranks.sent(TaskPushed)[-1].arguments
    assert argument.payload == b"a"
    assert not ranks.knows(2, a), "The value came with the call; nobody has to ask."
    ranks.returns(b, b"b")
    assert not ranks.knows(0, a)
    assert ranks.value(0, b) == b"b"
    ranks.drop(0, b)


def test_an_error_is_raised_by_all_that_depend_on_it(ranks: Ranks) -> None:
    # a = f.remote()                 # raises
    # b = g.remote(a)
    # c = h.remote(b)
    # get(c)
    f = ranks.function()
    a = ranks.call(f)
    b = ranks.call(f, arguments=(a,))
    c = ranks.call(f, arguments=(b,))
    waiter = ranks.get(0, c)
    ranks.raises(a, BROKEN)
    assert ranks.woken[waiter].values == [BROKEN]
    assert len(ranks.sent(TaskPushed)) == 1, "What cannot work is not tried."
    ranks.drop(0, a, b, c)


def test_an_error_of_a_task_within_a_task_comes_through(ranks: Ranks) -> None:
    # @remote
    # def outer(): return get(inner.remote())      # inner raises
    # get(outer.remote())
    outer, inner = ranks.function(on=1), ranks.function(1, on=2)
    a = ranks.call(outer)
    b = ranks.call(inner, parent=a)
    waiter = ranks.get(1, b, parent=a)
    ranks.raises(b, BROKEN)
    assert ranks.woken[waiter].values == [BROKEN]
    ranks.drop(1, b)
    ranks.raises(a, BROKEN)
    assert ranks.value(0, a) == BROKEN
    ranks.drop(0, a)


def test_a_failure_that_is_retried_is_seen_by_nobody(ranks: Ranks) -> None:
    # f.options(max_retries=2, retry_exceptions=True).remote()       # raises twice
    ref = ranks.call(ranks.function(n_retries_max=2))
    waiter = ranks.get(0, ref)
    ranks.raises(ref, BROKEN, is_retriable=True)
    ranks.raises(ref, BROKEN, is_retriable=True)
    assert waiter not in ranks.woken
    ranks.returns(ref, b"at last")
    assert ranks.woken[waiter].values == [b"at last"]
    ranks.drop(0, ref)


def test_a_task_that_nobody_wants_runs_all_the_same(ranks: Ranks) -> None:
    # f.remote()
    ref = ranks.call(ranks.function())
    ranks.drop(0, ref)
    assert ref in ranks.running
    ranks.returns(ref, is_large=True)
    assert not ranks.segments


def test_tasks_submit_tasks_and_wait_for_them(make_ranks: MakeRanks) -> None:
    # def fib(n): return n if n < 2 else sum(get([fib.remote(n - 1), fib.remote(n - 2)]))
    # On two ranks, and never more than one task of a rank active.
    ranks = make_ranks(2)
    functions = [ranks.function(rank) for rank in range(2)]
    left = {ranks.call(functions[0]): 4}
    (root,) = left
    children: dict[int, list[int]] = {}
    ranks.get(0, root)
    while ranks.running:
        ready = [task for task in ranks.running if task not in children or not set(children[task]) & left.keys()]
        task = ready[0]
        rank = ranks.running[task]
        if left[task] < 2 or task in children:
            ranks.drop(rank, *children.get(task, ()))
            ranks.returns(task)
            del left[task]
            continue
        children[task] = []
        for less in (1, 2):
            child = ranks.call(functions[rank], parent=task)
            left[child] = left[task] - less
            children[task].append(child)
        ranks.get(rank, *children[task], parent=task)
    assert not left
    ranks.drop(0, root)


# --- cancellation ---


def test_a_queued_task_that_is_cancelled_never_runs(ranks: Ranks) -> None:
    # refs = [f.remote() for _ in range(3)]       # both ranks are busy with the first two
    # cancel(refs[2])
    f = ranks.function()
    refs = [ranks.call(f) for _ in range(3)]
    assert set(ranks.running) == set(refs[:2])
    ranks.tell(0, CancelRequested(refs[2], False))
    assert kind_of(ranks.value(0, refs[2])) == CANCELLED
    for ref in refs[:2]:
        ranks.returns(ref)
    assert not ranks.running
    ranks.drop(0, *refs)


def test_a_running_task_is_interrupted(ranks: Ranks) -> None:
    # ref = f.remote(); cancel(ref); get(ref)
    ref = ranks.call(ranks.function(n_retries_max=3))
    ranks.tell(0, CancelRequested(ref, False))
    ranks.settle()
    assert ranks.interrupted == [ref]
    ranks.raises(ref, Failure(CANCELLED))
    assert kind_of(ranks.value(0, ref)) == CANCELLED
    assert not ranks.running, "It is not tried again."
    ranks.drop(0, ref)


def test_a_cancellation_may_cross_the_result(ranks: Ranks) -> None:
    # The task returns while the news of its cancellation is under way.
    ref = ranks.call(ranks.function())
    ranks.held.append((0, 1))
    ranks.tell(0, CancelRequested(ref, False))
    ranks.returns(ref, b"done")
    ranks.held.clear()
    ranks.settle()
    assert ranks.value(0, ref) == b"done"
    assert not ranks.interrupted
    ranks.drop(0, ref)


def test_cancelling_reaches_what_a_task_has_submitted(ranks: Ranks) -> None:
    # @remote
    # def outer(): return get(inner.remote())
    # cancel(outer.remote(), recursive=True)
    outer, inner = ranks.function(on=1), ranks.function(1, on=2)
    a = ranks.call(outer)
    b = ranks.call(inner, parent=a)
    ranks.get(1, b, parent=a)
    ranks.tell(0, CancelRequested(a, True))
    ranks.settle()
    assert sorted(ranks.interrupted) == sorted([a, b])
    ranks.raises(b, Failure(CANCELLED))
    ranks.drop(1, b)
    ranks.raises(a, Failure(CANCELLED))
    ranks.drop(0, a)


def test_a_borrower_may_cancel(ranks: Ranks) -> None:
    # @remote
    # def killer(refs): cancel(refs[0])
    # ref = f.remote(); killer.remote([ref])
    f, killer = ranks.function(on=1), ranks.function(on=2)
    ref = ranks.call(f)
    killing = ranks.call(killer, nested=(ref,))
    ranks.hold(2, ref)
    ranks.tell(2, CancelRequested(ref, False))
    ranks.settle()
    assert ranks.interrupted == [ref]
    assert ranks.sent(TaskCancelled, 0) == [TaskCancelled(ref, False)]
    ranks.drop(2, ref)
    ranks.returns(killing)
    ranks.raises(ref, Failure(CANCELLED))
    ranks.drop(0, ref, killing)


# --- generators ---


def test_a_generator_is_consumed_while_it_runs(ranks: Ranks) -> None:
    # for ref in numbers.remote(): get(ref)        # two items ahead at most
    stream = ranks.call(ranks.function(n_returns=STREAMING))
    refs = [ranks.yields(stream), ranks.yields(stream)]
    assert not ranks.names[stream], "It has used its credit."
    ranks.tell(1, RunHeldBack(stream))
    assert ranks.value(0, refs[0]) == b"item"
    more = ranks.new_id(0)
    ranks.tell(0, StreamAdvanced(stream, (more,)))
    ranks.settle()
    refs.append(ranks.yields(stream))
    assert ranks.value(0, refs[2]) == b"item"
    ranks.ends(stream)
    assert kind_of(ranks.value(0, more)) == ENDED
    ranks.drop(0, *refs, more)


def test_a_generator_that_fails_is_tried_again_from_its_first_item(ranks: Ranks) -> None:
    # numbers.options(max_retries=1, retry_exceptions=True).remote()     # raises after the first item
    stream = ranks.call(ranks.function(n_returns=STREAMING, n_retries_max=1))
    first = ranks.yields(stream, b"1")
    ranks.raises(stream, BROKEN, is_retriable=True)
    assert ranks.names[stream][0] == 0, "The first item is made again and thrown away."
    ranks.yields(stream, b"1")
    second = ranks.yields(stream, b"2")
    ranks.ends(stream)
    assert [ranks.value(0, ref) for ref in (first, second)] == [b"1", b"2"]
    end = stream + 2
    assert kind_of(ranks.value(0, end)) == ENDED
    ranks.drop(0, first, second, end)


# --- leases ---


def test_a_lease_is_returned_and_asked_for_again(ranks: Ranks) -> None:
    # get(f.remote()); sleep(1); get(f.remote())
    f = ranks.function()
    for _ in range(2):
        ref = ranks.call(f)
        ranks.returns(ref)
        ranks.drop(0, ref)
        ranks.pass_time(1.0)
    assert len(ranks.sent(LeaseRequested)) == len(ranks.sent(LeaseReturned)) == 2
    assert not any(hand.core.scheduler.grants for hand in ranks.hands)


def test_what_waits_behind_a_long_task_goes_elsewhere(ranks: Ranks) -> None:
    # Many short calls have made the lease deep; now the first of two takes long.
    f = ranks.function()
    for _ in range(10):
        ref = ranks.call(f)
        ranks.returns(ref)
        ranks.drop(0, ref)
    assert max(message.depth for message in ranks.sent(LeaseGranted)) > 1
    long, short = ranks.call(f), ranks.call(f)
    assert ranks.running == {long: 1}
    ranks.pass_time(0.1)
    assert ranks.sent(TasksHandedBack)[-1].task_ids == (short,)
    assert ranks.running == {long: 1, short: 2}
    ranks.returns(short)
    ranks.returns(long)
    ranks.drop(0, long, short)


def test_what_is_free_is_told_by_everyone(ranks: Ranks) -> None:
    # available_resources()
    task = ranks.call(ranks.function())
    ranks.tell(0, ResourcesQueried(1))
    ranks.settle()
    (answer,) = ranks.answers
    assert [amounts["CPU"] for amounts in answer.answers.values() if isinstance(amounts, dict)] == [
        40_000,
        30_000,
        40_000,
    ]
    assert len(ranks.sent(ResourcesReported)) == 2
    ranks.returns(task)
    ranks.drop(0, task)
