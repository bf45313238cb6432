"""The memory of a rank, as a child process reads it; here the child is the same process."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.child_memory import ChildMemory
from hpcfut.model.place import Place

NBYTES = 1000


def store(arena: HostArena, offset: int, object_id: int) -> memoryview:
    arena.buffer(offset, NBYTES)[:] = bytes([object_id]) * NBYTES
    arena.seal(offset, object_id, NBYTES)
    return arena.view(Place(object_id, 3, offset, NBYTES))


def test_what_the_rank_views_is_found_and_viewed() -> None:
    arena = HostArena(3, 1 << 16)
    child = ChildMemory(arena.guide())
    for number, offset in enumerate((0, 8192)):
        view = store(arena, offset, number + 1)
        place = arena.find(view)
        assert place is not None
        assert place[0] == 3
        seen = child.view(number, *place, NBYTES)
        assert seen == view
        assert seen.readonly
        # A part of an object is found as well.
        assert arena.find(view[100:]) == (3, place[1] + 100)
    arena.close()
    assert bytes(seen) == bytes([2]) * NBYTES, "It stays as long as somebody views it."


def test_a_view_is_closed_with_the_last_that_is_built_over_it() -> None:
    arena = HostArena(3, 1 << 16)
    child = ChildMemory(arena.guide())
    place = arena.find(store(arena, 0, 1))
    assert place is not None
    view = child.view(7, *place, NBYTES)
    part = np.frombuffer(view, "u1")[10:20]
    del view
    assert not child.closed
    assert child.n_views == 1
    del part
    assert list(child.closed) == [7]
    assert not child.n_views
    arena.close()


def test_what_lies_elsewhere_is_not_found() -> None:
    arena = HostArena(3, 1 << 16)
    assert arena.find(memoryview(bytes(NBYTES))) is None
    arena.close()


def test_memory_of_another_session_is_not_taken_for_that_of_this_one() -> None:
    first = HostArena(3, 1 << 16)
    guide = first.guide()
    second = first.renewed()
    with pytest.raises(FileNotFoundError):
        ChildMemory(guide).view(1, 3, 4096, 8)
    assert len(ChildMemory(second.guide()).view(1, 3, 4096, 8)) == 8
    second.close()
