"""Refs between ranks: lent, passed on, returned, and freed when the last one goes. Rank 0 is the driver."""

from __future__ import annotations

import itertools

import pytest

from hpcfut.wire.messages import (
    BorrowAdded,
    BorrowReleased,
    ObjectAsked,
    ObjectFreed,
    ObjectLocated,
    ReadRequested,
)
from tests.protocol.wired import Ranks


def test_a_lent_ref_costs_no_message_if_it_is_not_kept(ranks: Ranks) -> None:
    # ref = put(…)
    # f.remote([ref])                       # does not look at it
    ref = ranks.put(0)
    task = ranks.call(ranks.function(on=1), nested=(ref,))
    ranks.hold(1, ref)
    ranks.drop(1, ref)
    ranks.drop(0, ref)
    assert ranks.knows(0, ref), "The call still has it."
    ranks.returns(task)
    assert not ranks.knows(0, ref)
    assert not ranks.sent(BorrowAdded)
    assert not ranks.sent(BorrowReleased)
    ranks.drop(0, task)


def test_a_ref_that_a_task_has_kept_lives_on(ranks: Ranks) -> None:
    # @remote
    # def keep(refs): global kept; kept = refs[0]
    # ref = put(…); get(keep.remote([ref])); del ref
    # get(look.remote())                    # get(kept), on the same rank
    ref = ranks.put(0, b"kept")
    keep = ranks.call(ranks.function(on=1), nested=(ref,))
    ranks.hold(1, ref)
    ranks.returns(keep)
    ranks.drop(0, ref, keep)
    assert ranks.value(1, ref) == b"kept"
    ranks.drop(1, ref)
    assert not ranks.knows(0, ref)


def test_a_borrower_lends_to_another(ranks: Ranks) -> None:
    # @remote
    # def outer(refs): keep.remote(refs)    # on rank 2, and does not wait for it
    # ref = put(…); get(outer.remote([ref])); del ref
    ref = ranks.put(0, b"kept")
    outer = ranks.call(ranks.function(on=1), nested=(ref,))
    ranks.hold(1, ref)
    keep = ranks.call(ranks.function(1, on=2), nested=(ref,), parent=outer)
    ranks.drop(1, ref, keep)
    ranks.returns(outer)
    ranks.drop(0, ref, outer)
    ranks.hold(2, ref)
    assert ranks.value(2, ref) == b"kept", "Rank 1 has the call, rank 0 knows of rank 1."
    ranks.returns(keep)
    assert not ranks.knows(1, ref)
    assert ranks.value(2, ref) == b"kept", "Rank 1 has reported rank 2 before it let go."
    assert [message.borrower for message in ranks.sent(BorrowAdded, 1)] == [2]
    ranks.drop(2, ref)
    assert not ranks.knows(0, ref)


def test_a_new_ref_is_returned(ranks: Ranks) -> None:
    # @remote
    # def make(): return [put(…)]
    # (inner,) = get(make.remote()); get(inner)
    make = ranks.call(ranks.function(on=1))
    inner = ranks.put(1, b"inner")
    ranks.returns(make, b"list", (inner,))
    ranks.drop(1, inner)
    assert ranks.value(0, make) == b"list"
    ranks.hold(0, inner)
    ranks.drop(0, make)
    assert ranks.value(0, inner) == b"inner"
    ranks.drop(0, inner)
    assert not ranks.knows(1, inner)


def test_a_lent_ref_is_returned_and_passed_on(ranks: Ranks) -> None:
    # @remote
    # def through(refs): return refs
    # ref = put(…)
    # a = through.remote([ref]); del ref                         # on rank 1
    # b = keep.remote(a); del a                                  # on rank 2, a as an argument
    ref = ranks.put(0, b"kept")
    a = ranks.call(ranks.function(on=1), nested=(ref,))
    ranks.drop(0, ref)
    ranks.hold(1, ref)
    ranks.returns(a, b"list", (ref,))
    ranks.drop(1, ref)
    b = ranks.call(ranks.function(on=2), arguments=(a,))
    ranks.drop(0, a)
    ranks.hold(2, ref)
    ranks.returns(b)
    assert not ranks.knows(0, a)
    assert ranks.value(2, ref) == b"kept"
    ranks.drop(2, ref)
    assert not ranks.knows(0, ref)
    ranks.drop(0, b)


def test_a_ref_of_a_third_rank_is_returned_and_passed_on(ranks: Ranks) -> None:
    # A ref of rank 2 goes to rank 0 in a result, from there to rank 1 in a call, and back in a result.
    make, through = ranks.function(on=2), ranks.function(on=1)
    a = ranks.call(make)
    inner = ranks.put(2, b"inner")
    ranks.returns(a, b"list", (inner,))
    ranks.drop(2, inner)
    ranks.hold(0, inner)
    ranks.drop(0, a)
    b = ranks.call(through, nested=(inner,))
    ranks.drop(0, inner)
    ranks.hold(1, inner)
    ranks.returns(b, b"list", (inner,))
    ranks.drop(1, inner)
    assert not ranks.knows(1, inner)
    ranks.hold(0, inner)
    ranks.drop(0, b)
    assert ranks.value(0, inner) == b"inner"
    ranks.drop(0, inner)
    assert not ranks.knows(2, inner)


def test_a_value_with_refs_is_asked_for_by_a_borrower(ranks: Ranks) -> None:
    # inner = put(…); outer = put([inner]); del inner
    # keep.remote([outer])                  # (inner,) = get(outer), kept
    inner = ranks.put(0, b"inner")
    outer = ranks.put(0, b"list", (inner,))
    ranks.drop(0, inner)
    task = ranks.call(ranks.function(on=1), nested=(outer,))
    ranks.hold(1, outer)
    assert ranks.value(1, outer) == b"list"
    ranks.hold(1, inner)
    ranks.drop(1, outer)
    ranks.returns(task)
    ranks.drop(0, outer, task)
    assert not ranks.knows(0, outer)
    assert ranks.value(1, inner) == b"inner"
    ranks.drop(1, inner)
    assert not ranks.knows(0, inner)


def test_a_deep_value_goes_from_rank_to_rank(ranks: Ranks) -> None:
    # x = put(…); y = put([x]); z = put([y]); two tasks, on ranks 1 and 2, walk down to x, each through its own copy
    x = ranks.put(0, b"x")
    y = ranks.put(0, b"y", (x,))
    z = ranks.put(0, b"z", (y,))
    ranks.drop(0, x, y)
    tasks = [ranks.call(ranks.function(on=rank), nested=(z,)) for rank in (1, 2)]
    ranks.drop(0, z)
    for rank, task in zip((1, 2), tasks, strict=True):
        walked = [(x, b"x"), (y, b"y"), (z, b"z")]
        while walked:
            ref, value = walked.pop()
            ranks.hold(rank, ref)
            assert ranks.value(rank, ref) == value
        ranks.drop(rank, z)
        ranks.drop(rank, y)
        ranks.returns(task)
        assert ranks.value(rank, x) == b"x"
    ranks.drop(1, x)
    assert ranks.knows(0, x)
    ranks.drop(2, x)
    assert not ranks.knows(0, x)
    ranks.drop(0, *tasks)


def test_a_ref_comes_home(ranks: Ranks) -> None:
    # ref = put(…); (same,) = get(through.remote([ref])); del ref; get(same)
    ref = ranks.put(0, b"value")
    task = ranks.call(ranks.function(on=1), nested=(ref,))
    ranks.returns(task, b"list", (ref,))
    ranks.hold(0, ref)
    ranks.drop(0, ref, task)
    assert ranks.value(0, ref) == b"value"
    assert not ranks.sent(BorrowAdded)
    ranks.drop(0, ref)
    assert not ranks.knows(0, ref)


def test_a_closure_holds_its_refs(ranks: Ranks) -> None:
    # ref = put(…); f = remote(lambda: get(ref)); del ref
    # get(f.remote()); del f
    ref = ranks.put(0, b"captured")
    f = ranks.function(nested=(ref,), on=1)
    ranks.drop(0, ref)
    task = ranks.call(f)
    assert ranks.value(1, ref) == b"captured"
    ranks.returns(task)
    ranks.drop(0, task)
    assert ranks.knows(0, ref)
    ranks.end()
    assert not ranks.knows(0, ref)


# --- what overtakes what ---


@pytest.mark.parametrize("links", list(itertools.permutations([(0, 2), (1, 2), (2, 0), (2, 1)])))
def test_a_report_may_be_overtaken_by_any_release(ranks: Ranks, links: list[tuple[int, int]]) -> None:
    # Rank 1 returns a ref of rank 2 to rank 0, and drops it. Rank 0 looks at it, and drops it. Whatever order the news
    # reach rank 2 in, the object lives until all of it is there.
    a = ranks.call(ranks.function(on=2))
    inner = ranks.put(2, b"inner")
    ranks.returns(a, b"list", (inner,))
    ranks.drop(2, inner)
    b = ranks.call(ranks.function(on=1), arguments=(a,))
    ranks.hold(1, inner)
    ranks.held.extend(links)
    ranks.returns(b, b"list", (inner,))
    ranks.drop(1, inner)
    ranks.hold(0, inner)
    ranks.drop(0, a)
    ranks.drop(0, b)
    waiter = ranks.get(0, inner)
    assert ranks.knows(2, inner)
    for link in links:
        ranks.held.remove(link)
        ranks.settle()
    assert ranks.woken[waiter].values == [b"inner"]
    ranks.drop(0, inner)
    assert not ranks.knows(2, inner)


def test_an_answer_may_come_after_the_ref_has_gone(ranks: Ranks) -> None:
    # A task has a borrowed ref as argument, is cancelled, and the ref dropped, while the owner's answer is under way.
    a = ranks.call(ranks.function(on=1))
    innermost = ranks.put(1, b"innermost")
    inner = ranks.put(1, b"list", (innermost,))
    ranks.returns(a, b"list", (inner,))
    ranks.drop(1, inner, innermost)
    ranks.hold(0, inner)
    ranks.drop(0, a)
    ranks.held.append((1, 0))
    waiter = ranks.get(0, inner)
    assert ranks.sent(ObjectAsked)
    ranks.abandon(0, waiter)
    ranks.drop(0, inner)
    ranks.held.clear()
    ranks.settle()
    assert not ranks.knows(1, inner)
    assert not ranks.knows(1, innermost), "What came with the answer was given back."


# --- large values ---


def test_a_large_value_is_read_by_the_driver_only(ranks: Ranks) -> None:
    # ref = f.remote()                     # a large result, on rank 1
    # g.remote(ref)                        # on rank 2
    # get(ref); del ref
    a = ranks.call(ranks.function(on=1))
    ranks.returns(a, b"large", is_large=True)
    assert ranks.segments.keys() == {(1, a)}
    b = ranks.call(ranks.function(on=2), arguments=(a,))
    assert ranks.segments.keys() == {(1, a), (2, a)}, "Rank 2 has read it from rank 1; rank 0 has not seen it."
    ranks.returns(b)
    assert ranks.segments.keys() == {(1, a), (2, a)}, "It keeps it for others."
    assert ranks.value(0, a) == b"large"
    ranks.drop(0, a, b)
    assert not ranks.segments
    assert ranks.sent(ObjectFreed) == [ObjectFreed(a)]


def test_a_large_value_is_read_once_for_many(ranks: Ranks) -> None:
    # ref = put(large); tasks = [f.remote(ref, [ref]) for _ in range(4)]    # on rank 1, and two threads there get(ref)
    ref = ranks.put(0, b"large", is_large=True)
    f = ranks.function(on=1)
    ranks.held.append((0, 1))
    tasks = [ranks.call(f, arguments=(ref,), nested=(ref,)) for _ in range(4)]
    ranks.held.clear()
    ranks.settle()
    ranks.hold(1, ref)
    assert all(ranks.value(1, ref) == b"large" for _ in range(2))
    for _ in tasks:
        (task,) = ranks.running
        ranks.returns(task)
    assert ranks.value(1, ref) == b"large", "The refs of user code keep it."
    ranks.drop(1, ref)
    ranks.drop(0, ref, *tasks)
    assert not ranks.segments
    assert len(ranks.sent(ReadRequested)) == 1


def test_a_borrower_keeps_its_copy_while_it_holds_the_ref(ranks: Ranks) -> None:
    # ref = put(large); keep.remote([ref])   # get(ref), and the ref is kept
    ref = ranks.put(0, b"large", is_large=True)
    task = ranks.call(ranks.function(on=1), nested=(ref,))
    ranks.hold(1, ref)
    assert ranks.value(1, ref) == b"large"
    assert ranks.sent(ObjectLocated)
    ranks.returns(task)
    ranks.drop(0, ref, task)
    assert ranks.segments.keys() == {(0, ref), (1, ref)}
    assert ranks.value(1, ref) == b"large"
    assert len(ranks.sent(ReadRequested)) == 1
    ranks.drop(1, ref)
    assert not ranks.segments


def test_a_read_that_is_under_way_outlives_its_reader(ranks: Ranks) -> None:
    # get(ref, timeout=…) times out, and the ref is dropped, before the holder has heard that it is wanted.
    a = ranks.call(ranks.function(on=1))
    ranks.returns(a, b"large", is_large=True)
    ranks.held.append((0, 1))
    waiter = ranks.get(0, a)
    ranks.abandon(0, waiter)
    ranks.drop(0, a)
    assert ranks.hands[0].core.copies.copies
    ranks.held.clear()
    ranks.settle()
    assert not ranks.segments
    assert not ranks.hands[0].core.copies.copies


def test_a_large_list_of_refs_holds_them(ranks: Ranks) -> None:
    # @remote
    # def make(): return [put(…), large array]
    # (inner, _) = get(make.remote())
    make = ranks.call(ranks.function(on=1))
    inner = ranks.put(1, b"inner")
    ranks.returns(make, b"large", (inner,), is_large=True)
    ranks.drop(1, inner)
    assert ranks.value(0, make) == b"large"
    ranks.hold(0, inner)
    ranks.drop(0, make)
    assert ranks.value(0, inner) == b"inner"
    ranks.drop(0, inner)
    assert not ranks.knows(1, inner)


def test_refs_in_a_put_of_a_worker_go_with_it(ranks: Ranks) -> None:
    # @remote
    # def make(): x = put(…); return put([x])       # returns a ref, inside of which there is another
    make = ranks.call(ranks.function(on=1))
    x = ranks.put(1, b"x")
    y = ranks.put(1, b"list", (x,))
    ranks.returns(make, b"ref", (y,))
    ranks.drop(1, x, y)
    ranks.hold(0, y)
    ranks.drop(0, make)
    assert ranks.value(0, y) == b"list"
    ranks.drop(0, y)
    assert not ranks.knows(1, x)
