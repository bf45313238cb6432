"""Objects that nobody holds: each rank that wants one reads it from its source, drops it, and reads it again."""

from __future__ import annotations

from hpcfut.core.effects import FreeSegment, GiveRoom, ReadSource, RunTask, SpillObjects, WakeWaiter
from hpcfut.core.events import (
    ObjectPut,
    ReadCompleted,
    ReadFailed,
    RoomReturned,
    RoomWanted,
    RunReturned,
    SourcePut,
    ViewsClosed,
    WaitAbandoned,
    WaitStarted,
)
from hpcfut.model.failure import RAISED, Failure
from hpcfut.wire.messages import (
    Argument,
    BorrowReleased,
    LeaseRequested,
    ObjectAsked,
    ObjectFreed,
    ObjectResolved,
    RedirectionEnded,
    TaskDone,
    TaskPushed,
    TaskRaised,
)
from tests.core.cores import LARGE, ON_RANK_2, SMALL, Hand, MakeCore, foreign, of, only, place_of, sent, takes
from tests.core.test_inventories import ask
from tests.core.test_pressure import NBYTES, TWO
from tests.core.test_references import THEIRS, borrow

RECIPE = b"chunk 7"
UNREADABLE = Failure(RAISED, "The file is gone.")


def put_source(hand: Hand, n: int = 9) -> int:
    """User code puts an array with a source."""
    mine = hand.own(n)
    assert hand.tell(SourcePut(mine, RECIPE, NBYTES)) == []
    return mine


def argument(object_id: int = THEIRS) -> Argument:
    """It comes with a task."""
    return Argument(object_id, RECIPE, 0, NBYTES)


def holder_of_lease(make_core: MakeCore, **config: object) -> Hand:
    """Rank 1, on which rank 0 has a lease."""
    hand = make_core(1, **config)
    hand.lend()
    return hand


@takes("copies", ("absent", "source"), ("spilled", "read"))
def test_it_is_ready_at_once_and_read_when_it_is_wanted(make_core: MakeCore) -> None:
    hand = make_core()
    mine = put_source(hand)
    ready = only(hand.tell(WaitStarted(1, [mine], 1, False, False, 0)), WakeWaiter)
    assert (ready.object_ids, ready.values) == ([mine], [None])
    assert hand.core.copies.arena.n_segments == 0
    assert only(hand.start_waiting(mine, waiter=2), ReadSource) == ReadSource(1, mine, RECIPE, 0, NBYTES)
    assert only(hand.tell(ReadCompleted(1)), WakeWaiter).values == [place_of(mine, 0, NBYTES)]
    assert only(hand.start_waiting(mine, waiter=3), WakeWaiter).values == [place_of(mine, 0, NBYTES)]
    assert hand.release(mine) == [FreeSegment(mine, 0)]


def test_what_has_been_read_is_at_hand_without_a_turn(make_core: MakeCore) -> None:
    hand = make_core()
    mine, at_hand = put_source(hand), hand.core.waits.open_at_hand
    assert at_hand(mine) is None
    hand.start_waiting(mine)
    hand.tell(ReadCompleted(1))
    assert at_hand(mine) == place_of(mine, 0, NBYTES)
    hand.release(mine)
    assert hand.tell(ViewsClosed([mine])) == [FreeSegment(mine, 0)]


@takes("copies", ("spilled", "free"))
def test_what_nobody_wants_is_never_read(make_core: MakeCore) -> None:
    hand = make_core()
    assert hand.release(put_source(hand)) == []


@takes("copies", ("local", "unload"))
def test_it_is_dropped_under_pressure_and_read_again(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    first, second = put_source(hand, 9), put_source(hand, 10)
    for transfer, mine in enumerate((first, second), 1):
        hand.start_waiting(mine)
        hand.tell(ReadCompleted(transfer))
    effects = hand.tell(RoomWanted(7, hand.own(13), NBYTES))
    assert [type(effect) for effect in effects] == [FreeSegment, GiveRoom]
    assert only(effects, FreeSegment).object_id == first, "It was used less recently."
    hand.tell(ObjectPut(hand.own(13), LARGE))
    effects = hand.start_waiting(first)
    assert not of(effects, SpillObjects), "The other one goes, and that costs nothing either."
    assert only(effects, ReadSource) == ReadSource(3, first, RECIPE, NBYTES + 64, NBYTES)
    hand.tell(ReadCompleted(3))
    assert hand.release(first, second, hand.own(13)) == [FreeSegment(first, NBYTES + 64), FreeSegment(hand.own(13), 0)]


def test_it_waits_for_room_as_all_reads_do(make_core: MakeCore) -> None:
    hand = make_core(nbytes_store=NBYTES + 64)
    hand.tell(RoomWanted(7, hand.own(8), NBYTES))
    mine = put_source(hand)
    assert not of(hand.start_waiting(mine), ReadSource)
    assert only(hand.tell(RoomReturned(hand.own(8))), ReadSource).object_id == mine
    hand.tell(ReadCompleted(1))
    hand.release(mine)


def test_what_nobody_waits_for_when_it_comes_makes_room_at_once(make_core: MakeCore) -> None:
    hand = make_core(nbytes_store=NBYTES + 64)
    mine = put_source(hand)
    hand.start_waiting(mine)
    hand.tell(WaitAbandoned(1))
    assert not of(hand.tell(RoomWanted(7, hand.own(8), NBYTES)), GiveRoom)
    assert [type(effect) for effect in hand.tell(ReadCompleted(1))] == [FreeSegment, GiveRoom]
    hand.tell(RoomReturned(hand.own(8)))
    hand.release(mine)


def test_a_task_takes_the_recipe_along_and_goes_anywhere(make_core: MakeCore) -> None:
    hand = make_core(neighbours=(0, 1, 2))
    mine = put_source(hand)
    effects = hand.submit(1, arguments=(mine,))
    assert [rank for rank, message in sent(effects) if isinstance(message, LeaseRequested)] == [1], "Not to the owner."
    assert only(hand.grant(), TaskPushed).arguments == (argument(mine),)
    hand.get(1, TaskDone(hand.own(1), b"small"))
    assert sent(hand.release(mine, hand.own(1))) == [(1, RedirectionEnded(mine))], "It may have been kept there."


def test_the_owner_answers_with_the_recipe(make_core: MakeCore) -> None:
    hand = make_core(neighbours=(0, 1, 2))
    mine = put_source(hand)
    hand.push_to_1(nested=(mine,))
    answer = only(hand.get(1, ObjectAsked(mine)), ObjectResolved)
    assert answer == ObjectResolved(mine, RECIPE, (), NBYTES)
    hand.get(1, TaskDone(hand.own(1), b"small"))
    hand.release(mine, hand.own(1))


def test_an_argument_is_read_by_the_rank_that_runs_the_task_and_dropped(make_core: MakeCore) -> None:
    hand = holder_of_lease(make_core)
    effects = hand.accept(arguments=(argument(),))
    assert only(effects, ReadSource) == ReadSource(1, THEIRS, RECIPE, 0, NBYTES)
    assert only(hand.tell(ReadCompleted(1)), RunTask).places == (place_of(THEIRS, 1, NBYTES),)
    effects = hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    assert FreeSegment(THEIRS, 0) in effects
    assert not of(effects, ObjectFreed)


def test_tasks_with_the_same_argument_share_one_read(make_core: MakeCore) -> None:
    hand = holder_of_lease(make_core)
    hand.accept(1, arguments=(argument(),))
    assert not of(hand.accept(2, arguments=(argument(),)), ReadSource)
    assert only(hand.tell(ReadCompleted(1)), RunTask).task_id == foreign(0, 1)
    effects = hand.tell(RunReturned(foreign(0, 1), (SMALL,)))
    assert only(effects, RunTask).places == (place_of(THEIRS, 1, NBYTES),)
    assert not of(effects, FreeSegment)
    hand.tell(RunReturned(foreign(0, 2), (SMALL,)))


def test_an_argument_that_cannot_be_read_fails_its_task_alone(make_core: MakeCore) -> None:
    hand = holder_of_lease(make_core)
    hand.accept(1, arguments=(argument(),))
    assert of(hand.accept(2), RunTask)
    raised = only(hand.tell(ReadFailed(1, UNREADABLE)), TaskRaised)
    assert (raised.task_id, raised.failure) == (foreign(0, 1), UNREADABLE)
    assert only(hand.tell(RunReturned(foreign(0, 2), (SMALL,))), TaskDone)


def test_a_read_that_failed_is_tried_again_by_the_next_get(make_core: MakeCore) -> None:
    hand = make_core()
    mine = put_source(hand)
    hand.start_waiting(mine)
    assert only(hand.tell(ReadFailed(1, UNREADABLE)), WakeWaiter).values == [UNREADABLE]
    assert only(hand.start_waiting(mine), ReadSource).transfer_id == 2
    assert only(hand.tell(ReadCompleted(2)), WakeWaiter).values == [place_of(mine, 0, NBYTES)]
    hand.release(mine)


def test_a_borrower_reads_for_itself_and_passes_the_recipe_on(make_core: MakeCore) -> None:
    hand = make_core(0)
    borrow(hand)
    hand.start_waiting(THEIRS)
    assert only(hand.get(2, ObjectResolved(THEIRS, RECIPE, (), NBYTES)), ReadSource).recipe == RECIPE
    assert only(hand.tell(ReadCompleted(1)), WakeWaiter).values == [place_of(THEIRS, 0, NBYTES)]
    hand.push_to_1(arguments=(THEIRS,))
    hand.get(1, TaskDone(hand.own(1), b"small"))
    effects = hand.release(THEIRS, hand.own(1))
    assert not of(effects, FreeSegment), "It is kept for whoever wants it next."
    assert only(effects, BorrowReleased).object_id == THEIRS
    borrow(hand)
    hand.start_waiting(THEIRS)
    effects = hand.get(2, ObjectResolved(THEIRS, RECIPE, (), NBYTES))
    assert only(effects, WakeWaiter).values == [place_of(THEIRS, 0, NBYTES)], "It is not read again."
    hand.release(THEIRS)
    assert hand.get(2, RedirectionEnded(THEIRS)) == [FreeSegment(THEIRS, 0)]


def test_what_was_read_for_a_task_stays_until_the_memory_is_needed(make_core: MakeCore) -> None:
    hand, theirs = holder_of_lease(make_core, **TWO), foreign(0, 99)
    hand.accept(1, arguments=(argument(theirs),))
    hand.tell(ReadCompleted(1))
    assert not of(hand.tell(RunReturned(foreign(0, 1), (SMALL,))), FreeSegment)
    assert only(hand.accept(2, arguments=(argument(theirs),)), RunTask).places == (place_of(theirs, 1, NBYTES),)
    hand.tell(RunReturned(foreign(0, 2), (SMALL,)))
    hand.tell(RoomWanted(7, hand.own(8), NBYTES))
    effects = hand.tell(RoomWanted(8, hand.own(9), NBYTES))
    assert [type(effect) for effect in effects] == [FreeSegment, GiveRoom], "Nothing is spilled for that."
    assert theirs not in hand.core.copies.copies
    hand.tell(RoomReturned(hand.own(8)), RoomReturned(hand.own(9)))
    assert hand.get(0, RedirectionEnded(theirs)) == []
    assert hand.stale("end of redirection to a copy that has gone") == 1


def test_a_task_goes_to_a_rank_that_has_been_sent_the_recipe(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4)
    mine = put_source(hand)
    hand.submit(1, arguments=(mine,), template=ON_RANK_2)
    hand.grant(2, lease_id=1)
    effects = hand.submit(2, arguments=(mine,))
    assert [rank for rank, message in sent(effects) if isinstance(message, LeaseRequested)] == [2]
    hand.grant(2, lease_id=2)
    for n in (1, 2):
        hand.get(2, TaskDone(hand.own(n), b"small"))
    hand.release(mine, hand.own(1), hand.own(2))


def test_an_answer_that_nobody_wants_any_more_leaves_nothing(make_core: MakeCore) -> None:
    hand = make_core(0)
    borrow(hand)
    hand.start_waiting(THEIRS, waiter=1)
    hand.release(THEIRS)
    hand.may_keep = True  # The wait holds no ref, which user code sees to.
    assert not of(hand.get(2, ObjectResolved(THEIRS, RECIPE, (), NBYTES)), ReadSource)
    assert THEIRS not in hand.core.copies.copies


@takes("copies", ("doomed", "want"))
def test_what_is_still_viewed_is_not_read_again(make_core: MakeCore) -> None:
    # Its last ref here is dropped while a value over it lives, and a task brings it here once more.
    hand = holder_of_lease(make_core)
    hand.keeps_values = True
    hand.accept(1, arguments=(argument(),))
    hand.tell(ReadCompleted(1))
    assert not of(hand.tell(RunReturned(foreign(0, 1), (SMALL,))), FreeSegment)
    assert only(hand.accept(2, arguments=(argument(),)), RunTask).places == (place_of(THEIRS, 1, NBYTES),)
    hand.tell(RunReturned(foreign(0, 2), (SMALL,)))
    assert hand.tell(ViewsClosed([THEIRS, THEIRS])) == [FreeSegment(THEIRS, 0)]


@takes("copies", ("reading", "free"), ("abandoned", "read"))
def test_a_read_that_was_given_up_is_taken_up_again(make_core: MakeCore) -> None:
    hand = make_core()
    mine = put_source(hand)
    hand.start_waiting(mine)
    hand.tell(WaitAbandoned(1))
    task = hand.push_to_1(arguments=(mine,))
    assert not of(hand.release(mine), FreeSegment), "The task keeps it."
    hand.get(1, TaskDone(task, b"small"))
    assert only(hand.tell(ReadCompleted(1)), FreeSegment).object_id == mine
    hand.release(task)

    borrow(hand)
    hand.start_waiting(THEIRS)
    hand.get(2, ObjectResolved(THEIRS, RECIPE, (), NBYTES))
    hand.tell(WaitAbandoned(1))
    hand.release(THEIRS)
    borrow(hand)
    hand.start_waiting(THEIRS)
    assert not of(hand.get(2, ObjectResolved(THEIRS, RECIPE, (), NBYTES)), ReadSource)
    assert only(hand.tell(ReadCompleted(2)), WakeWaiter).values == [place_of(THEIRS, 0, NBYTES)]
    hand.release(THEIRS)


def test_the_summary_says_where_it_has_been_read(make_core: MakeCore) -> None:
    hand = make_core()
    mine = put_source(hand)

    def places() -> list[int]:
        inventory = ask(hand)
        assert inventory.nbytes_spilled == 0
        return [copy.rank for copy in inventory.copies]

    assert places() == [-1]
    hand.start_waiting(mine)
    hand.tell(ReadCompleted(1))
    assert places() == [0]
    hand.release(mine)
