"""Many hosts want an object: who is sent it by the rank that stores it, and who gets it from whoever has read it."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import (
    DropSpilled,
    Effect,
    FreeSegment,
    GiveRoom,
    SendObject,
    StartRead,
    WakeWaiter,
)
from hpcfut.core.events import (
    ObjectPut,
    ObjectsSpilled,
    ReadCompleted,
    ReadDenied,
    ReadFailed,
    RoomReturned,
    RoomWanted,
    SendCompleted,
    ViewsClosed,
)
from hpcfut.model.errors import FrameRefusedError
from hpcfut.model.failure import FULL, LOST, Failure
from hpcfut.wire.messages import (
    BytesLent,
    CopyGone,
    LoanRecalled,
    LoanRequested,
    LoanReturned,
    ObjectFailed,
    ObjectLocated,
    ReadRedirected,
    ReadRefused,
    ReadRequested,
    RedirectionEnded,
)
from tests.core.cores import LARGE, Hand, MakeCore, lost, of, only, place_of, sent, takes
from tests.core.test_pressure import NBYTES, TWO, put_two, spill
from tests.core.test_references import THEIRS, borrow
from tests.core.test_transfers import BROKEN_LINK, give_up, read

NO_PAGES = Failure(FULL, "The system has no more memory.")


def ask(hand: Hand, rank: int, object_id: int) -> int:
    """A rank asks for an object; gives the rank that it is redirected to, or the own one if it is sent the bytes."""
    effects = hand.get(rank, ReadRequested(object_id, 5))
    if of(effects, SendObject):
        assert only(effects, SendObject).rank == rank
        hand.tell(SendCompleted(object_id))
        return hand.rank
    assert only(effects, ReadRedirected).transfer_id == 5
    return only(effects, ReadRedirected).rank


def put(hand: Hand) -> int:
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    return mine


# --- as the holder ---


def test_hosts_form_a_tree(make_core: MakeCore) -> None:
    hand = make_core(0, 8, hosts="abcdefgh")
    mine = put(hand)
    assert [ask(hand, rank, mine) for rank in range(1, 8)] == [0, 0, 1, 1, 2, 2, 3]
    hand.release(mine)


def test_the_other_ranks_of_a_host_go_to_the_first_one(make_core: MakeCore) -> None:
    hand = make_core(0, 7, hosts="abbbccc")
    mine = put(hand)
    assert [ask(hand, rank, mine) for rank in (2, 1, 3, 6, 4, 5)] == [0, 2, 2, 0, 6, 6]
    hand.release(mine)


def test_who_asks_again_has_its_old_place(make_core: MakeCore) -> None:
    hand = make_core(0, 5, hosts="abcde")
    mine = put(hand)
    assert [ask(hand, rank, mine) for rank in (1, 2, 3, 4)] == [0, 0, 1, 1]
    hand.get(1, CopyGone(mine, 1))
    # Not to one that may be waiting for it.
    assert ask(hand, 1, mine) == 0
    assert ask(hand, 3, mine) == 1
    hand.release(mine)


def test_nobody_is_redirected_to_a_copy_that_has_gone(make_core: MakeCore) -> None:
    hand = make_core(0, 8, hosts="abbcdefg")
    mine = put(hand)
    assert [ask(hand, rank, mine) for rank in (1, 3, 4, 5, 6)] == [0, 0, 1, 1, 3]
    # It says so itself, or somebody else who has not been served; then it is told, too.
    assert not hand.get(1, CopyGone(mine, 1))
    assert ask(hand, 1, mine) == 0
    assert sent(hand.get(4, CopyGone(mine, 1))) == [(1, RedirectionEnded(mine))]
    hand.get(4, CopyGone(mine, 1))
    assert hand.stale("end of a copy that nobody is redirected to") == 1
    assert ask(hand, 4, mine) == 0
    assert ask(hand, 2, mine) == 0, "Another rank of the host reads it, and serves in the place of the first."
    assert [ask(hand, rank, mine) for rank in (1, 5)] == [2, 2]
    # Above who has gone somebody is left.
    hand.get(4, CopyGone(mine, 4))
    assert ask(hand, 7, mine) == 3
    hand.get(3, CopyGone(mine, 3))
    assert ask(hand, 7, mine) == 0
    hand.release(mine)
    hand.get(2, CopyGone(mine, 2))
    assert hand.stale("end of a copy that nobody is redirected to") == 2


def test_what_others_have_is_not_read_back(make_core: MakeCore) -> None:
    hand = make_core(0, 3, hosts="abb", **TWO)
    first, second = put_two(hand)
    assert ask(hand, 1, first) == 0
    hand.start_waiting(second)
    assert spill(hand) == first
    assert ask(hand, 2, first) == 1
    hand.release(first, second)


def test_loans_are_nobodys_business(make_core: MakeCore) -> None:
    hand = make_core(0, 3, hosts="aaa", neighbours=(0, 1, 2))
    mine = put(hand)
    for rank in (1, 2):
        assert only(hand.get(rank, LoanRequested(mine)), BytesLent)
        hand.get(rank, LoanReturned(mine, 1))
    hand.release(mine)


# --- as a reader who is redirected ---


@takes("copies", ("reading", "read elsewhere"))
def test_a_reader_is_redirected_to_another_host(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="abcd")
    read(hand)
    effects = hand.get(2, ReadRedirected(THEIRS, 1, 3))
    assert effects == [FreeSegment(THEIRS, 0), StartRead(2, THEIRS, 3, 0, 100)]
    assert only(hand.tell(ReadCompleted(2)), WakeWaiter).values == [place_of(THEIRS, 0, 100)]
    assert not of(hand.release(THEIRS), FreeSegment)
    assert hand.get(2, RedirectionEnded(THEIRS)) == [FreeSegment(THEIRS, 0)]


def test_who_is_redirected_on_its_own_host_and_must_read_keeps_nothing(make_core: MakeCore) -> None:
    # The rank that reads for the host is no neighbour, because its memory cannot be reached.
    hand = make_core(0, 3, hosts="aab")
    read(hand)
    assert only(hand.get(2, ReadRedirected(THEIRS, 1, 1)), StartRead).rank == 1
    hand.tell(ReadCompleted(2))
    assert of(hand.release(THEIRS), FreeSegment)
    # But who goes back to the holder then reads for the host itself.
    borrow(hand, n=2)
    hand.start_waiting(THEIRS, waiter=2)
    hand.get(2, ObjectLocated(THEIRS, 2, 100))
    hand.get(2, ReadRedirected(THEIRS, 3, 1))
    assert only(hand.get(1, ReadRefused(THEIRS, 4)), StartRead).rank == 2
    hand.tell(ReadCompleted(5))
    assert not of(hand.release(THEIRS), FreeSegment)


@takes("copies", ("reading", "ask"))
def test_a_reader_is_redirected_on_its_own_host(make_core: MakeCore) -> None:
    hand = make_core(0, 3, hosts="aab", neighbours=(0, 1))
    read(hand)
    effects = hand.get(2, ReadRedirected(THEIRS, 1, 1))
    assert of(effects, FreeSegment) == [FreeSegment(THEIRS, 0)]
    assert sent(effects) == [(1, LoanRequested(THEIRS))]
    assert only(hand.get(1, BytesLent(THEIRS, 640, 100)), WakeWaiter).values == [place_of(THEIRS, 1, 100, 640)]
    effects = hand.release(THEIRS)
    assert (1, LoanReturned(THEIRS, 1)) in sent(effects)
    assert not of(effects, CopyGone)


@takes("copies", ("asked", "read elsewhere"))
def test_a_neighbour_that_does_not_have_it_sends_the_reader_back(make_core: MakeCore) -> None:
    hand = make_core(0, 3, hosts="aab", neighbours=(0, 1))
    read(hand)
    hand.get(2, ReadRedirected(THEIRS, 1, 1))
    effects = hand.get(1, ReadRefused(THEIRS, 0))
    assert sent(effects) == [(2, CopyGone(THEIRS, 1))]
    assert only(effects, StartRead) == StartRead(2, THEIRS, 2, 0, 100)
    assert only(hand.tell(ReadCompleted(2)), WakeWaiter)
    hand.release(THEIRS)


def test_the_second_refusal_of_a_neighbour_comes_too_late(make_core: MakeCore) -> None:
    hand = make_core(0, 3, hosts="aab", neighbours=(0, 1))
    read(hand)
    hand.get(2, ReadRedirected(THEIRS, 1, 1))
    hand.get(1, ReadRefused(THEIRS, 0), ReadRefused(THEIRS, 0))
    assert hand.stale("refusal of a loan that nobody wants") == 1
    hand.tell(ReadCompleted(2))
    hand.release(THEIRS)


@pytest.mark.parametrize("failure", [None, Failure(FULL, "There is no room on rank 3.")])
def test_a_rank_that_does_not_have_it_sends_the_reader_back(make_core: MakeCore, failure: Failure | None) -> None:
    hand = make_core(0, 4, hosts="abcd")
    read(hand)
    hand.get(2, ReadRedirected(THEIRS, 1, 3))
    effects = hand.get(3, ReadRefused(THEIRS, 2, failure))
    assert sent(effects) == [(2, CopyGone(THEIRS, 3))]
    assert only(effects, StartRead) == StartRead(3, THEIRS, 2, 0, 100)
    # The holder's word is final.
    told = lost(hand.get(2, ReadRefused(THEIRS, 3)))
    assert told.kind == LOST
    assert only(hand.get(2, ObjectFailed(THEIRS, told)), WakeWaiter).values == [told]
    hand.release(THEIRS)


def test_a_broken_link_to_a_rank_sends_the_reader_back(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="abcd")
    read(hand)
    hand.get(2, ReadRedirected(THEIRS, 1, 3))
    effects = hand.tell(ReadFailed(2, BROKEN_LINK))
    assert sent(effects) == [(2, CopyGone(THEIRS, 3))]
    assert only(hand.tell(ReadFailed(only(effects, StartRead).transfer_id, BROKEN_LINK)), WakeWaiter).values == [
        BROKEN_LINK
    ]
    hand.release(THEIRS)


def test_a_read_that_this_host_has_no_memory_for_is_nobody_elses_fault(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="abcd")
    read(hand)
    hand.get(2, ReadRedirected(THEIRS, 1, 3))
    effects = hand.tell(ReadDenied(2, NO_PAGES))
    assert only(effects, WakeWaiter).values == [NO_PAGES]
    assert not sent(effects), "Rank 3 has it, and serves others."
    # Who wants it next begins anew, with the holder.
    effects = hand.start_waiting(THEIRS, waiter=2)
    assert only(effects, StartRead).rank == 2
    hand.tell(ReadCompleted(3))
    hand.release(THEIRS)
    hand.get(2, RedirectionEnded(THEIRS))


def test_who_wants_it_no_more_goes_nowhere(make_core: MakeCore) -> None:
    for neighbours in ((), (0, 1)):
        hand = make_core(0, 3, hosts="aab" if neighbours else "abc", neighbours=neighbours)
        read(hand)
        give_up(hand)
        effects = hand.get(2, ReadRedirected(THEIRS, 1, 1))
        assert sent(effects) == [(2, CopyGone(THEIRS, 0))], "It does not read for its host after all."
        assert of(effects, FreeSegment) == [FreeSegment(THEIRS, 0)]
        assert not of(effects, StartRead)


def test_who_wants_it_no_more_does_not_come_back(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="abcd")
    read(hand)
    hand.get(2, ReadRedirected(THEIRS, 1, 3))
    give_up(hand)
    assert sent(hand.get(3, ReadRefused(THEIRS, 2))) == [(2, CopyGone(THEIRS, 3)), (2, CopyGone(THEIRS, 0))]
    assert not hand.core.copies.copies


@pytest.mark.parametrize(
    ("source", "rank", "why"), [(3, 1, "was not asked for"), (2, 0, "to itself"), (2, 7, "has ranks 0 to 3 only")]
)
def test_a_redirection_that_cannot_be(make_core: MakeCore, source: int, rank: int, why: str) -> None:
    hand = make_core(0, 4, hosts="abcd")
    read(hand)
    with pytest.raises(FrameRefusedError, match=why):
        hand.get(source, ReadRedirected(THEIRS, 1, rank))
    hand.may_keep = True


# --- as a reader who serves others ---


def served(effects: list[Effect]) -> list[int]:
    return [effect.rank for effect in of(effects, SendObject)]


def test_a_reader_serves_those_who_have_come_before_its_own_bytes(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="aabc", neighbours=(0, 1))
    read(hand)
    assert not hand.get(1, LoanRequested(THEIRS)) + hand.get(3, ReadRequested(THEIRS, 8))
    effects = hand.tell(ReadCompleted(1))
    assert served(effects) == [3]
    assert sent(effects) == [(1, BytesLent(THEIRS, 0, 100))]
    assert served(hand.get(3, ReadRequested(THEIRS, 9))) == [3], "And later."
    hand.tell(SendCompleted(THEIRS), SendCompleted(THEIRS))
    assert not of(hand.release(THEIRS), FreeSegment)
    assert not hand.get(1, LoanReturned(THEIRS, 1))


def test_a_reader_serves_others_with_what_it_wants_no_more(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="aabc", neighbours=(0, 1))
    read(hand)
    hand.get(1, LoanRequested(THEIRS))
    give_up(hand)
    assert not hand.get(3, ReadRequested(THEIRS, 8))
    effects = hand.tell(ReadCompleted(1))
    assert served(effects) == [3]
    assert sent(effects) == [(1, BytesLent(THEIRS, 0, 100))]
    assert not hand.get(1, LoanReturned(THEIRS, 1))
    hand.tell(SendCompleted(THEIRS))
    assert served(hand.get(3, ReadRequested(THEIRS, 9))) == [3]
    assert not hand.get(2, RedirectionEnded(THEIRS)), "It is being sent."
    assert served(hand.get(3, ReadRequested(THEIRS, 10))) == [3], "As long as the bytes are there."
    assert not hand.tell(SendCompleted(THEIRS))
    assert hand.tell(SendCompleted(THEIRS)) == [FreeSegment(THEIRS, 0)]
    assert sent(hand.get(3, ReadRequested(THEIRS, 11))) == [(3, ReadRefused(THEIRS, 11))]


def test_who_waits_for_bytes_that_nobody_is_redirected_to_any_more_goes_back(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="abcd")
    read(hand)
    hand.get(3, ReadRequested(THEIRS, 8))
    give_up(hand)
    hand.get(2, RedirectionEnded(THEIRS))
    assert sent(hand.tell(ReadCompleted(1))) == [(3, ReadRefused(THEIRS, 8))]


def test_what_a_value_is_built_over_is_given_to_others(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="aabc", neighbours=(0, 1))
    hand.keeps_values = True
    read(hand)
    hand.tell(ReadCompleted(1))
    hand.release(THEIRS)
    assert not hand.free_kept()
    assert sent(hand.get(1, LoanRequested(THEIRS))) == [(1, BytesLent(THEIRS, 0, 100))]
    assert not hand.tell(ViewsClosed([THEIRS]))
    assert of(hand.get(1, LoanReturned(THEIRS, 1)), FreeSegment)


def test_a_reader_that_is_redirected_serves_others_later(make_core: MakeCore) -> None:
    hand = make_core(0, 5, hosts="abcde")
    read(hand)
    hand.get(4, ReadRequested(THEIRS, 8))
    assert not sent(hand.get(2, ReadRedirected(THEIRS, 1, 3)))
    assert served(hand.tell(ReadCompleted(2))) == [4]
    hand.tell(SendCompleted(THEIRS))
    hand.release(THEIRS)


def test_a_reader_that_borrows_sends_others_back(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="aabc", neighbours=(0, 1))
    read(hand)
    hand.get(3, ReadRequested(THEIRS, 8))
    effects = hand.get(2, ReadRedirected(THEIRS, 1, 1))
    assert sent(effects) == [(1, LoanRequested(THEIRS)), (3, ReadRefused(THEIRS, 8))]
    hand.get(1, BytesLent(THEIRS, 640, 100))
    assert sent(hand.get(3, ReadRequested(THEIRS, 9))) == [(3, ReadRefused(THEIRS, 9))], "It is not its own to give."
    hand.release(THEIRS)


def test_a_reader_whose_bytes_do_not_come_sends_others_back(make_core: MakeCore) -> None:
    hand = make_core(0, 4, hosts="abcd")
    read(hand)
    hand.get(3, ReadRequested(THEIRS, 8))
    assert sent(hand.tell(ReadFailed(1, BROKEN_LINK))) == [(3, ReadRefused(THEIRS, 8, BROKEN_LINK))]
    effects = hand.get(3, ReadRequested(THEIRS, 9))
    assert sent(effects) == [(2, CopyGone(THEIRS, 0)), (3, ReadRefused(THEIRS, 9))]
    hand.release(THEIRS)


def test_nobody_waits_for_room_on_a_reader(make_core: MakeCore) -> None:
    hand = make_core(0, 5, hosts="abcde", **TWO)
    hand.keeps_values = True
    first, second = put_two(hand)
    hand.start_waiting(first, waiter=7)
    borrow(hand)
    hand.start_waiting(THEIRS)
    # The second one is spilled, and a write waits behind the read.
    hand.get(2, ObjectLocated(THEIRS, 2, NBYTES))
    assert only(hand.tell(ObjectsSpilled(1, 3)), StartRead).transfer_id == 1
    assert not hand.tell(RoomWanted(8, hand.own(13), NBYTES))
    hand.get(4, ReadRequested(THEIRS, 8))
    effects = hand.get(2, ReadRedirected(THEIRS, 1, 3))
    # Its buffer goes to the write.
    assert only(effects, GiveRoom)
    assert not of(effects, StartRead)
    assert (4, ReadRefused(THEIRS, 8)) in sent(effects)
    assert sent(hand.get(4, ReadRequested(THEIRS, 9))) == [(4, ReadRefused(THEIRS, 9))]
    assert only(hand.tell(RoomReturned(hand.own(13))), StartRead).rank == 3
    hand.tell(ReadCompleted(2))
    assert of(hand.release(THEIRS, first, second), DropSpilled)
    hand.tell(ViewsClosed([first, THEIRS]))


def test_what_only_neighbours_still_read_is_recalled(make_core: MakeCore) -> None:
    hand = make_core(0, 3, hosts="aab", neighbours=(0, 1), nbytes_store=NBYTES + 64)
    read(hand)
    hand.get(1, LoanRequested(THEIRS))
    hand.tell(ReadCompleted(1))
    hand.release(THEIRS)
    hand.free_kept()
    effects = hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert sent(effects) == [(1, LoanRecalled(THEIRS))]
    assert only(hand.get(1, LoanReturned(THEIRS, 1)), GiveRoom)
    hand.tell(RoomReturned(hand.own(13)))
