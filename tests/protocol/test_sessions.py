"""Waiting for several, waiting within waiting, and the end of a session in the midst of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcfut.core.events import RankLost, StopRequested
from hpcfut.model.failure import RAISED, Failure
from hpcfut.model.place import Place
from hpcfut.wire.messages import JobEnded, RankFailed
from tests.protocol.wired import NBYTES_LARGE, Ranks

MakeRanks = Callable[..., Ranks]


def test_the_first_of_several_is_enough(ranks: Ranks) -> None:
    # refs = [f.remote() for _ in range(2)] + [put(…)]
    # ready, rest = wait(refs, num_returns=2)
    f = ranks.function()
    refs = [ranks.call(f), ranks.call(f), ranks.put(0)]
    waiter = ranks.get(0, *refs, n_wanted=2)
    assert waiter not in ranks.woken
    ranks.returns(refs[1])
    assert ranks.woken[waiter].object_ids == [refs[1], refs[2]]
    ranks.returns(refs[0])
    ranks.drop(0, *refs)


def test_a_wait_for_objects_of_several_owners(ranks: Ranks) -> None:
    # @remote
    # def make(): return [put(…)]
    # inner = [get(make.options(…).remote())[0] for … in (1, 2)]; get(inner)
    inner = []
    for rank in (1, 2):
        task = ranks.call(ranks.function(on=rank))
        ref = ranks.put(rank, b"of %d" % rank, is_large=rank == 2)
        ranks.returns(task, b"list", (ref,))
        ranks.drop(rank, ref)
        ranks.hold(0, ref)
        ranks.drop(0, task)
        inner.append(ref)
    ranks.held.append((2, 0))
    waiter = ranks.get(0, *inner)
    assert waiter not in ranks.woken
    ranks.held.clear()
    ranks.settle()
    assert ranks.woken[waiter].values == [b"of 1", Place(inner[1], 0, 0, NBYTES_LARGE)]
    assert ranks.segments[0, inner[1]] == b"of 2"
    ranks.drop(0, *inner)


def test_a_failed_one_counts_as_ready(ranks: Ranks) -> None:
    # ready, rest = wait([f.remote(), g.remote()])      # f raises
    f = ranks.function()
    refs = [ranks.call(f), ranks.call(f)]
    waiter = ranks.get(0, *refs, n_wanted=1)
    ranks.raises(refs[0], Failure(RAISED))
    assert ranks.woken[waiter].values == [Failure(RAISED)]
    ranks.returns(refs[1])
    ranks.drop(0, *refs)


def test_a_rank_whose_task_waits_takes_another(make_ranks: MakeRanks) -> None:
    # def outer(): return get(inner.remote())
    # refs = [outer.remote() for _ in range(3)]; get(refs)     # two ranks, one slot each
    ranks = make_ranks(2)
    functions = [ranks.function(rank) for rank in range(2)]
    refs = [ranks.call(functions[0]) for _ in range(3)]
    ranks.get(0, *refs)
    n_blocked_most = 0
    inner: dict[int, tuple[int, int]] = {}
    while ranks.running:
        outer_tasks = [task for task in ranks.running if task in refs and task not in inner]
        inner_tasks = [task for task in ranks.running if task not in refs]
        if outer_tasks:
            rank = ranks.running[outer_tasks[0]]
            child = ranks.call(functions[rank], parent=outer_tasks[0])
            inner[outer_tasks[0]] = (rank, child)
            ranks.get(rank, child, parent=outer_tasks[0])
        elif inner_tasks:
            ranks.returns(inner_tasks[0])
        else:
            task = next(iter(ranks.running))
            rank, child = inner[task]
            ranks.drop(rank, child)
            ranks.returns(task)
        n_blocked_most = max(n_blocked_most, sum(hand.core.scheduler.n_blocked for hand in ranks.hands))
    assert set(inner) == set(refs)
    assert n_blocked_most >= 2, "On every rank an inner task ran while an outer one waited."
    ranks.drop(0, *refs)


def test_one_rank_does_it_all_on_one_stack(make_ranks: MakeRanks) -> None:
    # def down(n): return n and get(down.remote(n - 1))
    # get(down.remote(5))
    ranks = make_ranks(1)
    down = ranks.function()
    tasks = [ranks.call(down)]
    ranks.get(0, tasks[0], may_run=True)
    for _ in range(5):
        tasks.append(ranks.call(down, parent=tasks[-1]))
        ranks.get(0, tasks[-1], parent=tasks[-2], may_run=True)
    assert list(ranks.running) == tasks
    for task in reversed(tasks):
        ranks.returns(task)
        ranks.drop(0, task)
    assert len(ranks.woken) == len(tasks)


def test_the_end_drops_what_is_queued(ranks: Ranks) -> None:
    # [f.remote() for _ in range(5)]
    # and the script ends
    f = ranks.function()
    refs = [ranks.call(f) for _ in range(5)]
    ranks.tell(0, StopRequested(0, "", True))
    ranks.settle()
    assert {rank: end.status for rank, end in ranks.ended.items()} == {0: 0, 1: 0, 2: 0}
    n_messages = len(ranks.log)
    for task in list(ranks.running):
        ranks.returns(task)
    ranks.drop(0, *refs)
    ranks.pass_time(10.0)
    assert len(ranks.log) == n_messages, "After the end nobody says anything."
    assert not ranks.running


def test_the_end_may_cross_what_ranks_tell_each_other(ranks: Ranks) -> None:
    # The script ends while rank 1 returns a result that rank 0 had a task wait for.
    f = ranks.function()
    a = ranks.call(f)
    ranks.call(f, arguments=(a,))
    ranks.held.append((0, 1))
    ranks.tell(0, StopRequested(3, "", False))
    ranks.settle()
    ranks.returns(a)
    assert ranks.hands[0].stale("told after the end of the session") > 0
    ranks.held.clear()
    ranks.settle()
    assert ranks.ended[1].status == 3
    assert len(ranks.sent(JobEnded)) == 2


@pytest.mark.parametrize("witness", [0, 1])
def test_a_death_ends_the_job_of_all(ranks: Ranks, witness: int) -> None:
    # Rank 2 dies, and one other notices.
    task = ranks.call(ranks.function(on=1))
    ranks.tell(witness, RankLost(2, "its connection was closed"))
    ranks.settle()
    assert {rank: end.status for rank, end in ranks.ended.items()} == {0: 1, 1: 1}
    assert "Rank 2 on host host2" in ranks.ended[1 - witness].failure
    assert len(ranks.sent(RankFailed)) == witness
    ranks.returns(task)
