"""What a child process tells its rank about the refs that it holds."""

from __future__ import annotations

import random

from hpcfut.runtime.child_refs import ChildRefs


def test_what_has_come_to_be_held_is_told_once() -> None:
    refs = ChildRefs()
    refs.made.extend([1, 2, 1])
    assert refs.settle() == ([1, 2], [])
    refs.made.append(1)
    assert refs.settle() == ([], [])


def test_what_is_held_no_more_is_told_when_the_last_ref_has_gone() -> None:
    refs = ChildRefs()
    refs.made.extend([1, 1])
    refs.settle()
    refs.released.append(1)
    assert refs.settle() == ([], [])
    refs.released.append(1)
    assert refs.settle() == ([], [1])
    assert not refs.told


def test_what_came_and_went_is_not_told() -> None:
    refs = ChildRefs()
    refs.made.append(1)
    refs.released.append(1)
    assert refs.settle() == ([], [])


def test_what_the_rank_has_made_it_knows() -> None:
    refs = ChildRefs()
    refs.hold_new([1])
    assert refs.settle() == ([], [])
    refs.released.append(1)
    assert refs.settle() == ([], [1])


def test_what_comes_back_is_told_anew() -> None:
    refs = ChildRefs()
    refs.made.append(1)
    refs.settle()
    refs.released.append(1)
    refs.settle()
    refs.made.append(1)
    assert refs.settle() == ([1], [])


def test_both_sides_always_agree() -> None:
    numbers = random.Random(0)
    refs, counts, rank_holds = ChildRefs(), dict.fromkeys(range(5), 0), set[int]()
    for _ in range(2000):
        object_id = numbers.randrange(5)
        if counts[object_id] and numbers.random() < 0.5:
            counts[object_id] -= 1
            refs.released.append(object_id)
        else:
            counts[object_id] += 1
            refs.made.append(object_id)
        if numbers.random() < 0.3:
            taken, dropped = refs.settle()
            assert rank_holds.isdisjoint(taken)
            assert rank_holds.issuperset(dropped)
            rank_holds = rank_holds.union(taken).difference(dropped)
            assert rank_holds == {object_id for object_id, n in counts.items() if n}
