"""Objects with a source between ranks: who wants one reads it, and nobody asks anybody else for its bytes."""

from __future__ import annotations

from hpcfut.wire.messages import LoanRequested, ObjectAsked, ObjectLocated, ReadRequested
from tests.protocol.wired import Ranks

NEVER = (LoanRequested, ObjectLocated, ReadRequested)


def assert_nobody_asked_for_bytes(ranks: Ranks) -> None:
    assert not [kind for kind in NEVER if ranks.sent(kind)]


def test_each_rank_that_wants_it_reads_it(ranks: Ranks) -> None:
    ref = ranks.put_source(0, b"chunk 7")
    assert not ranks.segments
    tasks = [ranks.call(ranks.function(on=rank), arguments=(ref,)) for rank in (1, 2)]
    assert ranks.segments == {(1, ref): b"chunk 7", (2, ref): b"chunk 7"}, "The owner does not need it."
    assert ranks.value(0, ref) == b"chunk 7"
    for task in tasks:
        ranks.returns(task)
    assert list(ranks.segments) == [(0, ref)], "Those dropped it with their tasks."
    assert_nobody_asked_for_bytes(ranks)
    ranks.drop(0, ref, *tasks)


def test_a_borrower_asks_the_owner_for_the_recipe_only(ranks: Ranks) -> None:
    # @remote
    # def look(refs): return get(refs[0])
    ref = ranks.put_source(0, b"chunk 7")
    task = ranks.call(ranks.function(on=1), nested=(ref,))
    ranks.hold(1, ref)
    assert ranks.value(1, ref) == b"chunk 7"
    assert ranks.value(1, ref) == b"chunk 7"
    assert len(ranks.sent(ObjectAsked)) == 1
    ranks.drop(1, ref)
    ranks.returns(task)
    assert not ranks.segments
    assert_nobody_asked_for_bytes(ranks)
    ranks.drop(0, ref, task)


def test_a_task_returns_refs_that_it_has_put(ranks: Ranks) -> None:
    # @remote
    # def chunks(): return [lazy_array(…)]
    task = ranks.call(ranks.function(on=1))
    ref = ranks.put_source(1, b"chunk 7")
    ranks.returns(task, contained=(ref,))
    ranks.drop(1, ref)
    ranks.hold(0, ref)
    ranks.drop(0, task)
    other = ranks.call(ranks.function(on=2), arguments=(ref,))
    assert ranks.segments == {(2, ref): b"chunk 7"}
    ranks.drop(0, ref)
    ranks.returns(other)
    assert not ranks.knows(1, ref)
    assert_nobody_asked_for_bytes(ranks)
    ranks.drop(0, other)
