"""Arrays with a source, and HDF5 files of which they are chunks: each rank reads what it wants, when it wants it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

import hpcfut
from hpcfut.io import read_hdf5, write_hdf5
from tests.mpi.support import WAIT_S, Gate, assert_nothing_left, on_rank, own_session, pass_gate, raised

Array = npt.NDArray[Any]

N = 250_000  # doubles: 2 MB
NBYTES_STORE = 12 * 2**20


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sources-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def fill(array: Array, notes: Path, value: float) -> None:
    """Notes that it was called, and by whom."""
    (notes / f"{value:g}-{os.getpid()}-{uuid.uuid4().hex}").touch()
    array[:] = value


def refuse(array: Array, sentence: str) -> None:
    raise LookupError(sentence)


def wait_for_task(array: Array, gate: Gate) -> None:
    assert hpcfut.get(hpcfut.put(1)) == 1, "It does not have to wait for that."
    hpcfut.get(pass_gate.remote(gate))


@hpcfut.remote
def total(array: Array) -> float:
    return float(array.sum())


@hpcfut.remote
def total_of(refs: list[hpcfut.ObjectRef[Array]]) -> float:
    return float(hpcfut.get(refs[0]).sum())


@hpcfut.remote
def own_pid() -> int:
    return os.getpid()


def readers(notes: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in notes.iterdir())


def case_arrays_are_read_by_the_ranks_that_want_them(n_ranks: int) -> None:
    with folder() as notes:
        ref = hpcfut.lazy_array(fill, N, "f8", notes, 2.0)
        assert hpcfut.wait([ref], fetch_local=False)[0] == [ref]
        assert not readers(notes), "Nothing is read before it is wanted."
        for task in (total, total_of):
            sums = [on_rank(task, rank).remote(ref if task is total else [ref]) for rank in range(1, n_ranks)]
            assert hpcfut.get(sums, timeout=WAIT_S) == [2.0 * N] * (n_ranks - 1)
            pids = hpcfut.get([on_rank(own_pid, rank).remote() for rank in range(1, n_ranks)], timeout=WAIT_S)
            # It stays there for whoever wants it next.
            assert sorted(readers(notes)) == sorted(f"2-{pid}" for pid in pids if task is total)
            for path in notes.iterdir():
                path.unlink()
        first, second = hpcfut.get(ref), hpcfut.get(ref)
        assert np.shares_memory(first, second)
        assert readers(notes) == [f"2-{os.getpid()}"]
        raised(ValueError, first.setflags, write=True)
        del first, second


def case_only_what_is_wanted_is_read() -> None:
    with folder() as notes:
        refs = [hpcfut.lazy_array(fill, (2, N), "f4", notes, float(i)) for i in range(20)]
        assert hpcfut.get(total.remote(refs[7]), timeout=WAIT_S) == 7.0 * 2 * N
        assert {name.partition("-")[0] for name in readers(notes)} == {"7"}
        del refs


def case_arrays_of_all_kinds() -> None:
    def count(array: Array) -> None:
        array[...] = np.arange(array.size).reshape(array.shape).astype(array.dtype)

    shapes: list[Any] = [(), 3, (0, 4), (200, 300)]
    for shape in shapes:
        for dtype in ("f8", ">i4", "bool", "S5", "datetime64[s]", np.dtype([("x", "f4"), ("n", "i8")])):
            if "x" in str(dtype):
                ref = hpcfut.lazy_array(lambda array: array["n"].fill(7), shape, dtype)
                value = hpcfut.get(ref, timeout=WAIT_S)
                assert (value["n"] == 7).all()
            else:
                value = hpcfut.get(hpcfut.lazy_array(count, shape, dtype), timeout=WAIT_S)
                expected = np.empty(shape, dtype)
                count(expected)
                assert np.array_equal(value, expected), (shape, dtype)
            assert value.dtype == np.dtype(dtype)
            assert value.shape == np.empty(shape).shape
            del value


def case_what_cannot_be_read_fails_alone(n_ranks: int) -> None:
    with folder() as notes:
        broken = hpcfut.lazy_array(refuse, N, "f8", "chunk 3 is not there")
        good = hpcfut.lazy_array(fill, N, "f8", notes, 1.0)
        for rank in range(n_ranks):
            tasks = [on_rank(total, rank).remote(ref) for ref in (good, broken, good)]
            error = raised(LookupError, hpcfut.get, tasks[1], timeout=WAIT_S)
            assert isinstance(error, hpcfut.exceptions.TaskError)
            assert "chunk 3 is not there" in str(error)
            assert f"on rank {rank}" in str(error)
            assert hpcfut.get([tasks[0], tasks[2]], timeout=WAIT_S) == [N, N]
        for _ in range(2):  # It is tried again.
            raised(LookupError, hpcfut.get, broken, timeout=WAIT_S)


def case_an_exit_while_an_array_is_filled_is_its_error(n_ranks: int) -> None:
    def leave(array: Array, kind: type[BaseException]) -> None:
        raise kind(3)

    for kind in (SystemExit, KeyboardInterrupt):
        for rank in range(n_ranks):
            error = raised(kind, hpcfut.get, on_rank(total, rank).remote(hpcfut.lazy_array(leave, 3, "f8", kind)))
            assert isinstance(error, hpcfut.exceptions.TaskError)
            assert error.args == (3,)
        error = raised(kind, hpcfut.get, hpcfut.lazy_array(leave, N, "f8", kind))
        assert isinstance(error, hpcfut.exceptions.TaskError)


def case_cancelling_does_nothing_to_an_array(n_ranks: int) -> None:
    ref = hpcfut.lazy_array(lambda array: array.fill(1), N, "f8")
    hpcfut.cancel(ref)
    assert hpcfut.get(on_rank(total, n_ranks - 1).remote(ref), timeout=WAIT_S) == N
    hpcfut.cancel(ref)
    assert hpcfut.get(ref, timeout=WAIT_S).sum() == N


def case_who_reads_does_not_wait_for_tasks() -> None:
    with Gate() as gate:
        error = raised(RuntimeError, hpcfut.get, hpcfut.lazy_array(wait_for_task, 3, "f8", gate), timeout=WAIT_S)
        assert "beside tasks" in str(error)


def case_what_cannot_have_a_source() -> None:
    raised(TypeError, hpcfut.lazy_array, "no function", 3, "f8")
    raised(ValueError, hpcfut.lazy_array, fill, -1, "f8")
    raised(ValueError, hpcfut.lazy_array, fill, 3, object)
    raised(TypeError, hpcfut.lazy_array, fill, 3, "no type")
    raised(TypeError, hpcfut.lazy_array, fill, 3, "f8", hpcfut.put(1))
    raised(ValueError, hpcfut.lazy_array, fill, 3, "f8", bytes(1_000_000))
    error = raised(hpcfut.exceptions.UnpicklableError, hpcfut.lazy_array, fill, 3, "f8", 1, [threading.Lock()])
    assert "Argument 1 of the function of a lazy_array()[0] cannot be sent" in str(error), error
    lock = threading.Lock()
    error = raised(hpcfut.exceptions.UnpicklableError, hpcfut.lazy_array, lambda array: lock.locked(), 3, "f8")
    assert "'lock' that the function of a lazy_array() uses" in str(error), error
    too_big = raised(ValueError, hpcfut.lazy_array, fill, 10**30, "f8")
    assert "too big for any machine" in str(too_big), too_big
    assert "empty()" not in str(too_big), too_big


def case_larger_than_the_store() -> None:
    with own_session(object_store_memory=NBYTES_STORE), folder() as notes:
        ref = hpcfut.lazy_array(fill, 2 * NBYTES_STORE, "u1", notes, 1.0)
        raised(hpcfut.exceptions.ObjectStoreFullError, hpcfut.get, ref, timeout=WAIT_S)
        del ref
        assert_nothing_left()


def case_an_hdf5_file_larger_than_all_stores_is_written_and_read(n_ranks: int) -> None:
    n_chunks = 5 * n_ranks * NBYTES_STORE // (8 * N)
    make = hpcfut.remote(lambda i: np.arange(i * N, (i + 1) * N, dtype="f8"))
    with own_session(object_store_memory=NBYTES_STORE), folder() as place:
        path = place / "large.h5"
        write_hdf5(path, "x", (make.remote(i) for i in range(n_chunks)), shape=n_chunks * N, chunks=N)
        refs = read_hdf5(path, "x", chunks=N)
        assert len(refs) == n_chunks
        for _ in range(2):
            sums = hpcfut.get([total.remote(ref) for ref in refs], timeout=WAIT_S)
            assert sums == [float(np.arange(i * N, (i + 1) * N, dtype="f8").sum()) for i in range(n_chunks)]
        # And through the one rank of the script, from one file to another.
        write_hdf5(place / "copy.h5", "y", refs, shape=n_chunks * N, chunks=N)
        with h5py.File(place / "copy.h5") as file:
            for i in range(n_chunks):
                assert np.array_equal(file["y"][i * N : (i + 1) * N], np.arange(i * N, (i + 1) * N, dtype="f8"))
        del refs
        assert_nothing_left()


def case_a_task_writes_a_file(n_ranks: int) -> None:
    with folder() as place:
        refs = [hpcfut.put(np.full((10, 4), i)) for i in range(3)]
        writer = on_rank(hpcfut.remote(write_hdf5), n_ranks - 1)
        done = writer.remote(str(place / "table.h5"), "group/table", refs, shape=(30, 4), chunks=(10, 4))
        assert hpcfut.get(done, timeout=WAIT_S) is None
        chunks = hpcfut.get(read_hdf5(place / "table.h5", "group/table", chunks=(30, 2)), timeout=WAIT_S)
        assert [chunk.shape for chunk in chunks] == [(30, 2), (30, 2)]
        assert [int(chunk.sum()) for chunk in chunks] == [60, 60]


def case_tasks_write_into_one_file_at_once(n_ranks: int) -> None:
    with folder() as place:
        path, ref = str(place / "table.h5"), hpcfut.put(np.ones((100, 100)))
        writers = [on_rank(hpcfut.remote(write_hdf5), rank) for rank in range(n_ranks)]
        done = [writers[i % n_ranks].remote(path, f"group/{i}", [ref], shape=(100, 100)) for i in range(2 * n_ranks)]
        assert hpcfut.get(done, timeout=WAIT_S) == [None] * (2 * n_ranks)
        with h5py.File(path) as file:
            assert [float(file[f"group/{i}"][()].sum()) for i in range(2 * n_ranks)] == [1e4] * (2 * n_ranks)
        assert [found.name for found in place.iterdir()] == ["table.h5"]


def case_a_dataset_is_made_of_another_one_of_the_same_file(n_ranks: int) -> None:
    with folder() as place:
        path = place / "both.h5"
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(600.0)
        double = hpcfut.remote(lambda chunk: 2 * chunk)
        chunks = read_hdf5(path, "x", chunks=100)
        write_hdf5(path, "y", (double.remote(chunk) for chunk in chunks), shape=600, chunks=100)
        doubled = [on_rank(total, i % n_ranks).remote(ref) for i, ref in enumerate(read_hdf5(path, "y", chunks=100))]
        assert sum(hpcfut.get(doubled, timeout=WAIT_S)) == 2 * np.arange(600.0).sum()
        assert [found.name for found in place.iterdir()] == ["both.h5"]


def case_a_file_that_went_away_fails_who_wants_it(n_ranks: int) -> None:
    with folder() as place:
        path = place / "gone.h5"
        with h5py.File(path, "w") as file:
            file["x"] = np.zeros((4, 6))
        refs = read_hdf5(path, "x", chunks=(2, 4))
        path.rename(place / "elsewhere.h5")
        for rank in range(n_ranks):
            error = raised(OSError, hpcfut.get, on_rank(total, rank).remote(refs[3]), timeout=WAIT_S)
            for part in ("[2:4, 4:6]", "'x'", str(path), f"rank {rank}"):
                assert part in str(error), error
        (place / "elsewhere.h5").rename(path)
        assert hpcfut.get([total.remote(ref) for ref in refs], timeout=WAIT_S) == [0.0] * 4


def case_reads_that_nobody_wants_any_more_leave_nothing() -> None:
    with own_session(object_store_memory=NBYTES_STORE), folder() as notes:
        for _ in range(20):
            refs = [hpcfut.lazy_array(fill, N, "f8", notes, float(i)) for i in range(8)]
            hpcfut.wait(refs, timeout=0)  # They are under way, or wait for room.
            tasks = [total.remote(ref) for ref in refs]
            hpcfut.cancel(tasks[3])
            del refs
            hpcfut.wait(tasks, num_returns=8, timeout=WAIT_S)
            del tasks
        assert_nothing_left()
