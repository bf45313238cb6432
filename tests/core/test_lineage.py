"""Lineage and recovery on one core: what is kept, when it goes, what is made again, and what is not."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import GiveRoom, SpillObjects, StartRead, WakeWaiter
from hpcfut.core.events import (
    BytesLost,
    CancelRequested,
    ObjectPut,
    ReadCompleted,
    RefsAdded,
    RoomReturned,
    RoomWanted,
    SpillFailed,
    StreamEndWanted,
    TemplateDropped,
)
from hpcfut.core.ownership import FAILED, PENDING, RETIRED, STORED
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import CANCELLED, LOST, UNRECOVERABLE, Failure
from hpcfut.model.ids import id_again, name_of
from hpcfut.model.template import STREAMING, TaskTemplate
from hpcfut.wire.messages import (
    Argument,
    BorrowReleased,
    ItemYielded,
    ObjectAsked,
    ObjectFailed,
    ObjectFreed,
    ObjectLocated,
    ObjectLost,
    ReadRefused,
    TaskCancelled,
    TaskDone,
    TaskPushed,
    TaskRaised,
    TaskReturned,
)
from tests.core.cores import (
    BROKEN,
    LARGE,
    PLAIN,
    RETRIED,
    SMALL,
    Hand,
    MakeCore,
    lost,
    of,
    only,
    place_of,
    pushed,
    sent,
    takes,
)
from tests.core.test_references import THEIRS, borrow

TWICE = TaskTemplate(21, "twice", b"", n_returns=2, n_retries_max=5)
OFTEN = TaskTemplate(23, "often", b"", n_retries_max=5)
ITEMS = TaskTemplate(22, "items", b"", n_returns=STREAMING, n_retries_max=5)


def again(hand: Hand, n: int) -> int:
    """The n-th id that the core of a rank gives out itself."""
    return id_again(hand.own(1), n)


def make_stored(hand: Hand, n: int = 1, template: TaskTemplate = RETRIED, arguments: tuple[int, ...] = ()) -> int:
    """A task makes a large object on rank 1; gives its id."""
    hand.push_to_1(n, template, arguments=arguments)
    hand.get(1, TaskReturned(hand.own(n), (LARGE,)))
    return hand.own(n)


def lose(hand: Hand, object_id: int) -> list[tuple[int, object]]:
    """An object of this rank has gone; gives what others are told."""
    return [*sent(hand.tell(BytesLost(object_id, "It has gone.")))]


@takes("ownership", ("stored", "lose"))
def test_a_lost_object_is_made_again(make_core: MakeCore) -> None:
    hand = make_core()
    object_id = make_stored(hand)
    told = lose(hand, object_id)
    assert told == [(1, ObjectFreed(object_id)), (1, TaskPushed(again(hand, 1), 1, RETRIED.template_id, b"call"))]
    # Once, however many ask.
    assert not of(hand.start_waiting(object_id), TaskPushed)
    assert not hand.get(2, ObjectAsked(object_id))
    assert not lose(hand, object_id)
    assert hand.stale("loss of what is not stored") == 1
    effects = hand.get(1, TaskReturned(again(hand, 1), (LARGE,)))
    assert (2, ObjectLocated(object_id, 1, LARGE.nbytes, (), -1, again(hand, 1))) in sent(effects)
    assert only(effects, StartRead).object_id == again(hand, 1)
    woken = only(hand.tell(ReadCompleted(1)), WakeWaiter)
    assert woken.object_ids == [object_id]
    assert woken.values == [place_of(again(hand, 1), 0, LARGE.nbytes)]
    hand.get(2, BorrowReleased(object_id, {}))
    assert (1, ObjectFreed(again(hand, 1))) in sent(hand.release(object_id))


def test_a_finished_task_whose_result_is_out_of_scope_leaves_nothing(make_core: MakeCore) -> None:
    hand = make_core()
    for n in range(1, 20):
        hand.push_to_1(n, RETRIED)
        hand.get(1, TaskDone(hand.own(n), b"small"))
        assert not hand.core.lineage.specs, "A value that is inline cannot be lost."
        make_stored(hand, 100 + n)
        assert len(hand.core.lineage.specs) == 1
        hand.release(hand.own(n), hand.own(100 + n))
        lineage = hand.core.lineage
        assert (lineage.specs, lineage.needed, lineage.nbytes) == ({}, {}, 0)


@takes("ownership", ("stored", "retire"), ("retired", "make again"), ("retired", "collect"))
def test_what_it_was_made_from_is_made_again_first(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(OFTEN)
    first = make_stored(hand, 1, OFTEN)
    second = make_stored(hand, 2, arguments=(first,))
    assert (1, ObjectFreed(first)) in sent(hand.release(first)), "Value first, spec later."
    assert hand.owned(1).state == RETIRED
    # Who asks for it too late is told so.
    assert only(hand.get(2, ObjectAsked(first)), ObjectFailed).failure.kind == LOST
    told = lose(hand, second)
    assert [task_id for _, task_id in pushed(hand.grant(depth=2))] + [
        message.task_id for _, message in told if isinstance(message, TaskPushed)
    ] == [again(hand, 2)]
    assert hand.owned(1).state == hand.owned(2).state == PENDING
    effects = hand.get(1, TaskReturned(again(hand, 2), (LARGE,)))
    assert only(effects, TaskPushed).arguments[0].object_id == again(hand, 2)
    hand.get(1, TaskReturned(again(hand, 1), (LARGE,)))
    assert hand.owned(1).state == RETIRED
    assert hand.owned(2).state == STORED
    hand.release(second)


@takes("ownership", ("failed", "retire"))
def test_what_fails_when_it_is_made_again_fails_what_is_made_from_it(make_core: MakeCore) -> None:
    hand = make_core()
    first = make_stored(hand)
    second = make_stored(hand, 2, arguments=(first,))
    hand.release(first)
    lose(hand, second)
    hand.start_waiting(second)
    assert only(hand.get(1, TaskRaised(again(hand, 2), BROKEN, False)), WakeWaiter).values == [BROKEN]
    assert hand.owned(1).state == RETIRED
    assert hand.owned(2).state == FAILED
    hand.release(second)


@pytest.mark.parametrize("is_put", [True, False])
def test_what_cannot_be_made_again_is_held_with_its_value(make_core: MakeCore, is_put: bool) -> None:
    hand = make_core()
    argument = hand.own(9)
    if is_put:
        hand.tell(ObjectPut(argument, LARGE))
    else:
        hand.push_to_1(9)
        hand.get(1, TaskDone(argument, b"small"))
    result = make_stored(hand, 1, arguments=(argument,))
    hand.release(argument)
    assert hand.owned(9).n_uses == 1
    lose(hand, result)
    hand.get(1, TaskReturned(again(hand, 1), (LARGE,)))
    hand.release(result)


@takes("borrowing", ("stored", "lose"))
def test_a_borrower_tells_the_owner_and_waits_to_be_told_anew(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.start_waiting(THEIRS)
    hand.get(2, ObjectLocated(THEIRS, 1, 100))
    assert sent(hand.get(1, ReadRefused(THEIRS, 1, BROKEN)))[-1:] != [(2, ObjectLost(THEIRS, THEIRS, BROKEN))]
    hand.release(THEIRS)
    other = make_core()
    borrow(other)
    other.start_waiting(THEIRS)
    other.get(2, ObjectLocated(THEIRS, 1, 100))
    gone = Failure(LOST, "The disk is damaged.")
    assert lost(other.get(1, ReadRefused(THEIRS, 1, gone))) == gone
    named = id_again(THEIRS, 1)
    assert only(other.get(2, ObjectLocated(THEIRS, 1, 100, (), -1, named)), StartRead).object_id == named
    woken = only(other.tell(ReadCompleted(2)), WakeWaiter)
    assert (woken.object_ids, woken.values) == ([THEIRS], [place_of(named, 0, 100)])
    other.release(THEIRS)


@takes("borrowing", ("failed", "told"))
def test_a_borrower_that_was_told_of_a_loss_asks_anew_when_it_is_wanted_again(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    hand.start_waiting(THEIRS)
    hand.get(2, ObjectLocated(THEIRS, 1, 100))
    hand.get(1, ReadRefused(THEIRS, 1, Failure(LOST, "The disk is damaged.")))
    gone = Failure(UNRECOVERABLE, "It was put.")
    hand.submit(2, arguments=(THEIRS,))
    assert only(hand.get(2, ObjectFailed(THEIRS, gone)), WakeWaiter).values == [gone]
    assert hand.owned(2).failure == gone
    # The disk is well again.
    assert only(hand.start_waiting(THEIRS, waiter=2), ObjectAsked).object_id == THEIRS
    assert only(hand.get(2, ObjectLocated(THEIRS, 1, 100)), StartRead).object_id == THEIRS
    assert only(hand.tell(ReadCompleted(2)), WakeWaiter).values == [place_of(THEIRS, 0, 100)]
    hand.release(THEIRS, hand.own(2))


def test_a_wait_that_goes_on_is_told_of_a_loss_in_the_end(make_core: MakeCore) -> None:
    hand = make_core()
    borrow(hand)
    task_id = hand.push_to_1(2)
    hand.start_waiting(THEIRS, task_id)
    gone = Failure(UNRECOVERABLE, "It was put.")
    hand.get(2, ObjectFailed(THEIRS, gone))
    woken = only(hand.get(1, TaskDone(task_id, b"small")), WakeWaiter)
    assert woken.values == [gone, b"small"]
    hand.release(THEIRS, task_id)


def test_a_borrower_with_old_news_is_told_the_new_place(make_core: MakeCore) -> None:
    hand = make_core()
    object_id = make_stored(hand)
    gone = Failure(LOST, "The disk is damaged.")
    assert only(hand.get(2, ObjectLost(object_id, object_id, gone)), TaskPushed).task_id == again(hand, 1)
    effects = hand.get(1, TaskReturned(again(hand, 1), (LARGE,)))
    located = ObjectLocated(object_id, 1, LARGE.nbytes, (), -1, again(hand, 1))
    assert (2, located) in sent(effects)
    assert sent(hand.get(2, ObjectLost(object_id, object_id, gone))) == [(2, located)]
    # There are no retries left.
    failure = only(hand.get(2, ObjectLost(object_id, again(hand, 1), gone)), ObjectFailed).failure
    assert failure.kind == UNRECOVERABLE
    assert "has had its 1 retries. Allow more: @remote(max_retries=N)" in failure.text
    assert not lose(hand, object_id)
    assert hand.stale("loss that cannot be helped") == 1
    hand.release(object_id)


@takes("task", ("queued", "lose argument"))
def test_tasks_that_have_not_begun_wait_for_what_is_lost(make_core: MakeCore) -> None:
    hand = make_core()
    object_id = make_stored(hand)
    hand.push_to_1(2)
    hand.submit(3, arguments=(object_id,))
    hand.submit(4, arguments=(object_id,))
    assert hand.core.leases.n_queued == 2
    lose(hand, object_id)
    assert hand.core.leases.n_queued == 1, "The task that is run again."
    assert pushed(hand.get(1, TaskDone(hand.own(2), b""))) == [(1, again(hand, 1))]
    effects = hand.get(1, TaskReturned(again(hand, 1), (LARGE,)))
    assert pushed(effects) == [(1, hand.own(3))]
    assert only(effects, TaskPushed).arguments[0].object_id == again(hand, 1)
    hand.get(1, TaskDone(hand.own(3), b""))
    hand.get(1, TaskDone(hand.own(4), b""))
    hand.release(*map(hand.own, (1, 2, 3, 4)))


def test_a_task_that_cannot_have_its_argument_waits_for_it_once_more(make_core: MakeCore) -> None:
    hand = make_core()
    object_id = make_stored(hand)
    hand.push_to_1(2, arguments=(object_id,))
    gone = Failure(LOST, "The disk is damaged.")
    effects = hand.get(1, TaskRaised(hand.own(2), gone, False, (), object_id))
    assert pushed(effects) == [(1, again(hand, 1))]
    assert pushed(hand.get(1, TaskReturned(again(hand, 1), (LARGE,)))) == [(1, hand.own(2))]
    # That is no attempt of the task; but its argument may not be made again for ever.
    hand.start_waiting(hand.own(2))
    effects = hand.get(1, TaskRaised(hand.own(2), gone, False, (), again(hand, 1)))
    (failure,) = only(effects, WakeWaiter).values
    assert isinstance(failure, Failure)
    assert failure.kind == UNRECOVERABLE
    assert "Object 0.1 is lost for good: it was made by task 0.1 (retried), and" in failure.text
    hand.release(object_id, hand.own(2))


def test_an_executor_says_what_it_cannot_have(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    raised = only(hand.accept(arguments=(Argument(THEIRS, None, 1, 100),)), TaskRaised)
    assert raised.lost == THEIRS, "It was here once."
    assert not of(hand.accept(2), TaskRaised)
    hand.may_keep = True


def test_two_results_that_are_lost_are_made_by_one_attempt(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(TWICE)
    hand.push_to_1(1, TWICE)
    hand.get(1, TaskReturned(hand.own(1), (LARGE, LARGE)))
    lose(hand, hand.own(2))
    assert [message for _, message in lose(hand, hand.own(1)) if isinstance(message, TaskPushed)] == []
    effects = hand.get(1, TaskReturned(again(hand, 1), (LARGE, LARGE)))
    assert not of(effects, ObjectFreed)
    assert [hand.owned(n).bytes_id for n in (1, 2)] == [again(hand, 1), again(hand, 2)]
    # What is not wanted goes as soon as it has come.
    lose(hand, hand.own(1))
    assert (1, ObjectFreed(again(hand, 4))) in sent(hand.get(1, TaskReturned(again(hand, 3), (LARGE, LARGE))))
    hand.release(hand.own(1), hand.own(2))


def test_what_is_small_the_second_time_needs_no_lineage(make_core: MakeCore) -> None:
    hand = make_core()
    first = make_stored(hand)
    second = make_stored(hand, 2, arguments=(first,))
    lose(hand, first)
    hand.get(1, TaskDone(again(hand, 1), b"small"))
    assert list(hand.core.lineage.specs) == [second]
    hand.release(first)
    assert hand.owned(1).payload == b"small", "What is made from it may need it."
    hand.release(second)


def test_an_item_is_made_again_alone(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(ITEMS)
    task_id = hand.push_to_1(1, ITEMS)
    hand.get(1, ItemYielded(task_id, hand.own(1), SMALL))
    hand.get(1, ItemYielded(task_id, hand.own(2), LARGE))
    hand.get(1, TaskReturned(task_id, ()))
    told = [message for _, message in lose(hand, hand.own(2)) if isinstance(message, TaskPushed)]
    assert [message.item_ids for message in told] == [(0, again(hand, 2))]
    effects = hand.get(1, ItemYielded(again(hand, 1), again(hand, 2), LARGE))
    assert only(effects, TaskCancelled) == TaskCancelled(again(hand, 1), False, False), (
        "Refs to its children may be in it."
    )
    assert hand.owned(2).state == STORED
    hand.get(1, TaskRaised(again(hand, 1), Failure(CANCELLED, ""), False))
    # One that ends earlier is said to.
    lose(hand, hand.own(2))
    hand.get(1, TaskReturned(again(hand, 4), ()))
    failure = hand.owned(2).failure
    assert failure is not None
    assert "ended earlier when it was run again" in failure.text
    hand.release(*map(hand.own, (1, 2, 3)))


def test_items_of_a_generator_that_runs_can_be_made_again(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(ITEMS)
    task_id = hand.push_to_1(1, ITEMS)
    hand.get(1, ItemYielded(task_id, hand.own(1), LARGE))
    hand.grant(depth=2)
    lose(hand, hand.own(1))
    hand.get(1, ItemYielded(again(hand, 1), again(hand, 2), LARGE))
    hand.get(1, TaskRaised(again(hand, 1), Failure(CANCELLED, ""), False))
    hand.get(1, TaskReturned(task_id, ()))
    assert hand.owned(1).bytes_id == again(hand, 2)
    hand.release(*map(hand.own, (1, 2, 3)))


def test_a_cancelled_task_is_not_run_again(make_core: MakeCore) -> None:
    hand = make_core()
    task_id = hand.push_to_1(1, RETRIED)
    hand.tell(CancelRequested(task_id, False))
    hand.get(1, TaskReturned(task_id, (LARGE,)))
    gone = Failure(LOST, "The disk is damaged.")
    failure = only(hand.get(2, ObjectLost(task_id, task_id, gone)), ObjectFailed).failure
    assert "the task was cancelled" in failure.text
    hand.release(task_id)


def test_making_again_can_be_cancelled(make_core: MakeCore) -> None:
    hand = make_core()
    object_id = make_stored(hand)
    lose(hand, object_id)
    hand.start_waiting(object_id)
    hand.tell(CancelRequested(object_id, False))
    effects = hand.get(1, TaskRaised(again(hand, 1), Failure(CANCELLED, "It was cancelled."), False))
    assert only(effects, WakeWaiter).values == [Failure(CANCELLED, "It was cancelled.")]
    hand.release(object_id)


def test_what_is_lost_does_not_join_an_attempt_that_is_cancelled(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(TWICE)
    hand.push_to_1(1, TWICE)
    hand.get(1, TaskReturned(hand.own(1), (LARGE, LARGE)))
    hand.grant(depth=2)
    lose(hand, hand.own(1))
    hand.tell(CancelRequested(hand.own(1), False))
    told = lose(hand, hand.own(2))
    assert [message.task_id for _, message in told if isinstance(message, TaskPushed)] == [again(hand, 3)]
    hand.get(1, TaskRaised(again(hand, 1), Failure(CANCELLED, "It was cancelled."), False))
    hand.get(1, TaskReturned(again(hand, 3), (LARGE, LARGE)))
    assert hand.owned(1).failure == Failure(CANCELLED, "It was cancelled.")
    assert hand.owned(2).state == STORED
    hand.release(hand.own(1), hand.own(2))


def test_a_cancelled_task_whose_argument_is_lost_ends_as_cancelled(make_core: MakeCore) -> None:
    hand = make_core()
    object_id = make_stored(hand)
    task_id = hand.push_to_1(2, arguments=(object_id,))
    hand.tell(CancelRequested(task_id, False))
    gone = Failure(LOST, "The disk is damaged.")
    hand.get(1, TaskRaised(task_id, gone, False, (), object_id))
    failure = hand.owned(2).failure
    assert failure is not None
    assert failure.kind == CANCELLED
    assert hand.owned(1).state == STORED, "Whoever wants it finds out."
    hand.release(object_id, task_id)


def test_an_item_that_cannot_be_made_again_is_not_how_its_generator_ended(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(ITEMS)
    task_id = hand.push_to_1(1, ITEMS)
    hand.get(1, ItemYielded(task_id, hand.own(1), LARGE))
    hand.get(1, TaskReturned(task_id, ()))
    lose(hand, hand.own(1))
    hand.get(1, TaskReturned(again(hand, 1), ()))
    assert hand.owned(1).state == FAILED
    hand.tell(StreamEndWanted(task_id, hand.own(8), SMALL, (hand.own(1), hand.own(2))))
    assert hand.owned(8).payload == b"small"
    hand.release(*map(hand.own, (1, 2, 3, 8)))


def test_beyond_its_bytes_the_oldest_lineage_is_dropped(make_core: MakeCore) -> None:
    hand = make_core(nbytes_lineage_max=1500)
    first = make_stored(hand)
    second = make_stored(hand, 2, arguments=(first,))
    hand.release(first)
    assert hand.owned(1).state == RETIRED
    third = make_stored(hand, 3)
    assert hand.core.lineage.nbytes <= 1500
    assert first not in hand.core.ownership.objects
    gone = Failure(LOST, "The disk is damaged.")
    failure = only(hand.get(2, ObjectLost(second, second, gone)), ObjectFailed).failure
    assert f"it is made from object {name_of(first)}, which is not known any more" in failure.text
    fourth = make_stored(hand, 4)
    failure = only(hand.get(2, ObjectLost(second, second, gone)), ObjectFailed).failure
    assert "more than the 1500 bytes that it may" in failure.text
    assert "init(lineage_memory=BYTES)" in failure.text
    hand.release(second, third, fourth)


def make_of_batches(hand: Hand, n_batches: int) -> int:
    """A loop of ``w = train.remote(w, hpcfut.put(batch))``; gives the last result."""
    result = make_stored(hand)
    for n in range(1, 1 + n_batches):
        batch = hand.own(100 + n)
        hand.tell(ObjectPut(batch, LARGE))
        last, result = result, make_stored(hand, 1 + n, arguments=(result, batch))
        hand.release(last, batch)
        assert hand.core.lineage.nbytes <= hand.core.lineage._nbytes_max
    return result


def test_values_that_lineage_holds_count(make_core: MakeCore) -> None:
    hand = make_core(nbytes_lineage_max=3 * LARGE.nbytes)
    result = make_of_batches(hand, 10)
    stored = [record for record in hand.core.ownership.objects.values() if record.state == STORED and not record.rank]
    assert [record.object_id for record in stored] == [hand.own(109), hand.own(110)], "The youngest stay."
    hand.release(result)
    assert hand.core.lineage.nbytes == 0


def test_a_value_that_many_specs_hold_counts_once(make_core: MakeCore) -> None:
    hand = make_core(nbytes_lineage_max=2 * LARGE.nbytes)
    shared = hand.own(100)
    hand.tell(ObjectPut(shared, LARGE))
    results = [make_stored(hand, n, arguments=(shared, shared)) for n in range(1, 9)]
    assert not any(spec.why_not for spec in hand.core.lineage.specs.values())
    hand.release(shared, *results[:-1])
    assert hand.owned(100).state == STORED
    hand.release(results[-1])
    assert hand.core.lineage.nbytes == 0


def test_a_full_store_is_told_of_only_when_lineage_has_given_way(make_core: MakeCore) -> None:
    hand = make_core(nbytes_store=3 * (LARGE.nbytes + 64))
    result = make_of_batches(hand, 3)
    spilled = only(hand.tell(RoomWanted(7, hand.own(200), LARGE.nbytes)), SpillObjects)
    spilled = only(hand.tell(SpillFailed(spilled.spill_id, "The disk is full.")), SpillObjects)
    given = only(hand.tell(SpillFailed(spilled.spill_id, "The disk is full.")), GiveRoom)
    assert given.waiter_id == 7
    assert hand.own(101) not in hand.core.ownership.objects, "The oldest goes."
    assert hand.owned(102).state == hand.owned(103).state == STORED
    gone = Failure(LOST, "The disk is damaged.")
    failure = only(hand.get(2, ObjectLost(result, result, gone)), ObjectFailed).failure
    assert "which is not known any more, because its lineage was dropped" in failure.text
    hand.tell(RoomReturned(hand.own(200)))
    hand.release(result)


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_what_may_never_be_run_again_keeps_no_arguments(make_core: MakeCore, is_cancelled: bool) -> None:
    hand = make_core()
    argument = hand.own(9)
    hand.tell(ObjectPut(argument, LARGE))
    task_id = hand.push_to_1(1, RETRIED if is_cancelled else PLAIN, arguments=(argument,), nested=(argument,))
    if is_cancelled:
        hand.tell(CancelRequested(task_id, False))
    hand.get(1, TaskReturned(task_id, (LARGE,)))
    spec = hand.core.lineage.specs[task_id]
    assert spec.why_not
    assert (spec.task.payload, spec.task.arguments, spec.arguments, spec.nested) == (b"", (), (), ())
    hand.release(argument)
    assert argument not in hand.core.ownership.objects
    hand.release(task_id)


def test_what_was_made_again_for_the_last_time_is_held_by_who_needs_it(make_core: MakeCore) -> None:
    hand = make_core()
    hand.define(OFTEN)
    first = make_stored(hand)  # It may be tried once more.
    second = make_stored(hand, 2, OFTEN, arguments=(first,))
    lose(hand, first)
    hand.get(1, TaskReturned(again(hand, 1), (LARGE,)))
    hand.release(first)
    assert hand.owned(1).state == STORED, "Nothing can make it again."
    assert first not in hand.core.lineage.needed
    told = [message for _, message in lose(hand, second) if isinstance(message, TaskPushed)]
    assert [argument.object_id for message in told for argument in message.arguments] == [again(hand, 1)]
    hand.get(1, TaskReturned(again(hand, 2), (LARGE,)))
    hand.release(second)
    assert first not in hand.core.ownership.objects


def test_a_function_is_kept_as_long_as_it_may_have_to_run_again(make_core: MakeCore) -> None:
    hand = make_core()
    object_id = make_stored(hand)
    hand.tell(TemplateDropped(RETRIED.template_id))
    assert RETRIED.template_id in hand.core.templates.own
    hand.release(object_id)
    assert RETRIED.template_id not in hand.core.templates.own


def test_a_ref_that_is_built_anew_from_its_id_is_lost(make_core: MakeCore) -> None:
    hand = make_core()
    first = make_stored(hand)
    second = make_stored(hand, 2, arguments=(first,))
    hand.release(first)
    hand.tell(RefsAdded([first]))
    assert hand.owned(1).state == FAILED
    hand.release(first, second)


@pytest.mark.parametrize("damage", ["count", "need", "record"])
def test_check_sees_what_is_wrong(make_core: MakeCore, damage: str) -> None:
    hand = make_core()
    first = make_stored(hand)
    second = make_stored(hand, 2, arguments=(first,))
    hand.release(first)
    lineage = hand.core.lineage
    spec = lineage.specs[second]
    if damage == "count":
        spec.n_left += 1
    elif damage == "need":
        lineage.needed[first][0] = None
    else:
        lineage.nbytes += 1
    with pytest.raises(InvariantError):
        hand.core.check()
    if damage == "count":
        spec.n_left -= 1
    elif damage == "need":
        del lineage.needed[first][0]
    else:
        lineage.nbytes -= 1
    hand.release(second)
