"""Refs to objects of others and of one's own: who holds what, who is told, and when a value goes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfut.core.effects import FreeSegment, StartRead, WakeWaiter
from hpcfut.core.events import CancelRequested, ObjectPut, ReadCompleted, RefsAdded
from hpcfut.core.ownership import OwnedObject
from hpcfut.model.failure import LOST
from hpcfut.wire.messages import (
    BorrowAdded,
    BorrowConfirmed,
    BorrowReleased,
    ObjectAsked,
    ObjectFailed,
    ObjectFreed,
    ObjectLocated,
    ObjectResolved,
    Result,
    TaskRaised,
    TaskReturned,
)
from tests.core.cores import BROKEN, LARGE, SMALL, Hand, MakeCore, foreign, of, only, place_of, sent, takes

#: An object of rank 2.
THEIRS = foreign(2, 7)


def borrow(hand: Hand, object_id: int = THEIRS, n: int = 1) -> None:
    """Rank 1 returns a list with a ref; user code here unpickles it and drops the list."""
    task = hand.push_to_1(n)
    hand.get(1, TaskReturned(task, (Result(b"list", 4, (object_id,)),)))
    hand.tell(RefsAdded([object_id]))
    hand.release(task)


# --- as a borrower ---


@takes("borrowing", ("unknown", "release"))
def test_who_named_the_borrower_is_told_back_to_the_owner(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.get(1, TaskReturned(hand.push_to_1(2), (Result(b"list", 4, (THEIRS,)),)))
    assert hand.release(THEIRS) == []
    assert sent(hand.release(hand.own(2))) == [(2, BorrowReleased(THEIRS, {1: 2}))]


@takes("borrowing", ("unknown", "ask"), ("asked", "resolved inline"), ("inline", "release"))
def test_a_borrower_asks_the_owner_once(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    assert sent(hand.start_waiting(THEIRS)) == [(2, ObjectAsked(THEIRS))]
    assert hand.start_waiting(THEIRS, waiter=2) == []
    effects = hand.get(2, ObjectResolved(THEIRS, b"value"))
    assert [(woken.waiter_id, woken.values) for woken in of(effects, WakeWaiter)] == [(1, [b"value"]), (2, [b"value"])]
    assert only(hand.start_waiting(THEIRS, waiter=3), WakeWaiter).values == [b"value"]
    hand.release(THEIRS)


@takes("borrowing", ("asked", "failed"), ("failed", "release"))
def test_a_borrower_is_told_of_a_failure(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.start_waiting(THEIRS)
    assert only(hand.get(2, ObjectFailed(THEIRS, BROKEN)), WakeWaiter).values == [BROKEN]
    hand.release(THEIRS)


@takes("borrowing", ("asked", "resolved stored"), ("stored", "release"))
def test_a_borrower_frees_its_copy_with_the_ref(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.start_waiting(THEIRS)
    assert hand.get(2, ObjectLocated(THEIRS, 1, 100)) == [StartRead(1, THEIRS, 1, 0, 100)]
    assert only(hand.tell(ReadCompleted(1)), WakeWaiter).values == [place_of(THEIRS, 0, 100)]
    assert not of(hand.release(THEIRS), FreeSegment), "Others may ask for it."
    assert hand.free_kept() == [FreeSegment(THEIRS, 0)]


@takes("borrowing", ("asked", "release"))
def test_an_answer_that_comes_too_late_gives_its_contents_back(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.submit(2, arguments=(THEIRS,))
    hand.tell(CancelRequested(hand.own(2), False))
    assert sent(hand.release(THEIRS)) == [(2, BorrowReleased(THEIRS, {1: 1}))]
    inner = foreign(1, 9)
    assert sent(hand.get(2, ObjectResolved(THEIRS, b"list", (inner,)))) == [(1, BorrowReleased(inner, {2: 1}))]
    assert hand.stale("answer to a released ref") == 1
    hand.release(hand.own(2))


def test_what_is_inside_a_borrowed_value_is_held_with_it(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.start_waiting(THEIRS)
    inner = foreign(1, 9)
    hand.get(2, ObjectResolved(THEIRS, b"list", (inner,)))
    effects = sent(hand.release(THEIRS))
    assert effects == [(2, BorrowReleased(THEIRS, {1: 1})), (1, BorrowReleased(inner, {2: 1}))]


def test_a_ref_of_ones_own_that_comes_home_is_no_loan(make_core: MakeCore) -> None:
    hand = make_core()
    home = hand.own(9)
    hand.tell(ObjectPut(home, SMALL))
    borrow(hand, home)
    assert not hand.core.borrowing.objects
    hand.release(home)
    assert hand.release(home) == []


# --- as the owner ---


def test_a_report_is_confirmed_and_keeps_the_value(make_core: MakeCore) -> None:
    hand = make_core()
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, SMALL))
    assert sent(hand.get(1, BorrowAdded(mine, 2))) == [(1, BorrowConfirmed(mine))]
    hand.release(mine)
    assert hand.owned(9).borrowers == {(1, 2): 1}
    hand.get(2, BorrowReleased(mine, {1: 1}))
    assert mine not in hand.core.ownership.objects


def test_a_release_may_come_before_its_report(make_core: MakeCore) -> None:
    hand = make_core()
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, SMALL))
    hand.get(2, BorrowReleased(mine, {1: 1}))
    hand.release(mine)
    assert hand.owned(9).borrowers == {(1, 2): -1}, "Rank 1 still waits to be told that it may let go."
    assert sent(hand.get(1, BorrowAdded(mine, 2))) == [(1, BorrowConfirmed(mine))]
    assert mine not in hand.core.ownership.objects


@given(st.data())
def test_reports_and_releases_may_come_in_any_order(data: st.DataObject) -> None:
    hand = Hand(n_ranks=5)
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, SMALL))
    ranks = st.integers(1, 4)
    pairs = data.draw(st.lists(st.tuples(ranks, ranks).filter(lambda pair: pair[0] != pair[1]), max_size=8))
    news: list[tuple[int, BorrowAdded | BorrowReleased]] = [(one, BorrowAdded(mine, other)) for one, other in pairs]
    for borrower in sorted({other for _, other in pairs}):
        news.append((borrower, BorrowReleased(mine, Counter(one for one, other in pairs if other == borrower))))
    news = data.draw(st.permutations(news))
    released_at = data.draw(st.integers(0, len(news)))
    counts: Counter[tuple[int, int]] = Counter()
    for index in range(len(news) + 1):
        if index == released_at:
            hand.release(mine)
        is_kept = index < released_at or any(counts.values())
        assert is_kept == (mine in hand.core.ownership.objects)
        if not is_kept:
            break  # What is still to come is said by nobody who keeps the rules: reporters hold on until confirmed.
        assert (hand.owned(9).borrowers or {}) == {pair: n for pair, n in counts.items() if n}
        source, message = news[index]
        hand.get(source, message)
        if isinstance(message, BorrowAdded):
            counts[source, message.borrower] += 1
        else:
            counts.subtract({(reporter, source): n for reporter, n in message.reports.items()})
    hand.assert_empty()


def test_the_owner_reports_who_gets_a_value_with_refs(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, Result(b"list", 4, (THEIRS,))))
    hand.release(THEIRS)
    assert sent(hand.get(1, ObjectAsked(mine))) == [
        (2, BorrowAdded(THEIRS, 1)),
        (1, ObjectResolved(mine, b"list", (THEIRS,))),
    ]
    assert hand.release(mine) == [], "Rank 2 must know of rank 1 before it hears that this rank lets go."
    assert sent(hand.get(2, BorrowConfirmed(THEIRS))) == [(2, BorrowReleased(THEIRS, {1: 1}))]


def test_nobody_is_reported_where_the_refs_go_home(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, Result(b"list", 4, (THEIRS,))))
    assert [rank for rank, _ in sent(hand.get(2, ObjectAsked(mine)))] == [2]
    hand.release(mine, THEIRS)


def test_a_failure_is_answered_as_such(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.get(1, TaskRaised(task, BROKEN, False))
    assert sent(hand.get(2, ObjectAsked(task))) == [(2, ObjectFailed(task, BROKEN))]
    hand.release(task)


def test_a_stored_value_is_answered_with_its_place(make_core: MakeCore) -> None:
    hand = make_core()
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    assert sent(hand.get(2, ObjectAsked(mine))) == [(2, ObjectLocated(mine, 0, LARGE.nbytes))]
    assert hand.release(mine) == [FreeSegment(mine, 0)]


def test_whoever_let_go_after_it_asked_gets_no_answer(make_core: MakeCore) -> None:
    hand = make_core()
    task = hand.push_to_1()
    hand.get(1, BorrowAdded(task, 2))
    hand.get(2, ObjectAsked(task), BorrowReleased(task, {1: 1}))
    assert sent(hand.get(1, TaskReturned(task, (LARGE,)))) == []
    assert sent(hand.release(task)) == [(1, ObjectFreed(task))]


def test_a_question_may_come_too_late(make_core: MakeCore) -> None:
    hand = make_core()
    answer = only(hand.get(2, ObjectAsked(hand.own(9))), ObjectFailed)
    assert answer.failure.kind == LOST
    assert hand.stale("question about a collected object") == 1


# --- what users can do wrong ---


def test_a_ref_to_a_collected_object_fails_and_does_not_hang(make_core: MakeCore) -> None:
    hand = make_core()
    gone = hand.own(9)
    hand.tell(RefsAdded([gone]))
    assert hand.stale("ref to a collected object") == 1
    (value,) = only(hand.start_waiting(gone), WakeWaiter).values
    assert getattr(value, "kind", None) == LOST
    hand.release(gone)


def test_a_ref_that_nobody_knows_can_be_dropped(make_core: MakeCore) -> None:
    hand = make_core()
    assert hand.release(hand.own(9), THEIRS) == []
    assert hand.stale("release of an unknown ref") == 2


def test_a_long_chain_of_refs_goes_at_once(make_core: MakeCore) -> None:
    hand = make_core()
    ids = [hand.own(n) for n in range(1, 20_001)]
    previous: tuple[int, ...] = ()
    for object_id in ids:
        hand.core.handle(ObjectPut(object_id, Result(b"", 0, previous)), 0.0)
        previous = (object_id,)
    hand.release(*ids[:-1])
    assert len(hand.core.ownership.objects) == len(ids)
    hand.release(ids[-1])
    assert not hand.core.ownership.objects


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"n_local": -1}, "negative counts"),
        ({"n_local": 0}, "held by nobody"),
        ({"state": "pending"}, "no task makes it"),
        ({"payload": None}, "its payload contradicts"),
        ({"askers": {2: None}}, "were not told"),
    ],
)
def test_check_sees_what_is_wrong(make_core: MakeCore, damage: dict[str, object], sentence: str) -> None:
    hand = make_core()
    hand.tell(ObjectPut(hand.own(9), SMALL))
    record = hand.owned(9)
    right = {name: getattr(record, name) for name in damage}
    _set(record, damage)
    with pytest.raises(Exception, match=sentence):
        hand.core.check()
    _set(record, right)
    hand.release(hand.own(9))


def _set(record: OwnedObject, fields: dict[str, object]) -> None:
    for name, value in fields.items():
        setattr(record, name, value)
