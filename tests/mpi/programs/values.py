"""Values: snapshots, read-only arrays, sizes on both sides of the inline limit, large values between any two ranks."""

from __future__ import annotations

import dataclasses
import enum
import gc
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import hpcfut
from tests.mpi.support import on_rank, raised, same

Ref = hpcfut.ObjectRef[Any]
Array = npt.NDArray[Any]

#: Values up to the limit travel inline.
NBYTES_INLINE_MAX = 100_000
N_LARGE = 2_500_000  # doubles: 20 MB


@dataclasses.dataclass
class Point:
    x: float
    y: Any


class Colour(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    left: int
    right: int


@hpcfut.remote
def make_array(n: int, seed: int) -> Array:
    return np.arange(seed, seed + n, dtype=np.float64)


@hpcfut.remote
def ends(array: Array) -> tuple[int, float, float, bool]:
    return len(array), float(array[0]), float(array[-1]), bool(array.flags.writeable)


def case_values_of_many_kinds() -> None:
    values = [
        None,
        True,
        -(10**30),
        2.5,
        1j,
        "text \N{GREEK SMALL LETTER ALPHA}",
        b"bytes",
        bytearray(b"more"),
        (1, (2, [3])),
        {"a": {"b": [1, 2]}},
        {1, 2},
        frozenset({3}),
        range(5),
        slice(1, 2),
        Point(1.0, [2]),
        Colour.RED,
        Pair(1, 2),
        int,
        len,
        ...,
    ]
    assert hpcfut.get([hpcfut.put(value) for value in values]) == values
    assert hpcfut.get([same.remote(value) for value in values]) == values
    assert hpcfut.get(same.remote(values)) == values
    assert hpcfut.get(same.remote(Colour.RED)) is Colour.RED
    assert type(hpcfut.get(same.remote(Point(1, 2)))) is Point


def case_a_shared_part_stays_shared() -> None:
    part = [1]
    a, b = hpcfut.get(same.remote((part, part)))
    assert a is b
    cycle: list[Any] = []
    cycle.append(cycle)
    back = hpcfut.get(same.remote(cycle))
    assert back[0] is back


def case_arrays_of_many_kinds() -> None:
    arrays = [
        np.arange(12).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(40)[::3],
        np.zeros((0, 3)),
        np.array(5.0),
        np.array(["a", "bcd"]),
        np.array([1, "x", None], dtype=object),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.arange(60_000, dtype=np.int64),
        np.arange(60_000, dtype=">i4"),
        np.ones((100, 200, 3), dtype=np.float32)[:, ::2],
        np.array([True, False]),
    ]
    for array in arrays:
        for back in (
            hpcfut.get(hpcfut.put(array)),
            hpcfut.get(same.remote(array)),
            hpcfut.get(same.remote([array]))[0],
        ):
            assert back.dtype == array.dtype
            assert back.shape == array.shape
            np.testing.assert_array_equal(back, array)


def case_arrays_are_read_only() -> None:
    for n in (3, 1_000, 200_000):
        array = np.zeros(n)
        for back in (
            hpcfut.get(hpcfut.put(array)),
            hpcfut.get(same.remote(array)),
            hpcfut.get(same.remote({"a": array}))["a"],
        ):
            assert not back.flags.writeable
            raised(ValueError, back.__setitem__, 0, 1.0)
            raised(ValueError, back.setflags, write=True)
        assert array.flags.writeable
        is_writeable = hpcfut.remote(lambda array: bool(array.flags.writeable))
        assert hpcfut.get([is_writeable.remote(array), is_writeable.remote(hpcfut.put(array))]) == [False, False]


def case_values_are_snapshots() -> None:
    for n in (3, 1_000, 200_000):
        array, items = np.zeros(n), [0] * 3
        refs = [
            hpcfut.put(array),
            same.remote(array),
            hpcfut.put(items),
            same.remote(items),
            same.remote([items, array]),
        ]
        array[:] = 1
        items[:] = [1, 1, 1]
        put_array, returned_array, put_items, returned_items, both = hpcfut.get(refs)
        assert not put_array.any()
        assert not returned_array.any()
        assert put_items == returned_items == both[0] == [0, 0, 0]
        assert not both[1].any()


def case_each_get_gives_a_value_of_its_own() -> None:
    ref = hpcfut.put({"list": [1]})
    hpcfut.get(ref)["list"].append(2)
    assert hpcfut.get(ref) == {"list": [1]}
    change = hpcfut.remote(lambda value: value["list"].append(3))
    hpcfut.get([change.remote(ref), change.remote(ref)])
    assert hpcfut.get(ref) == {"list": [1]}


def case_a_result_is_a_snapshot_of_what_the_task_keeps() -> None:
    @hpcfut.remote
    def give_and_change(n: int) -> list[Array]:
        array = np.zeros(n)
        refs = [hpcfut.put(array)]
        array[:] = 1
        return [*refs, array]  # type: ignore[list-item]

    for n in (10, 200_000):
        ref, array = hpcfut.get(give_and_change.remote(n))
        assert not hpcfut.get(ref).any()
        assert array.all()


def case_sizes_round_the_inline_limit() -> None:
    length = hpcfut.remote(len)
    for nbytes in (99_000, 99_900, 99_999, 100_000, 100_001, 100_100, 101_000):
        data = bytes(range(256)) * (nbytes // 256 + 1)
        data = data[:nbytes]
        assert hpcfut.get(hpcfut.put(data)) == data
        assert hpcfut.get(same.remote(data)) == data
        assert hpcfut.get(same.remote(value=data)) == data
        assert hpcfut.get(length.remote(hpcfut.put(data))) == nbytes
        array = np.frombuffer(data, np.uint8)
        np.testing.assert_array_equal(hpcfut.get(same.remote(array)), array)
        # Many small ones that are large together.
        assert hpcfut.get(same.remote([data[:1000]] * (nbytes // 1000))) == [data[:1000]] * (nbytes // 1000)


def case_arguments_that_are_large_together() -> None:
    count = hpcfut.remote(lambda *parts, **named: sum(map(len, parts)) + sum(map(len, named.values())))
    part = bytes(30_000)
    assert hpcfut.get(count.remote(*[part] * 8)) == 240_000
    assert hpcfut.get(count.remote(part, part, a=part, b=part)) == 120_000
    assert hpcfut.get(count.remote(*[bytes(20_000)] * 8)) == 160_000
    assert hpcfut.get(count.remote(bytes(150_000), part, hpcfut.put(bytes(150_000)), b=bytes(150_000))) == 480_000


def case_large_values_between_any_two_ranks(n_ranks: int) -> None:
    for source in range(n_ranks):
        ref = on_rank(make_array, source).remote(N_LARGE, source)
        readers = [on_rank(ends, rank).remote(ref) for rank in range(n_ranks)]
        assert hpcfut.get(readers) == [(N_LARGE, source, source + N_LARGE - 1, False)] * n_ranks
        array = hpcfut.get(ref)
        assert array.shape == (N_LARGE,)
        assert array[-1] == source + N_LARGE - 1


def case_large_values_at_once_in_both_directions(n_ranks: int) -> None:
    n = N_LARGE // 4
    one = [on_rank(make_array, rank).remote(n, rank) for rank in range(n_ranks)]
    two = [on_rank(make_array, rank).remote(n, 100 + rank) for rank in range(n_ranks)]
    read = [on_rank(ends, (rank + 1) % n_ranks).remote(ref) for refs in (one, two) for rank, ref in enumerate(refs)]
    arrays = hpcfut.get([*one, *two])
    assert [array[0] for array in arrays] == [*range(n_ranks), *range(100, 100 + n_ranks)]
    firsts = [first for _, first, _, _ in hpcfut.get(read)]
    assert firsts == [*range(n_ranks), *range(100, 100 + n_ranks)]


def case_large_values_do_not_pass_through_rank_0(n_ranks: int) -> None:
    @hpcfut.remote
    def ids_here() -> int:
        from hpcfut.api import session

        runtime = session._session.runtime
        assert runtime is not None
        return int(runtime.engine.core.copies.arena.n_segments)

    source, reader = n_ranks - 1, n_ranks // 2
    ref = on_rank(make_array, source).remote(N_LARGE, 1)
    assert hpcfut.get(on_rank(ends, reader).remote(ref))[0] == N_LARGE
    n_here = hpcfut.get(on_rank(ids_here, 0).remote())
    assert n_here == (1 if 0 in (source, reader) else 0)


def case_large_arguments_of_every_rank(n_ranks: int) -> None:
    array = np.arange(N_LARGE // 5, dtype=np.float64)
    refs = [on_rank(ends, rank).remote(array) for rank in range(n_ranks)]
    array[:] = -1
    assert hpcfut.get(refs) == [(len(array), 0.0, len(array) - 1.0, False)] * n_ranks


def case_several_large_results_of_one_task(n_ranks: int) -> None:
    @hpcfut.remote(num_returns=4)
    def four(n: int) -> tuple[Array, bytes, str, Array]:
        return np.full(n, 1.0), bytes(n), "small", np.full(n, 4.0)

    for rank in range(n_ranks):
        first, second, third, fourth = on_rank(four, rank).remote(200_000)
        assert hpcfut.get(fourth).sum() == 800_000
        assert hpcfut.get(third) == "small"
        del fourth, third
        gc.collect()
        assert hpcfut.get(second) == bytes(200_000)
        assert hpcfut.get(on_rank(ends, (rank + 1) % n_ranks).remote(first)) == (200_000, 1.0, 1.0, False)


def case_views_outlive_their_refs() -> None:
    ref = make_array.remote(200_000, 3)
    array = hpcfut.get(ref)
    middle = array[1000:2000]
    del ref, array
    gc.collect()
    again = hpcfut.get([make_array.remote(200_000, 9) for _ in range(4)])
    assert middle.tolist() == list(range(1003, 2003))
    assert again[0][0] == 9


def case_a_large_value_goes_round(n_ranks: int) -> None:
    add_one = hpcfut.remote(lambda array: array + 1)
    ref = make_array.remote(100_000, 0)
    for step in range(2 * n_ranks + 3):
        ref = on_rank(add_one, (step * 2) % n_ranks).remote(ref)
    assert hpcfut.get(ref)[0] == 2 * n_ranks + 3


def case_a_fan_of_large_values() -> None:
    parts = [make_array.remote(50_000, number) for number in range(24)]
    total = hpcfut.remote(lambda *arrays: float(sum(array[0] for array in arrays)))
    assert hpcfut.get(total.remote(*parts)) == sum(range(24))
    collect = hpcfut.remote(lambda refs: float(sum(array[0] for array in hpcfut.get(refs))))
    assert hpcfut.get(collect.remote(parts)) == sum(range(24))


def case_a_large_value_inside_a_put_with_refs() -> None:
    inner = make_array.remote(100_000, 5)
    outer = hpcfut.put({"array": np.ones(100_000), "ref": inner})
    del inner
    read = hpcfut.remote(lambda value: (float(value["array"].sum()), float(hpcfut.get(value["ref"])[0])))
    assert hpcfut.get(read.remote(outer)) == (100_000.0, 5.0)


def case_memoryviews_and_bytearrays() -> None:
    for nbytes in (10, 200_000):
        view = hpcfut.get(same.remote(memoryview(bytes(nbytes))))
        assert type(view) is memoryview
        assert view.readonly
        assert view.nbytes == nbytes
        array = hpcfut.get(same.remote(bytearray(nbytes)))
        assert type(array) is bytearray
        array[0] = 1
