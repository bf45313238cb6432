"""The allocator: against a naive model of single steps, and in the corners."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hpcfut.core.arena import Arena
from hpcfut.model.errors import InvariantError
from hpcfut.model.segment import NBYTES_ALIGNMENT, NBYTES_HEADER

NBYTES = 64 * 64


def size_of(nbytes: int) -> int:
    """The room that a payload takes."""
    return NBYTES_HEADER + -(-nbytes // NBYTES_ALIGNMENT) * NBYTES_ALIGNMENT


class Steps(RuleBasedStateMachine):
    """Any allocations and frees; the model is one letter for each 64 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(NBYTES)
        self.units = bytearray(b"." * (NBYTES // NBYTES_ALIGNMENT))
        self.segments: dict[int, int] = {}
        self.n_touched = 0

    def holes(self) -> list[tuple[int, int]]:
        """Begin and size of each, in units."""
        found, at = [], 0
        for run in self.units.replace(b"#.", b"#|.").replace(b".#", b".|#").split(b"|"):
            if run.startswith(b"."):
                found.append((at, len(run)))
            at += len(run)
        return found

    @rule(nbytes=st.integers(0, NBYTES // 4) | st.sampled_from([0, 1, 64, NBYTES - 64, NBYTES]))
    def allocate(self, nbytes: int) -> None:
        n = size_of(nbytes) // NBYTES_ALIGNMENT
        fitting = [(at, size) for at, size in self.holes() if size >= n]
        warm = [(at, size) for at, size in fitting if at + size <= self.n_touched]
        offset = self.arena.allocate(nbytes)
        if not fitting:
            assert offset is None
            return
        assert offset is not None
        at, remainder = divmod(offset, NBYTES_ALIGNMENT)
        assert not remainder
        assert self.units[at : at + n] == b"." * n
        chosen = dict(fitting)[at]
        # The tightest warm hole, else the lowest.
        assert chosen == min(size for _, size in warm) if warm else at == fitting[0][0]
        self.units[at : at + n] = b"#" * n
        self.segments[offset] = n
        self.n_touched = max(self.n_touched, at + n)

    @precondition(lambda self: self.segments)
    @rule(data=st.data())
    def free(self, data: Any) -> None:
        offset = data.draw(st.sampled_from(sorted(self.segments)))
        n, at = self.segments.pop(offset), offset // NBYTES_ALIGNMENT
        self.arena.free(offset)
        self.units[at : at + n] = b"." * n

    @rule(offset=st.integers(-64, 2 * NBYTES))
    def free_what_is_not_there(self, offset: int) -> None:
        if offset not in self.segments:
            with pytest.raises(InvariantError, match=f"begins at {offset},"):
                self.arena.free(offset)

    @invariant()
    def figures_are_those_of_the_model(self) -> None:
        arena = self.arena
        arena.check()
        n_free, n_max = self.units.count(b"."), max((size for _, size in self.holes()), default=0)
        assert arena.n_segments == len(self.segments)
        assert arena.nbytes_free == n_free * NBYTES_ALIGNMENT == NBYTES - arena.nbytes_used
        assert arena.nbytes_hole_max == n_max * NBYTES_ALIGNMENT
        assert arena.nbytes_touched == self.n_touched * NBYTES_ALIGNMENT
        assert arena.fragmentation == pytest.approx(1 - n_max / n_free if n_free else 0.0)


TestSteps = Steps.TestCase
TestSteps.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def must(offset: int | None) -> int:
    assert offset is not None
    return offset


def test_nothing_takes_a_header() -> None:
    arena = Arena(1024)
    assert (arena.allocate(0), arena.allocate(0)) == (0, NBYTES_HEADER)
    assert arena.nbytes_used == 2 * NBYTES_HEADER


@pytest.mark.parametrize("nbytes", [0, 63])
def test_there_may_be_no_arena(nbytes: int) -> None:
    arena = Arena(nbytes)
    assert arena.allocate(0) is None
    assert (arena.nbytes, arena.nbytes_free, arena.nbytes_hole_max, arena.fragmentation) == (0, 0, 0, 0.0)
    arena.check()


def test_a_segment_may_take_it_all() -> None:
    arena = Arena(4096)
    assert arena.allocate(4096 - NBYTES_HEADER + 1) is None
    assert arena.allocate(4096 - NBYTES_HEADER) == 0
    assert (arena.nbytes_free, arena.fragmentation, arena.allocate(0)) == (0, 0.0, None)
    arena.check()
    arena.free(0)
    assert (arena.nbytes_hole_max, arena.nbytes_touched, arena.n_segments) == (4096, 4096, 0)
    arena.check()
    # All of it is warm now.
    assert arena.allocate(4096 - NBYTES_HEADER) == 0


def test_what_was_used_is_used_again_before_the_arena_grows() -> None:
    arena = Arena(1 << 20)
    first, _, third, _ = (must(arena.allocate(nbytes)) for nbytes in (1000, 10, 5000, 10))
    touched = arena.nbytes_touched
    arena.free(first)
    arena.free(third)
    # The tightest hole, though a lower one was freed before, and the last hole is the largest.
    assert arena.allocate(3000) == third
    assert arena.allocate(900) == first
    assert arena.nbytes_touched == touched
    assert arena.allocate(3000) == touched
    arena.check()


def test_the_hole_that_was_freed_last_is_the_first_of_its_size() -> None:
    arena = Arena(1 << 20)
    offsets = [must(arena.allocate(100)) for _ in range(6)]
    for offset in (offsets[2], offsets[0], offsets[4]):
        arena.free(offset)
    assert [arena.allocate(100) for _ in range(3)] == [offsets[4], offsets[0], offsets[2]]


def test_fragmentation() -> None:
    arena = Arena(64 * 100)
    offsets = [must(arena.allocate(0)) for _ in range(100)]
    for offset in offsets[::2]:
        arena.free(offset)
    assert arena.nbytes_free == 50 * 64
    assert arena.fragmentation == pytest.approx(0.98)
    assert arena.allocate(1) is None
    for offset in offsets[1::2]:
        arena.free(offset)
    assert arena.fragmentation == 0.0
    assert arena.allocate(64 * 99) == 0


def test_the_fewest_bytes_make_way_and_the_first_of_equal_ones() -> None:
    arena = Arena(64 * 100)
    first, second, third, fourth = (must(arena.allocate(64 * n)) for n in (39, 19, 19, 18))
    # With their headers: 40 and 20 and 20 and 19 of 100, and one is free.
    assert arena.cheapest_run(64 * 19, [first, second, third, fourth]) == [fourth]
    assert arena.cheapest_run(64 * 19, [third, second]) == [third]
    assert arena.cheapest_run(64 * 20, [second, third, first]) == [second, third]
    assert arena.cheapest_run(64 * 20, [second, fourth]) == []
    assert arena.cheapest_run(64 * 100, [first, second, third, fourth]) == []
    assert arena.cheapest_run(0, [first]) == [], "There is room."


@given(
    sizes=st.lists(st.integers(0, 900), min_size=1, max_size=20),
    freed=st.sets(st.integers(0, 19)),
    kept=st.sets(st.integers(0, 19)),
    nbytes=st.integers(0, 4000),
)
def test_what_makes_way_is_enough(sizes: list[int], freed: set[int], kept: set[int], nbytes: int) -> None:
    arena = Arena(8192)
    offsets = [offset for size in sizes if (offset := arena.allocate(size)) is not None]
    for n in sorted(freed & {*range(len(offsets))}):
        arena.free(offsets[n])
    movable = [offset for n, offset in enumerate(offsets) if n not in freed | kept]
    had_room = arena.nbytes_hole_max >= size_of(nbytes)
    moved = arena.cheapest_run(nbytes, movable)
    assert {*moved} <= {*movable}
    for offset in moved or movable:
        arena.free(offset)
    is_room = arena.allocate(nbytes) is not None
    assert is_room == (had_room or bool(moved)), "Either these are enough, or not even all are."
    assert not (had_room and moved)


def test_what_is_free_cannot_be_freed() -> None:
    arena = Arena(4096)
    offset = must(arena.allocate(500))
    with pytest.raises(InvariantError):
        arena.free(offset + 64)
    arena.free(offset)
    with pytest.raises(InvariantError):
        arena.free(offset)
    arena.check()


def test_sizes_go_beyond_32_bits() -> None:
    arena = Arena(1 << 40)
    offset = must(arena.allocate(5 << 30))
    assert arena.allocate(1) == (5 << 30) + NBYTES_HEADER
    arena.free(offset)
    assert arena.allocate((5 << 30) - 1) == offset
    arena.check()


@pytest.mark.parametrize(
    "damage",
    [
        lambda arena: arena._edges.clear(),
        lambda arena: arena._edges.pop(arena.nbytes),
        lambda arena: arena._warm.clear(),
        lambda arena: arena._sizes.append(64),
        lambda arena: arena._segments.update({arena.nbytes_touched - 64: 128}),
        lambda arena: setattr(arena, "nbytes_used", 0),
        lambda arena: setattr(arena, "nbytes_touched", 64),
    ],
)
def test_check_sees_what_is_wrong(damage: Any) -> None:
    arena = Arena(4096)
    offsets = [must(arena.allocate(10)) for _ in range(4)]
    arena.free(offsets[1])
    arena.check()
    damage(arena)
    with pytest.raises(InvariantError):
        arena.check()
