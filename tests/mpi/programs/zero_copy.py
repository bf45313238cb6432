"""Values of many kinds are read where they lie: not copied, written by nobody, there while any part of them is."""

from __future__ import annotations

import dataclasses
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import hpcfut
from tests.mpi.support import WAIT_S, n_ranks_of_job, on_rank, raised, until

Array = npt.NDArray[Any]

N = 60_000


@dataclasses.dataclass
class Grid:
    name: str
    parts: list[Any]


@hpcfut.remote
def make(kind: str) -> Any:
    return KINDS[kind]()


@hpcfut.remote
def n_segments_here() -> int:
    from hpcfut.api import session

    runtime = session._session.runtime
    assert runtime is not None
    return int(runtime.engine.core.copies.arena.n_segments)


def assert_segments(expected: dict[int, int]) -> None:
    """The ranks hold so many segments, soon."""
    ranks = range(n_ranks_of_job())

    def is_so() -> bool:
        found = hpcfut.get([on_rank(n_segments_here, rank).remote() for rank in ranks], timeout=WAIT_S)
        return all(found[rank] == expected.get(rank, 0) for rank in ranks)

    until(is_so)


def numbers() -> Array:
    return np.arange(N, dtype=np.float64)


def records() -> Array:
    array = np.zeros(N, dtype=[("x", "f4"), ("n", "i4", (2,)), ("when", "M8[us]"), ("name", "U3")])
    array["x"], array["n"][:, 1], array["name"] = np.arange(N), 7, "abc"
    return array


def objects() -> Array:
    array = np.empty(3, object)
    array[:] = [numbers(), "text", {"deep": [numbers() + 1]}]
    return array


#: Each with large arrays or memoryviews in it, which are to be views.
KINDS: dict[str, Callable[[], Any]] = {
    "array": numbers,
    "in Fortran's order": lambda: np.asfortranarray(numbers().reshape(200, -1)),
    "three axes in Fortran's order": lambda: np.asfortranarray(numbers().reshape(20, 30, -1)),
    "every third": lambda: numbers()[::3],
    "backwards": lambda: numbers()[::-1],
    "a column": lambda: np.arange(20 * N).reshape(N, 20)[:, 3],
    "axes in another order": lambda: numbers().reshape(20, 30, -1).transpose(2, 0, 1),
    "one row many times": lambda: np.broadcast_to(np.arange(500.0), (100, 500)),
    "of another byte order": lambda: np.arange(N, dtype=">i8"),
    "complex": lambda: np.arange(N).astype("c8"),
    "truth": lambda: np.arange(8 * N) % 3 == 0,
    "half": lambda: np.ones(4 * N, "f2"),
    "texts": lambda: np.array(["ab", "c"] * N),
    "bytes": lambda: np.array([b"abc", b"d"] * N),
    "records": records,
    "field of records": lambda: records()["x"],
    "times": lambda: np.arange(N).astype("M8[ns]"),
    "spans": lambda: np.arange(N).astype("m8[s]").reshape(-1, 2).T,
    "memoryview": lambda: memoryview(bytes(range(256)) * 4000),
    "memoryview of numbers": lambda: numbers().reshape(100, -1).data,
    "memoryview of records": lambda: np.zeros(N, [("a", "i4"), ("b", "f8")]).data,
    "dict": lambda: {"a": numbers(), 5: (numbers() + 1, [numbers() + 2, None]), "text": "x"},
    "dataclass": lambda: Grid("heat", [numbers(), {"b": np.ones(N, "i2")}]),
    "objects": objects,
    "matrix": lambda: numbers().reshape(200, -1).view(np.matrix),
    "recarray": lambda: records().view(np.recarray),
}


def parts_of(value: Any) -> Iterator[Any]:
    """The large arrays and memoryviews in a value."""
    if isinstance(value, memoryview) or (isinstance(value, np.ndarray) and not value.dtype.hasobject):
        yield value
    elif isinstance(value, dict):
        yield from parts_of(list(value.values()))
    elif isinstance(value, list | tuple | np.ndarray):
        for part in value:
            yield from parts_of(part)
    elif dataclasses.is_dataclass(value):
        yield from parts_of(list(vars(value).values()))


def assert_read_only(part: Any) -> None:
    """By whatever way a user might try."""
    if isinstance(part, memoryview):
        assert part.readonly
        raised(TypeError, part.cast("B").__setitem__, 0, 1)
        part = np.asarray(part)
    for array in (part, part[1:], part.T, part.view(np.ndarray)):
        assert not array.flags.writeable
        raised(ValueError, array.setflags, write=True)
        raised(ValueError, array.__setitem__, slice(None), array[:1])


def case_values_of_all_kinds_are_read_in_place(n_ranks: int) -> None:
    for kind, make_here in KINDS.items():
        expected = list(parts_of(make_here()))
        assert expected, kind
        for rank in {0, n_ranks - 1}:
            ref = on_rank(make, rank).remote(kind)
            one, other = hpcfut.get(ref, timeout=WAIT_S), hpcfut.get(ref, timeout=WAIT_S)
            assert type(one) is type(make_here()), kind
            found = list(zip(parts_of(one), parts_of(other), expected, strict=True))
            for part, again, wanted in found:
                assert np.shares_memory(np.asarray(part), np.asarray(again)), f"{kind} was copied."
                assert (type(part), np.asarray(part).dtype) == (type(wanted), np.asarray(wanted).dtype), kind
                np.testing.assert_array_equal(np.asarray(part), np.asarray(wanted), kind)
                assert_read_only(part)
            assert_segments({rank: 1})
            # What outlives ref and value is a part of a part.
            last = np.asarray(found[-1][0])
            del one, other, found, part, again, ref
            pinned = piece_of(last)
            text = np.asarray(pinned).tobytes()
            del last
            # Whatever is stored meanwhile goes elsewhere.
            for _ in range(3):
                hpcfut.get(on_rank(make, rank).remote("truth"), timeout=WAIT_S)
            assert_segments({rank: 1})
            assert np.asarray(pinned).tobytes() == text, f"The memory of {kind} was used again."
            del pinned
            assert_segments({})


def piece_of(array: Array) -> Any:
    """A view of its end; a memoryview where NumPy can make one."""
    piece: Any = array[-1:].T
    try:
        return memoryview(piece)
    except ValueError:
        return piece


def case_values_without_views_hold_nothing(n_ranks: int) -> None:
    values: list[Any] = [
        np.array(5.0),
        np.zeros((0, 7), "M8[s]"),
        np.zeros((3, 0), order="F"),
        np.array([{"a": [1]}, None, "text"] * 40_000, dtype=object),
        [np.array(2), np.zeros(0), bytes(200_000), bytearray(200_000)],
        memoryview(b""),
    ]
    for value in values:
        for rank in {0, n_ranks - 1}:
            ref = on_rank(hpcfut.remote(lambda value=value: value), rank).remote()
            found = hpcfut.get(ref, timeout=WAIT_S)
            del ref
            assert_segments({})
            for part, wanted in zip([found], [value], strict=True):
                assert type(part) is type(wanted)
                if isinstance(wanted, np.ndarray):
                    assert (part.shape, part.dtype, part.tolist()) == (wanted.shape, wanted.dtype, wanted.tolist())
                    raised(ValueError, part.__setitem__, Ellipsis, 0)
                elif not isinstance(wanted, list):
                    assert part == wanted


# -- pandas ------------------------------------------------------------------------------------------------------------


def pandas_of_machine() -> Any:
    """The library; without it these cases are skipped, and say so."""
    try:
        import pandas
    except ImportError:
        raise unittest.SkipTest("pandas is not installed in this environment: pip install pandas.") from None
    return pandas


def make_frame() -> Any:
    pandas = pandas_of_machine()
    return pandas.DataFrame(
        {
            "a": np.arange(N, dtype="f8"),
            "b": np.arange(N, dtype="f8") * 2,
            "n": np.arange(N) % 7,
            "small": (np.arange(N) % 100).astype("i2"),
            "true": np.arange(N) % 2 == 0,
            "when": np.arange(N).astype("M8[ns]"),
        },
        index=pandas.Index(np.arange(N) * 3, name="key"),
    )


NUMERIC = ("a", "b", "n", "small", "true")


def case_frames_of_numbers_are_read_in_place(n_ranks: int) -> None:
    pandas = pandas_of_machine()
    wanted = make_frame()
    for rank in {0, n_ranks - 1}:
        ref = on_rank(hpcfut.remote(make_frame), rank).remote()
        one, other = hpcfut.get(ref, timeout=WAIT_S), hpcfut.get(ref, timeout=WAIT_S)
        pandas.testing.assert_frame_equal(one, wanted)
        for name in (*NUMERIC, "when"):
            column = one[name].to_numpy()
            assert np.shares_memory(column, other[name].to_numpy()), f"Column {name} was copied."
            assert not column.flags.writeable
            raised(ValueError, column.setflags, write=True)
        assert np.shares_memory(one.index.to_numpy(), other.index.to_numpy())
        # Its own machinery works on memory that cannot be written.
        assert float(one.groupby("n")["a"].sum().iloc[3]) == float(wanted.groupby("n")["a"].sum().iloc[3])
        assert int(one.sort_values("small", kind="stable").index[0]) == 0
        assert one.merge(other, on="key")["a_x"].sum() == wanted["a"].sum()
        assert one.loc[3 * 17, "b"] == 34
        column = one["a"].to_numpy()
        del one, other, ref
        assert_segments({rank: 1})
        assert column[5] == 5, "A column outlives the frame and the ref."
        del column
        assert_segments({})


def case_a_frame_that_is_written_is_refused_or_copied(n_ranks: int) -> None:
    pandas_of_machine()
    ref = on_rank(hpcfut.remote(make_frame), n_ranks - 1).remote()

    def write_cell(frame: Any) -> None:
        frame.iloc[0, 0] = -1.0

    def write_column(frame: Any) -> None:
        frame["a"] = -1.0

    def add_in_place(frame: Any) -> None:
        frame["a"] += 1

    def write_through(frame: Any) -> None:
        frame["a"].to_numpy()[0] = -1.0

    def write_copy(frame: Any) -> None:
        copy = frame.copy()
        copy.iloc[0, 0] = -1.0
        assert copy.iloc[0, 0] == -1.0

    for write in (write_cell, write_column, add_in_place, write_through, write_copy):
        frame = hpcfut.get(ref, timeout=WAIT_S)
        refusal = None
        try:
            write(frame)
        except ValueError as error:
            refusal = str(error)
        assert refusal is None or (write not in (write_column, write_copy) and "read-only" in refusal), refusal
        assert hpcfut.get(ref)["a"].iloc[0] == 0.0, f"{write.__name__} has changed the object."
        del frame
    raised(ValueError, write_through, hpcfut.get(ref))


def case_series_and_frames_of_all_kinds(n_ranks: int) -> None:
    pandas = pandas_of_machine()
    made: list[Any] = [
        pandas.Series(np.arange(N, dtype="f4"), name="s"),
        pandas.Series(np.arange(N).astype("M8[ns]")),
        pandas.Series(pandas.date_range("2020", periods=N, freq="s", tz="UTC")),
        pandas.Series(pandas.Categorical(["a", "b", "c"] * 20_000)),
        pandas.Series(np.arange(N), dtype="Int64"),
        pandas.Series(["text", None] * 20_000),
        pandas.DataFrame({"a": np.arange(N), "text": ["x"] * N}),
        pandas.DataFrame(np.arange(6.0 * N).reshape(N, 6)),
        pandas.DataFrame({"a": np.arange(N)})[::2],
        pandas.DataFrame(),
        pandas.Index(np.arange(N)),
        pandas.MultiIndex.from_product([range(300), range(200)]),
    ]
    for value in made:
        for found in (
            hpcfut.get(hpcfut.put(value)),
            hpcfut.get(on_rank(hpcfut.remote(lambda value: [value]), n_ranks - 1).remote(value), timeout=WAIT_S)[0],
        ):
            assert type(found) is type(value)
            assert found.equals(value)
    one, other = (hpcfut.get(ref) for ref in [hpcfut.put(made[0])] * 2)
    assert np.shares_memory(one.to_numpy(), other.to_numpy())
    raised(ValueError, one.to_numpy().setflags, write=True)
    del made, value, found, one, other
    assert_segments({})
