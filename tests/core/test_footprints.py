"""What can never be in memory together is refused at once, and what can be is not."""

from __future__ import annotations

import pytest

from hpcfut.core.effects import WakeWaiter
from hpcfut.core.events import ObjectPut
from hpcfut.core.ownership import STORED, OwnedObject
from hpcfut.model.failure import FULL, Failure
from hpcfut.wire.messages import Result, TaskPushed, TaskReturned
from tests.core.cores import LARGE, SMALL, Hand, MakeCore, of, only

NBYTES = LARGE.nbytes
#: What each of them takes.
NBYTES_SEGMENT = 1_000_064
TWO = {"nbytes_store": 2 * NBYTES_SEGMENT, "tells_store": True}


def misfit(make_core: MakeCore, hosts: str, holders: tuple[int, ...], readers: tuple[int, ...]) -> str:
    """Of objects that these ranks hold, for tasks that may run on those."""
    core = make_core(n_ranks=len(hosts), hosts=hosts, **TWO).core
    owned = core.ownership.objects
    for n, rank in enumerate(holders):
        owned[11 + n] = OwnedObject(11 + n, STORED, rank=rank, nbytes=NBYTES)
    sentence = core.tasks.footprints.misfit([*owned, *owned], readers)
    owned.clear()
    return sentence


@pytest.mark.parametrize(
    ("hosts", "holders", "readers", "is_misfit"),
    [
        ("aaa", (0, 0), (0, 1, 2), False),
        ("aaa", (0, 0, 0), (0, 1, 2), True),
        ("aaa", (0, 0, 1), (0, 1, 2), False),
        ("aaa", (0, 0, 1, 1, 2, 2), (1,), False),
        ("aab", (0, 0, 1), (2,), True),
        ("aab", (0, 0, 1), (0, 1, 2), False),
        ("aabb", (0, 0, 2), (0,), True),
        ("aabb", (0, 0, 2), (1,), False),
        ("aabb", (0, 0, 2, 2), (0, 1, 2, 3), False),
        ("aabb", (0, 0, 2, 2, 3), (0, 1, 2, 3), True),
        ("aabb", (0, 1, 2, 3, 2, 3, 1, 0, 0), (0, 1, 2, 3), True),
    ],
)
def test_where_objects_can_be_in_memory_together(
    make_core: MakeCore, hosts: str, holders: tuple[int, ...], readers: tuple[int, ...], is_misfit: bool
) -> None:
    assert bool(misfit(make_core, hosts, holders, readers)) == is_misfit


def test_the_sentence_names_what_is_too_much_and_for_whom(make_core: MakeCore) -> None:
    assert misfit(make_core, "aaa", (0, 1, 1, 1), (0,)) == (
        "objects 0.12 (1000000 bytes, on rank 1), 0.13 (1000000 bytes, on rank 1) and 0.14 (1000000 bytes, on rank 1) "
        "can never be in memory together; they need 3000192 bytes of the object store of rank 1, which has 2000128 in "
        "all. Use smaller objects or fewer at a time, or give each rank a larger store: "
        "init(object_store_memory=BYTES)."
    )
    assert " and 2 more can never be" in misfit(make_core, "aaa", (0,) * 7, (0,))


def test_the_sentence_about_one_object_that_is_larger_than_its_readers_store(make_core: MakeCore) -> None:
    core = make_core(n_ranks=2, hosts="ab", **TWO).core
    core.ownership.objects[11] = OwnedObject(11, STORED, rank=1, nbytes=3 * NBYTES)
    sentence = core.tasks.footprints.misfit([11], (0,))
    core.ownership.objects.clear()
    assert sentence.startswith(
        "object 0.11 (3000000 bytes, on rank 1) can never be in memory; it needs 3000064 bytes of the object store of "
        "rank 0, which has 2000128 in all."
    )


def push_three(hand: Hand) -> list[int]:
    """Three tasks run on rank 1."""
    for n in (1, 2, 3):
        hand.submit(n)
    hand.grant(depth=4)
    return [hand.own(n) for n in (1, 2, 3)]


def put_three(hand: Hand) -> list[int]:
    """Three tasks have returned large values, which are all on rank 1."""
    tasks = push_three(hand)
    for task in tasks:
        hand.get(1, TaskReturned(task, (Result(None, NBYTES),)))
    return tasks


def test_a_task_whose_arguments_can_never_be_in_memory_together_fails_at_once(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    first, second, third = put_three(hand)
    pushed = hand.submit(4, arguments=(first, second))
    assert of(pushed, TaskPushed) or hand.core.leases.n_queued, "Two of them fit."
    effects = hand.submit(5, arguments=(first, second, third, first))
    assert not of(effects, TaskPushed)
    failure = hand.owned(5).failure
    assert failure is not None
    assert failure.kind == FULL
    assert failure.text.startswith(
        "The arguments of task 0.5 (plain) do not fit: objects 0.1 (1000000 bytes, on rank 1), "
    )
    hand.may_keep = True


def test_so_does_one_that_waited_for_them(make_core: MakeCore) -> None:
    hand = make_core(**TWO)
    first, second, third = push_three(hand)
    hand.submit(5, arguments=(first, second, third))
    hand.start_waiting(hand.own(5))
    for task in (first, second):
        assert not of(hand.get(1, TaskReturned(task, (Result(None, NBYTES),))), WakeWaiter)
    (failure,) = only(hand.get(1, TaskReturned(third, (Result(None, NBYTES),))), WakeWaiter).values
    assert isinstance(failure, Failure)
    assert failure.kind == FULL
    hand.release(first, second, third, hand.own(5))


def test_a_get_of_more_than_fits_fails_at_once(make_core: MakeCore) -> None:
    hand = make_core(neighbours=(0, 1, 2), **TWO)
    first, second, third = put_three(hand)
    mine = hand.own(9)
    hand.tell(ObjectPut(mine, LARGE))
    woken = only(hand.start_waiting(first, mine, second, third), WakeWaiter)
    assert woken.object_ids == [first, mine, second, third]
    assert all(isinstance(value, Failure) and value.kind == FULL for value in woken.values)
    assert isinstance(woken.values[0], Failure)
    assert woken.values[0].text.startswith(
        "The 4 values that are wanted at once do not fit: objects 0.1 (1000000 bytes"
    )
    assert not of(hand.start_waiting(first, mine, second, third, n_wanted=3, waiter=2), WakeWaiter), "Any three."
    hand.may_keep = True


def test_a_get_fails_as_soon_as_it_is_known_that_its_values_do_not_fit(make_core: MakeCore) -> None:
    hand = make_core(neighbours=(0, 1, 2), **TWO)
    first, second, third = push_three(hand)
    small = hand.own(9)
    hand.tell(ObjectPut(small, SMALL))
    hand.start_waiting(first, small, second, third)
    for task, offset in ((first, 0), (second, NBYTES_SEGMENT)):
        assert not of(hand.get(1, TaskReturned(task, (Result(None, NBYTES, (), offset),))), WakeWaiter)
    assert hand.core.copies.copies[first].n_pins == 1
    woken = only(hand.get(1, TaskReturned(third, (Result(None, NBYTES),))), WakeWaiter)
    assert woken.object_ids == [first, small, second, third]
    assert [isinstance(value, Failure) for value in woken.values] == [True, False, True, True]
    assert hand.core.copies.copies[first].n_pins == 0
    hand.release(first, small, second, third)
