"""What is too large, or lies on a bad disk: a sentence that names it or the right value, and nothing else is lost."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import hpcfut
from hpcfut.api import session
from tests.mpi.support import WAIT_S, assert_nothing_left, on_rank, own_session, raised

Array = npt.NDArray[Any]

NBYTES_STORE = 3_000_000
TOO_LARGE = 5_000_000


@hpcfut.remote
def fill(nbytes: int, seed: int = 1) -> Array:
    return np.full(nbytes, seed, np.uint8)


@hpcfut.remote
def build(nbytes: int) -> Array:
    array = hpcfut.empty(nbytes, np.uint8)
    array[:] = 1
    return array


@hpcfut.remote
def produce(nbytes: int) -> Any:
    yield np.ones(10, np.uint8)
    yield np.ones(nbytes, np.uint8)


@hpcfut.remote
def length(array: Array) -> int:
    return len(array)


def ways_to_store(rank: int) -> dict[str, Callable[[], Any]]:
    """Ways in which an array comes to a store that is too small for it; that of this rank, or of the driver."""

    def got(function: Any, *args: Any) -> Any:
        return hpcfut.get(on_rank(function, rank).remote(*args), timeout=WAIT_S)

    return {
        "put": lambda: hpcfut.put(np.ones(TOO_LARGE, np.uint8)),
        "put of every second": lambda: hpcfut.put(np.ones(2 * TOO_LARGE, np.uint8)[::2]),
        "put of texts": lambda: hpcfut.put([str(number) * 50 for number in range(100_000)]),
        "empty": lambda: hpcfut.empty(TOO_LARGE, np.uint8),
        "argument": lambda: got(length, np.ones(TOO_LARGE, np.uint8)),
        "result": lambda: got(fill, TOO_LARGE),
        "result that is built": lambda: got(build, TOO_LARGE),
        "item": lambda: hpcfut.get(list(on_rank(produce, rank).remote(TOO_LARGE)), timeout=WAIT_S),
    }


def case_an_array_larger_than_the_store(n_ranks: int) -> None:
    with own_session(object_store_memory=NBYTES_STORE):
        kept = hpcfut.put(np.full(1_000_000, 7, np.uint8))
        for rank in {0, n_ranks - 1}:
            for name, way in ways_to_store(rank).items():
                error = raised(hpcfut.exceptions.ObjectStoreFullError, way)
                assert "bytes in all. Make smaller objects" in str(error), f"{name}: {error}"
                del error
        # The store is none the worse for it.
        assert hpcfut.get(on_rank(length, n_ranks - 1).remote(kept), timeout=WAIT_S) == 1_000_000
        assert int(hpcfut.get(on_rank(fill, n_ranks - 1).remote(2_000_000), timeout=WAIT_S).sum()) == 2_000_000
        assert int(hpcfut.get(kept)[-1]) == 7
        del kept
        assert_nothing_left()


@hpcfut.remote
def spoil_spilled() -> int:
    """Change a byte of each object that this rank has spilled, as a bad disk might; returns of how many."""
    runtime = session._session.runtime
    assert runtime is not None
    store: Any = runtime.engine.spilling._store
    n_spoilt = 0
    for extents in list(store._spilled.values()) if store is not None else []:
        for extent in extents.values():
            position = extent.position + extent.nbytes // 2
            (byte,) = os.pread(extent.disk.file._fd, 1, position)
            os.pwrite(extent.disk.file._fd, bytes([byte ^ 1]), position)
            n_spoilt += 1
    return n_spoilt


def case_values_in_a_damaged_spill_file_are_made_again(n_ranks: int) -> None:
    last = n_ranks - 1
    with own_session(object_store_memory=NBYTES_STORE):
        refs = [on_rank(fill, last).remote(500_000, seed) for seed in range(12)]
        hpcfut.wait(refs, num_returns=len(refs), timeout=WAIT_S, fetch_local=False)
        n_spoilt = hpcfut.get(on_rank(spoil_spilled, last).remote(), timeout=WAIT_S)
        assert n_spoilt > 3, "Not all of them fit into memory."
        for seed, ref in enumerate(refs):
            for ask in (lambda ref: ref, on_rank(hpcfut.remote(lambda array: array), 0).remote):
                found = hpcfut.get(ask(ref), timeout=WAIT_S)
                assert (found == seed).all(), "A wrong byte."
                assert found.shape == (500_000,)
                del found
        # Others are stored and read as ever.
        assert int(hpcfut.get(on_rank(fill, last).remote(500_000, 3), timeout=WAIT_S)[0]) == 3
        del refs, ref, ask
        assert_nothing_left()


@hpcfut.remote
def change(array: Array, path: str) -> Array:
    """The next of a chain; notes in a file that it has run."""
    with open(path, "a") as file:
        file.write(f"{array[0]}\n")
    return array + np.uint8(1)


def case_what_a_lost_value_was_made_from_is_made_again_too(n_ranks: int) -> None:
    last = n_ranks - 1
    with own_session(object_store_memory=NBYTES_STORE), tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "runs")
        first = on_rank(fill, last).remote(500_000, 10)
        second = on_rank(change, last).remote(first, path)
        third = on_rank(change, last).remote(second, path)
        hpcfut.wait([third], timeout=WAIT_S, fetch_local=False)
        del first, second
        others = [on_rank(fill, last).remote(500_000, seed) for seed in range(12)]
        hpcfut.wait(others, num_returns=len(others), timeout=WAIT_S, fetch_local=False)
        assert hpcfut.get(on_rank(spoil_spilled, last).remote(), timeout=WAIT_S) > 3
        found = hpcfut.get(third, timeout=WAIT_S)
        assert (found == 12).all()
        with open(path) as file:
            assert file.read().split() == ["10", "11", "10", "11"], "Each of them has run twice."
        del found, third, others
        assert_nothing_left()


def case_what_cannot_be_made_again_says_why(n_ranks: int) -> None:
    last = n_ranks - 1
    for options, n_retries, sentence in (
        ({}, 0, r"has had its 0 retries. Allow more: @remote\(max_retries=N\)"),
        (
            {"lineage_memory": 700},
            3,
            r"more than the 700 bytes that it may, .* Allow more: init\(lineage_memory=BYTES\)",
        ),
    ):
        with own_session(object_store_memory=NBYTES_STORE, **options):
            make = on_rank(fill, last).options(max_retries=n_retries)
            refs = [make.remote(500_000, seed) for seed in range(12)]
            hpcfut.wait(refs, num_returns=len(refs), timeout=WAIT_S, fetch_local=False)
            assert hpcfut.get(on_rank(spoil_spilled, last).remote(), timeout=WAIT_S) > 3
            errors = [found for ref in refs if isinstance(found := outcome_of(ref), hpcfut.exceptions.ObjectLostError)]
            assert errors, "Not all of them were in memory."
            for error in errors:
                assert type(error) is hpcfut.exceptions.ObjectReconstructionFailedError, error
                assert "in spill file" in str(error), error
                assert re.search(sentence, str(error)), error
            del refs, errors, error
    with own_session(object_store_memory=NBYTES_STORE):
        puts = [hpcfut.put(np.full(500_000, seed, np.uint8)) for seed in range(12)]
        assert hpcfut.get(on_rank(spoil_spilled, 0).remote(), timeout=WAIT_S) > 3
        errors = [found for ref in puts if isinstance(found := outcome_of(ref), hpcfut.exceptions.ObjectLostError)]
        assert errors
        for error in errors:
            assert "is damaged" in str(error), error
            assert "was put, and no task made it. Return it from a task instead" in str(error), error
        del puts, errors, error


def outcome_of(ref: hpcfut.ObjectRef[Any]) -> Any:
    """The value, or the error that says that there is none."""
    try:
        return hpcfut.get(ref, timeout=WAIT_S)
    except hpcfut.exceptions.ObjectLostError as error:
        return error.with_traceback(None)


def case_a_spill_folder_that_is_taken_away(n_ranks: int) -> None:
    folder = tempfile.mkdtemp(prefix="spill-")
    last = n_ranks - 1
    with own_session(object_store_memory=NBYTES_STORE, spill_folder=folder):
        kept = [on_rank(fill, last).remote(900_000, seed) for seed in range(3)]
        hpcfut.wait(kept, num_returns=3, timeout=WAIT_S, fetch_local=False)
        os.rmdir(folder)
        error = raised(
            hpcfut.exceptions.ObjectStoreFullError, hpcfut.get, on_rank(fill, last).remote(900_000), timeout=WAIT_S
        )
        assert f"cannot be spilled to {folder}" in str(error), error
        assert [int(hpcfut.get(ref, timeout=WAIT_S)[-1]) for ref in kept] == [0, 1, 2], (
            "Nothing that was stored is lost."
        )
        del kept[0], error
        assert int(hpcfut.get(on_rank(fill, last).remote(900_000, 5), timeout=WAIT_S)[0]) == 5
        del kept
