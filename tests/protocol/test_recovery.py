"""Lost objects between ranks: who finds the loss out, who makes them again, and that nothing is left.

Each test opens with the user program.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpcfut.core.events import BytesLost
from hpcfut.wire.messages import ObjectFreed, ObjectLost, TaskPushed
from tests.protocol.wired import Ranks


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    """Three ranks on three hosts; in the end nothing is left anywhere."""
    made = Ranks()
    yield made
    made.end()


def lose(ranks: Ranks, rank: int, object_id: int) -> None:
    """What is stored of an object has gone."""
    ranks.tell(rank, BytesLost(object_id, "It has gone."))
    ranks.settle()


def the_one_running(ranks: Ranks) -> int:
    (task_id,) = ranks.running
    return task_id


def test_a_chain_of_three_is_made_again(ranks: Ranks) -> None:
    # a = make.remote(); b = change.remote(a); c = change.remote(b); del a, b; c is lost; get(c)
    function = ranks.function(on=1, n_retries_max=3)
    a = ranks.call(function)
    ranks.returns(a, b"a", is_large=True)
    b = ranks.call(function, (a,))
    ranks.returns(b, b"b", is_large=True)
    c = ranks.call(function, (b,))
    ranks.returns(c, b"c", is_large=True)
    ranks.drop(0, a, b)
    assert list(ranks.segments) == [(1, c)]
    lose(ranks, 0, c)
    waiter = ranks.get(0, c)
    for value in (b"a", b"b", b"c"):
        assert waiter not in ranks.woken
        ranks.returns(the_one_running(ranks), value, is_large=True)
    assert waiter in ranks.woken
    assert len(ranks.segments) == 2, "The last of the three, where it was made and where it was read."
    assert ranks.value(0, c) == b"c"
    ranks.drop(0, c)


def test_one_attempt_serves_all_who_ask(ranks: Ranks) -> None:
    # Ranks 0, 1 and 2 hold a ref; the object is lost, and all call get(ref).
    function = ranks.function(on=1, n_retries_max=3)
    ref = ranks.call(function)
    ranks.returns(ref, b"value", is_large=True)
    holder = ranks.function(on=2)
    task = ranks.call(holder, nested=(ref,))
    ranks.hold(2, ref)
    other = ranks.call(function, nested=(ref,))
    ranks.hold(1, ref)
    waiters = [ranks.get(rank, ref) for rank in (1, 2)]
    assert all(waiter in ranks.woken for waiter in waiters)
    n_pushed = len(ranks.sent(TaskPushed))
    lose(ranks, 0, ref)
    waiters = [ranks.get(rank, ref) for rank in (0, 1, 2)]
    assert len(ranks.sent(TaskPushed)) == n_pushed + 1
    ranks.returns(other)
    ranks.returns(task)
    ranks.returns(the_one_running(ranks), b"value", is_large=True)
    assert all(waiter in ranks.woken for waiter in waiters)
    for rank in (0, 1, 2):
        assert ranks.value(rank, ref) == b"value"
        ranks.drop(rank, ref)
    ranks.drop(0, task, other)


def test_a_borrower_that_finds_a_loss_tells_the_owner(ranks: Ranks) -> None:
    # def hold(refs): return get(refs[0]) runs on rank 2; meanwhile rank 1 does not have the bytes any more.
    function = ranks.function(on=1, n_retries_max=3)
    ref = ranks.call(function)
    ranks.returns(ref, b"value", is_large=True)
    task = ranks.call(ranks.function(on=2), nested=(ref,))
    ranks.hold(2, ref)
    # The news that the primary copy is not wanted any more is all that rank 1 hears.
    ranks._send(0, 1, ObjectFreed(ref))
    ranks.settle()
    waiter = ranks.get(2, ref, parent=task)
    assert len(ranks.sent(ObjectLost, 2)) == 1
    ranks.returns(the_one_running_but(ranks, task), b"value", is_large=True)
    assert waiter in ranks.woken
    ranks.drop(2, ref)
    ranks.returns(task)
    ranks.drop(0, ref, task)


def the_one_running_but(ranks: Ranks, task_id: int) -> int:
    (other,) = (each for each in ranks.running if each != task_id)
    return other


def test_an_argument_that_another_rank_owns_is_made_again_by_that_rank(ranks: Ranks) -> None:
    # Rank 1 makes x by a task on rank 2 and returns [x]; rank 0 calls f.remote(x), whose result is lost as x is.
    outer = ranks.call(ranks.function(on=1))
    x = ranks.call(ranks.function(1, on=2, n_retries_max=3), parent=outer)
    ranks.returns(x, b"x", is_large=True)
    ranks.returns(outer, b"[x]", (x,))
    ranks.drop(1, x)
    ranks.hold(0, x)
    result = ranks.call(ranks.function(on=2, n_retries_max=3), (x,))
    ranks.returns(result, b"f(x)", is_large=True)
    ranks.drop(0, x, outer)
    assert ranks.knows(1, x), "Lineage holds what others own."
    lose(ranks, 1, x)
    lose(ranks, 0, result)
    # What rank 0 knows of x is old; rank 2 finds that out when f is to run again.
    ranks.returns(the_one_running(ranks), b"x", is_large=True)
    ranks.returns(the_one_running(ranks), b"f(x)", is_large=True)
    assert ranks.value(0, result) == b"f(x)"
    ranks.drop(0, result)
    assert not ranks.knows(1, x)


def test_refs_inside_the_old_value_and_the_new_one_live_as_long_as_the_object(ranks: Ranks) -> None:
    # def f(): return [put(1), large array] on rank 1; the result is lost while rank 2 reads it.
    function = ranks.function(on=1, n_retries_max=3)
    ref = ranks.call(function)
    old = ranks.put(1, b"old")
    ranks.returns(ref, b"old value", (old,), is_large=True)
    ranks.drop(1, old)
    lose(ranks, 0, ref)
    new = ranks.put(1, b"new")
    ranks.returns(the_one_running(ranks), b"new value", (new,), is_large=True)
    ranks.drop(1, new)
    assert ranks.knows(1, old)
    assert ranks.value(0, ref) == b"new value"
    ranks.drop(0, ref)
    assert not ranks.knows(1, old)
    assert not ranks.knows(1, new)
