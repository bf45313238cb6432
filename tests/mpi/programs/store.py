"""The object store: large objects are read where they lie, and stay for as long as any value is built over them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

import hpcfut
from tests.mpi.support import WAIT_S, on_rank, own_session, raised

Array = npt.NDArray[Any]

N = 500_000  # doubles: 4 MB


@dataclasses.dataclass
class Field:
    name: str
    values: Array


@hpcfut.remote
def make(seed: int) -> Array:
    return np.arange(seed, seed + N, dtype=np.float64)


@hpcfut.remote
def n_segments_here() -> int:
    from hpcfut.api import session

    runtime = session._session.runtime
    assert runtime is not None
    return int(runtime.engine.core.copies.arena.n_segments)


@hpcfut.remote
def keep(array: Array) -> float:
    import builtins

    builtins.kept = array[10:20]  # type: ignore[attr-defined]
    return float(array.sum())


@hpcfut.remote
def drop_kept() -> float:
    import builtins

    return float(builtins.__dict__.pop("kept").sum())


def segments(n_ranks: int) -> list[int]:
    return [hpcfut.get(on_rank(n_segments_here, rank).remote(), timeout=WAIT_S) for rank in range(n_ranks)]


def sum_of(seed: int, start: int = 0, stop: int = N) -> float:
    return float(np.arange(seed, seed + N, dtype=np.float64)[start:stop].sum())


def case_arrays_are_read_where_they_lie(n_ranks: int) -> None:
    for rank in range(n_ranks):
        ref = on_rank(make, rank).remote(rank)
        one, other = hpcfut.get(ref, timeout=WAIT_S), hpcfut.get(ref)
        assert np.shares_memory(one, other), "Two values of one object are one memory."
        assert float(one.sum()) == sum_of(rank)
        n_there = segments(n_ranks)
        assert n_there == [int(other == rank) for other in range(n_ranks)], "Nobody has a copy."
        del one, other, ref


def case_one_object_is_read_by_all_ranks(n_ranks: int) -> None:
    ref = hpcfut.put(np.arange(N, dtype=np.float64))
    sums = [on_rank(hpcfut.remote(np.sum), rank).remote(ref) for rank in range(n_ranks) for _ in range(3)]
    assert set(map(float, hpcfut.get(sums, timeout=WAIT_S))) == {sum_of(0)}
    assert segments(n_ranks) == [1] + [0] * (n_ranks - 1)


def case_nothing_that_is_shared_can_be_written(n_ranks: int) -> None:
    values: dict[str, Any] = {
        "an array": np.arange(N),
        "in Fortran's order": np.asfortranarray(np.arange(N, dtype="f4").reshape(500, -1)),
        "of a class": Field("heat", np.arange(N, dtype=np.complex64)),
        "of structures": np.zeros(N, dtype=[("x", "f4"), ("n", "i4")]),
        "a memoryview": memoryview(bytes(range(256)) * 4000),
        "times": np.arange(N).astype("datetime64[s]"),
    }
    for rank in {0, n_ranks - 1}:
        one = hpcfut.get(on_rank(hpcfut.remote(lambda: values), rank).remote(), timeout=WAIT_S)
        own = hpcfut.get(hpcfut.put(values))
        for found in (one, own):
            arrays = [value.values if isinstance(value, Field) else value for value in found.values()]
            for array in arrays:
                if isinstance(array, memoryview):
                    assert array.readonly
                    raised(TypeError, array.__setitem__, 0, 1)
                    array = np.frombuffer(array, np.uint8)
                raised(ValueError, array.setflags, write=True)
                raised(ValueError, array.__setitem__, 0, array[0])
            assert found["of a class"].name == "heat"
            assert bytes(found["a memoryview"]) == bytes(range(256)) * 4000
            del arrays, array
        del one, own, found


def case_bytes_are_copies_of_ones_own() -> None:
    ref: hpcfut.ObjectRef[Any] = hpcfut.put([bytes(300_000), bytearray(b"ab" * 200_000)])
    one, other = hpcfut.get(ref), hpcfut.get(ref)
    one[1][0] = 0
    assert (type(one[0]), other[1][:2]) == (bytes, b"ab")


def case_a_part_of_a_value_keeps_its_memory(n_ranks: int) -> None:
    for rank in range(n_ranks):
        array = hpcfut.get(on_rank(make, rank).remote(7), timeout=WAIT_S)
        part = memoryview(array.reshape(1000, -1)[3:5].ravel()[2:4])
        del array
        # Whatever is stored meanwhile goes elsewhere.
        for seed in range(4):
            assert float(hpcfut.get(on_rank(make, rank).remote(seed), timeout=WAIT_S)[0]) == seed
        assert part.tolist() == [7 + 3 * N // 1000 + 2, 7 + 3 * N // 1000 + 3]
        assert segments(n_ranks)[rank] == 1
        del part
        assert segments(n_ranks)[rank] == 0


def case_a_task_keeps_a_part_of_its_argument(n_ranks: int) -> None:
    for maker in {0, n_ranks - 1}:
        for keeper in range(n_ranks):
            ref = on_rank(make, maker).remote(3)
            assert hpcfut.get(on_rank(keep, keeper).remote(ref), timeout=WAIT_S) == sum_of(3)
            del ref
            hpcfut.get([on_rank(make, maker).remote(seed) for seed in range(3)], timeout=WAIT_S)
            assert hpcfut.get(on_rank(drop_kept, keeper).remote(), timeout=WAIT_S) == sum_of(3, 10, 20)


def case_values_that_are_kept_fill_the_store(n_ranks: int) -> None:
    with own_session(object_store_memory=3_000_000):
        last = n_ranks - 1
        fill = on_rank(hpcfut.remote(lambda: np.ones(1_000_000, np.uint8)), last)
        kept = [hpcfut.get(fill.remote(), timeout=WAIT_S) for _ in range(2)]
        error = raised(MemoryError, hpcfut.get, fill.remote(), timeout=WAIT_S)
        assert isinstance(error, hpcfut.exceptions.ObjectStoreFullError)
        assert f"on rank {last}: its object store has 3000000 bytes" in str(error).replace("2999936", "3000000")
        assert "taken by 2 objects" in str(error)
        del kept[0], error
        assert hpcfut.get(fill.remote(), timeout=WAIT_S).sum() == 1_000_000, "A value that is gone makes room at once."


def case_values_are_good_for_ever(n_ranks: int) -> None:
    with own_session():
        kept = [hpcfut.get(on_rank(make, rank).remote(rank), timeout=WAIT_S) for rank in range(n_ranks)]
    with own_session():
        again = [hpcfut.get(on_rank(make, rank).remote(50), timeout=WAIT_S) for rank in range(n_ranks)]
        assert [float(array.sum()) for array in kept] == [sum_of(rank) for rank in range(n_ranks)]
        del kept
        assert [float(array.sum()) for array in again] == [sum_of(50)] * n_ranks


def case_very_many_values(n_ranks: int) -> None:
    make_small = hpcfut.remote(lambda seed: np.full(20_000, seed))
    refs = [on_rank(make_small, seed % n_ranks).remote(seed) for seed in range(300)]
    values = hpcfut.get(refs, timeout=WAIT_S)
    assert [int(value[-1]) for value in values] == list(range(300))
    del refs[::2], values[1::2]
    assert [int(value[0]) for value in values] == list(range(0, 300, 2))
