"""Deaths: a rank dies, and the job goes on."""

from __future__ import annotations

from hpcfut.core.effects import CloseArgument, ForgetArena, FreeSegment, RunTask, SendObject, StartRead
from hpcfut.core.events import (
    CancelRequested,
    FrameReceived,
    ObjectPut,
    RankLost,
    ReadCompleted,
    ReadFailed,
    RefsAdded,
    RefsReleased,
    RunReturned,
    SendCompleted,
)
from hpcfut.core.membership import DEAD
from hpcfut.model.failure import LOST, OWNER_DIED, Failure
from hpcfut.wire.messages import (
    Argument,
    BorrowAdded,
    BorrowConfirmed,
    BorrowReleased,
    BytesLent,
    CopyGone,
    DeathNoted,
    LoanRecalled,
    LoanRequested,
    ObjectAsked,
    ObjectLocated,
    ObjectResolved,
    ReadRedirected,
    ReadRequested,
    RedirectionEnded,
)
from tests.core.cores import LARGE, SMALL, Hand, MakeCore, foreign, of, only, place_of, sent, takes

REASON = "its connection was closed"


def borrowed_failure(hand: Hand, object_id: int) -> str:
    """Why an object of another rank cannot be had; empty if it can."""
    failure = hand.core.borrowing.objects[object_id].failure
    return failure.kind if failure is not None else ""


def test_nothing_is_sent_to_a_rank_that_is_dead(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    assert sent(hand.tell(RankLost(2, REASON))) == [(1, DeathNoted(2, ()))]
    assert hand.core.membership.states[2] == DEAD
    assert hand.tell(CancelRequested(foreign(2, 7), True, False)) == []
    assert hand.stale("message to a dead rank") == 1
    hand.get(1, DeathNoted(2, ()))


def test_a_death_is_told_twice(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True, n_ranks=2)
    assert hand.tell(RankLost(1, REASON)) == [ForgetArena(1)]
    assert hand.tell(RankLost(1, REASON)) == []
    assert hand.stale("second death of a rank") == 1


@takes(
    "borrowing",
    ("unknown", "owner died"),
    ("asked", "owner died"),
    ("inline", "owner died"),
    ("stored", "owner died"),
)
def test_what_is_borrowed_from_a_dead_rank_fails(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True, neighbours=(1, 2), hosts="aaa")
    unknown, asked, inline, stored = ids = [foreign(2, n) for n in range(1, 5)]
    hand.tell(RefsAdded(ids))
    hand.start_waiting(asked, waiter=1)
    hand.start_waiting(inline, waiter=2)
    hand.start_waiting(stored, waiter=3)
    hand.get(2, ObjectResolved(inline, b"inline"), ObjectLocated(stored, 2, LARGE.nbytes, (), 0))
    assert hand.core.borrowing.objects[unknown].state == "unknown"
    hand.tell(RankLost(2, REASON))
    assert {borrowed_failure(hand, object_id) for object_id in ids} == {OWNER_DIED}
    assert all(hand.core.borrowing.objects[object_id].payload is None for object_id in ids)
    hand.tell(RefsReleased(ids))
    hand.get(1, DeathNoted(2))


def test_who_asks_a_dead_owner_has_an_answer(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True, n_ranks=2)
    hand.tell(RankLost(1, REASON))
    object_id = foreign(1, 1)
    hand.tell(RefsAdded([object_id]))
    assert not of(hand.start_waiting(object_id), ObjectAsked)
    assert borrowed_failure(hand, object_id) == OWNER_DIED
    hand.release(object_id)


def test_what_a_dead_owner_has_not_confirmed_counts_as_confirmed(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    object_id = foreign(2, 1)
    hand.tell(RefsAdded([object_id]))
    hand.tell(ObjectPut(hand.own(1), SMALL))
    hand.core.references.report(object_id, 1)
    hand.release(object_id, hand.own(1))
    assert object_id in hand.core.borrowing.objects
    hand.tell(RankLost(2, REASON))
    hand.get(1, DeathNoted(2))


def test_a_note_names_what_is_held_because_of_the_dead(make_core: MakeCore) -> None:
    hand = make_core(1, n_ranks=4, survives_deaths=True)
    named, other = foreign(3, 1), foreign(3, 2)
    hand.lend(owner=2)
    hand.accept(1, owner=2, nested=(named, hand.own(7)))
    hand.tell(RefsAdded([named, other, hand.own(7)]))
    assert sent(hand.tell(RankLost(2, REASON)))[-2:] == [(0, DeathNoted(2)), (3, DeathNoted(2, (named,)))]
    hand.get(0, DeathNoted(2))
    hand.get(3, DeathNoted(2))
    hand.may_keep = True


def test_an_owner_keeps_what_names_the_dead_until_all_have_noted(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, survives_deaths=True)
    hand.tell(ObjectPut(hand.own(1), SMALL))
    hand.get(1, BorrowAdded(hand.own(1), 2))
    hand.release(hand.own(1))
    hand.get(1, DeathNoted(2))
    hand.get(3, DeathNoted(2, (hand.own(1),)))
    assert hand.owned(1).borrowers == {(1, 2): 1, (3, 3): 1}
    hand.tell(RankLost(2, REASON))
    assert hand.owned(1).borrowers == {(3, 3): 1}
    hand.get(3, BorrowReleased(hand.own(1), {3: 1}))
    assert hand.own(1) not in hand.core.ownership.objects


def test_a_late_report_of_a_dead_borrower_is_confirmed_and_forgotten(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.tell(ObjectPut(hand.own(1), SMALL))
    hand.tell(RankLost(2, REASON))
    hand.get(1, DeathNoted(2))
    assert sent(hand.get(1, BorrowAdded(hand.own(1), 2))) == [(1, BorrowConfirmed(hand.own(1)))]
    assert hand.stale("report of a dead borrower") == 1
    hand.release(hand.own(1))


def test_a_loan_that_the_dead_have_recalled_is_kept(make_core: MakeCore) -> None:
    hand = make_core(1, cpus=1, neighbours=(0, 1, 2), hosts="aaa", survives_deaths=True)
    hand.lend()
    hand.core.scheduler.grants[0, 1].depth = 4
    object_id = foreign(0, 50)
    lent = Argument(object_id, None, 2, 100)
    hand.accept(1, arguments=(lent,))
    hand.get(2, BytesLent(object_id, 640, 100))
    for n in (2, 3):
        hand.accept(n, arguments=(lent,))
    hand.get(2, LoanRecalled(object_id))
    hand.tell(RankLost(2, REASON))
    hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    effects = hand.tell(RunReturned(foreign(0, 2), (SMALL,)))
    assert only(effects, RunTask).task_id == foreign(0, 3)
    assert not of(effects, CloseArgument), "It is open for the third."
    effects = hand.tell(RunReturned(foreign(0, 3), (SMALL,)))
    assert of(effects, CloseArgument)
    assert only(effects, ForgetArena).rank == 2
    hand.get(0, DeathNoted(2))


def test_a_reader_that_is_redirected_to_a_dead_rank_comes_back(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, survives_deaths=True)
    object_id = foreign(1, 1)
    hand.tell(RefsAdded([object_id]))
    hand.start_waiting(object_id)
    start = only(hand.get(1, ObjectLocated(object_id, 1, LARGE.nbytes)), StartRead)
    hand.tell(RankLost(2, REASON))
    effects = hand.get(1, ReadRedirected(object_id, start.transfer_id, 2))
    assert sent(effects) == [(1, CopyGone(object_id, 2))]
    again = only(effects, StartRead)
    assert again.rank == 1
    hand.tell(ReadCompleted(again.transfer_id))
    hand.release(object_id)
    hand.get(1, RedirectionEnded(object_id), DeathNoted(2))
    hand.get(3, DeathNoted(2))


def test_what_the_dead_were_to_be_sent_or_lent(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, neighbours=(1, 2), hosts="aaab", survives_deaths=True)
    object_id = hand.own(1)
    hand.tell(ObjectPut(object_id, LARGE))
    hand.get(1, LoanRequested(object_id))
    sends = hand.get(3, ReadRequested(object_id, 5))
    assert only(sends, SendObject).rank == 3
    hand.release(object_id)
    hand.tell(RankLost(1, REASON))
    assert hand.core.copies.copies[object_id].lent == {}
    hand.tell(RankLost(3, REASON))
    freed = hand.tell(SendCompleted(object_id))
    assert only(freed, FreeSegment).object_id == object_id
    hand.get(2, DeathNoted(1), DeathNoted(3))
    assert place_of(object_id, 0, 1).rank == 0


def test_the_edge_ends_a_read_that_the_dead_has_turned_elsewhere_in_the_same_turn(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, hosts="abcd", survives_deaths=True)
    object_id = foreign(1, 1)
    hand.tell(RefsAdded([object_id]))
    hand.start_waiting(object_id)
    first = only(hand.get(1, ObjectLocated(object_id, 2, LARGE.nbytes)), StartRead)
    redirected = FrameReceived(2, 0, [ReadRedirected(object_id, first.transfer_id, 3)])
    failure = Failure(LOST, "Rank 2 died.")
    told = hand.tell(redirected, RankLost(2, REASON), ReadFailed(first.transfer_id, failure))
    second = only(told, StartRead)
    assert second.rank == 3
    assert hand.stale("end of a read that was turned elsewhere") == 1
    hand.tell(ReadCompleted(second.transfer_id))
    hand.release(object_id)
    hand.get(3, DeathNoted(2))
    hand.get(1, DeathNoted(2))
