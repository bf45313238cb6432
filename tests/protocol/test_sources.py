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
    assert_nobody_asked_for_bytes(ranks)
    ranks.drop(0, ref, *tasks)
    assert not ranks.segments


def test_what_was_read_for_a_task_serves_the_next_one_and_goes_with_the_object(ranks: Ranks) -> None:
    ref = ranks.put_source(0, b"chunk 7")
    function = ranks.function(on=1)
    for _ in range(2):
        task = ranks.call(function, arguments=(ref,))
        ranks.returns(task)
        ranks.drop(0, task)
    assert ranks.segments == {(1, ref): b"chunk 7"}
    assert ranks.sources_read == [(1, ref)]
    ranks.drop(0, ref)
    assert not ranks.segments


def test_what_a_rank_hears_of_from_others_than_the_owner_goes_with_its_task(ranks: Ranks) -> None:
    # @remote
    # def pass_on(refs): get(look.remote(refs[0]))
    ref = ranks.put_source(0, b"chunk 7")
    outer = ranks.call(ranks.function(on=1), nested=(ref,))
    ranks.hold(1, ref)
    inner = ranks.call(ranks.function(1, on=2), arguments=(ref,), parent=outer)
    assert ranks.segments == {(2, ref): b"chunk 7"}
    ranks.returns(inner)
    assert not ranks.segments, "The owner would not know whom to tell."
    ranks.drop(1, ref, inner)
    ranks.returns(outer)
    ranks.drop(0, ref, outer)


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
    assert_nobody_asked_for_bytes(ranks)
    ranks.drop(0, ref, task)
    assert not ranks.segments


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
