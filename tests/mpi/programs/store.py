"""The object store: large objects are read where they lie, and stay for as long as any value is built over them."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import hpcfut
from tests.mpi.support import WAIT_S, Gate, assert_nothing_left, on_rank, own_session, pass_gate, raised, until

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


def assert_segments(expected: list[int] | dict[int, int]) -> None:
    """The ranks hold so many segments, soon: refs and values that are dropped are told with the next messages."""
    wanted = expected if isinstance(expected, dict) else dict(enumerate(expected))
    n_ranks = len(hpcfut.nodes())

    def is_so() -> bool:
        found = segments(n_ranks)
        return all(found[rank] == n for rank, n in wanted.items())

    until(is_so)


def sum_of(seed: int, start: int = 0, stop: int = N) -> float:
    return float(np.arange(seed, seed + N, dtype=np.float64)[start:stop].sum())


def case_arrays_are_read_where_they_lie(n_ranks: int) -> None:
    for rank in range(n_ranks):
        ref = on_rank(make, rank).remote(rank)
        one, other = hpcfut.get(ref, timeout=WAIT_S), hpcfut.get(ref)
        assert np.shares_memory(one, other), "Two values of one object are one memory."
        assert float(one.sum()) == sum_of(rank)
        assert_segments([int(other == rank) for other in range(n_ranks)])  # Nobody has a copy.
        del one, other, ref


def case_one_object_is_read_by_all_ranks(n_ranks: int) -> None:
    ref = hpcfut.put(np.arange(N, dtype=np.float64))
    sums = [on_rank(hpcfut.remote(np.sum), rank).remote(ref) for rank in range(n_ranks) for _ in range(3)]
    assert set(map(float, hpcfut.get(sums, timeout=WAIT_S))) == {sum_of(0)}
    assert_segments([1] + [0] * (n_ranks - 1))


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
        assert_segments({rank: 1})
        del part
        assert_segments({rank: 0})


def case_a_task_keeps_a_part_of_its_argument(n_ranks: int) -> None:
    for maker in {0, n_ranks - 1}:
        for keeper in range(n_ranks):
            ref = on_rank(make, maker).remote(3)
            assert hpcfut.get(on_rank(keep, keeper).remote(ref), timeout=WAIT_S) == sum_of(3)
            del ref
            hpcfut.get([on_rank(make, maker).remote(seed) for seed in range(3)], timeout=WAIT_S)
            assert hpcfut.get(on_rank(drop_kept, keeper).remote(), timeout=WAIT_S) == sum_of(3, 10, 20)


def case_tasks_with_one_argument_have_values_of_their_own(n_ranks: int) -> None:
    def change(array: Array, table: dict[str, Any]) -> tuple[int, int, float]:
        n_rows, n_entries = len(array), len(table)
        array.shape = (2, -1)
        total = float(table.pop("field").values.sum())
        table["more"] = table["again"] = array
        return n_rows, n_entries, total

    array = hpcfut.put(np.arange(N, dtype=np.float64))
    table = hpcfut.put({"field": Field("heat", np.ones(N)), "n": 1})
    for rank in range(n_ranks):
        task = on_rank(hpcfut.remote(change), rank)
        found = hpcfut.get([task.remote(array, table=table) for _ in range(20)], timeout=WAIT_S)
        found += hpcfut.get([task.remote(array, table) for _ in range(20)], timeout=WAIT_S)
        assert set(found) == {(N, 2, float(N))}
    del array, table
    assert_segments([0] * n_ranks)


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


def case_more_than_memory_holds(n_ranks: int) -> None:
    fill = hpcfut.remote(lambda seed: np.full(500_000, seed % 251, np.uint8))
    ends_of = hpcfut.remote(lambda array: (int(array[0]), int(array[-1]), len(array)))
    with own_session(object_store_memory=3_000_000):
        refs = [on_rank(fill, seed % n_ranks).remote(seed) for seed in range(20 * n_ranks)]
        expected = [(seed % 251, seed % 251, 500_000) for seed in range(20 * n_ranks)]
        # Arguments of tasks, here and elsewhere, and values of a driver.
        assert hpcfut.get([ends_of.remote(ref) for ref in refs], timeout=6 * WAIT_S) == expected
        for _ in range(2):
            assert [int(hpcfut.get(ref, timeout=WAIT_S)[7]) for ref in refs] == [first for first, _, _ in expected]
        first = hpcfut.get(refs[0])
        assert float(first.sum()) == 0.0
        del refs, first
        assert_nothing_left()


def case_producers_are_held_back(n_ranks: int) -> None:
    produce = hpcfut.remote(lambda seed: [np.full(300_000, seed + part, np.uint8) for part in range(4)])
    with own_session(object_store_memory=3_000_000):
        refs = [produce.options(num_returns=4).remote(seed) for seed in range(8 * n_ranks)]
        for seed, parts in enumerate(refs):
            assert [int(part[-1]) for part in hpcfut.get(parts, timeout=6 * WAIT_S)] == list(range(seed, seed + 4))


def case_a_task_that_waits_for_room_is_cancelled(n_ranks: int) -> None:
    last = n_ranks - 1
    with own_session(object_store_memory=2_000_000):
        fill = on_rank(hpcfut.remote(lambda: np.ones(900_000, np.uint8)), last)
        kept = [hpcfut.get(fill.remote(), timeout=WAIT_S) for _ in range(2)]
        waits = fill.remote()
        with Gate() as gate:
            passer = on_rank(pass_gate, last).options(num_cpus=0).remote(gate)
            hpcfut.wait([waits, passer], timeout=0.5, fetch_local=False)
        started = time.monotonic()
        hpcfut.cancel(waits)
        raised(hpcfut.exceptions.TaskCancelledError, hpcfut.get, waits, timeout=WAIT_S)
        assert time.monotonic() - started < 2.0, "It does not wait until it is told that there is no room."
        del kept
        assert hpcfut.get(passer, timeout=WAIT_S) is None
        assert hpcfut.get(fill.remote(), timeout=WAIT_S).nbytes == 900_000


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


@hpcfut.remote
def build(seed: int) -> Array:
    array = hpcfut.empty(N)
    array[:] = np.arange(seed, seed + N)
    assert not array.flags.owndata
    return array


def case_what_is_built_in_place_is_put_as_it_is(n_ranks: int) -> None:
    array: Array = hpcfut.empty((50, N // 50), "f8", order="F")
    assert (array.shape, array.dtype, array.strides) == ((50, N // 50), np.dtype("f8"), (8, 400))
    array[:] = np.arange(N).reshape(array.shape)
    ref = hpcfut.put(array)
    raised(ValueError, array.__setitem__, 0, 1)
    assert_segments({0: 1})
    sums = [on_rank(hpcfut.remote(np.sum), rank).remote(ref) for rank in range(n_ranks)]
    assert set(map(float, hpcfut.get(sums, timeout=WAIT_S))) == {sum_of(0)}
    found = hpcfut.get(ref)
    assert found.flags.f_contiguous
    assert (found == array).all()
    raised(ValueError, found.setflags, write=True)
    # The array keeps its memory, and is put with a copy from now on.
    del ref, found
    again = hpcfut.put(array)
    assert_segments({0: 2})
    del again
    hpcfut.get([build.remote(seed) for seed in range(3)], timeout=WAIT_S)
    assert float(array.sum()) == sum_of(0)
    part = array[3:]
    del array
    assert_segments({0: 1})
    del part
    assert_segments({0: 0})


def case_tasks_return_what_they_build_in_place(n_ranks: int) -> None:
    def two() -> tuple[Array, Array]:
        one = hpcfut.empty(N)
        one[:] = 1
        return one, one

    def items() -> Any:
        for seed in range(3):
            array = hpcfut.empty(N)
            array[:] = seed
            yield array

    for rank in range(n_ranks):
        array = hpcfut.get(on_rank(build, rank).remote(rank), timeout=WAIT_S)
        assert float(array.sum()) == sum_of(rank)
        assert_segments({rank: 1})
        refs = on_rank(hpcfut.remote(two), rank, num_returns=2).remote()
        assert [float(one.sum()) for one in hpcfut.get(refs, timeout=WAIT_S)] == [N, N]
        found = [hpcfut.get(ref, timeout=WAIT_S) for ref in on_rank(hpcfut.remote(items), rank).remote()]
        assert [float(one[-1]) for one in found] == [0, 1, 2]
        del array, refs, found
        assert_segments({rank: 0})


def case_what_is_built_in_place_and_dropped_leaves_nothing(n_ranks: int) -> None:
    def drop() -> int:
        array = hpcfut.empty(N)
        array[:] = 1
        return len(array)

    def fail() -> None:
        array = hpcfut.empty(N)
        raise ValueError(array[0] * 0)

    def fail_late() -> tuple[Array, Any]:
        import threading

        return hpcfut.empty(N), threading.Lock()

    for rank in range(n_ranks):
        assert hpcfut.get(on_rank(hpcfut.remote(drop), rank).remote(), timeout=WAIT_S) == N
        raised(ValueError, hpcfut.get, on_rank(hpcfut.remote(fail), rank).remote(), timeout=WAIT_S)
        refs = on_rank(hpcfut.remote(fail_late), rank, num_returns=2).remote()
        raised(TypeError, hpcfut.get, refs, timeout=WAIT_S)
    assert_segments([0] * n_ranks)
    with own_session(object_store_memory=5 * N):
        error = raised(hpcfut.exceptions.ObjectStoreFullError, hpcfut.empty, N)
        assert f"of {8 * N + 64} bytes on rank 0" in str(error)
        assert_segments({0: 0})


def case_odd_arrays_to_be_built(n_ranks: int) -> None:
    fields = np.dtype([("x", "f4"), ("n", "i4", (2,))])
    stored: list[tuple[Any, Any]] = [
        (N, fields),
        ((N, 2), "M8[ns]"),
        ((N,), ">f8"),
        (N, "U3"),
        (np.int64(N), (np.int16, (2, 2))),
    ]
    for shape, dtype in stored:
        array = hpcfut.empty(shape, dtype)
        plain = np.empty(shape, dtype)
        assert (array.shape, array.dtype, array.strides) == (plain.shape, plain.dtype, plain.strides)
        array[:] = np.zeros(1, array.dtype)
        found = hpcfut.get(hpcfut.put(array))
        assert np.shares_memory(found, array) or (found == array).all()
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
        assert_segments({0: 1})
        del found, array
    ordinary: list[tuple[Any, Any]] = [(3, "f8"), ((0, 7), "i4"), ((), "f8"), (N, object)]
    for shape, dtype in ordinary:
        array = hpcfut.empty(shape, dtype)
        array[...] = 1
        ref = hpcfut.put(array)
        assert array.flags.writeable, "It is an ordinary array."
        assert (hpcfut.get(ref) == array).all()
    del ref
    raised(ValueError, hpcfut.empty, (-1, -N))
    raised(ValueError, hpcfut.empty, (2**40, 2**40))
    raised(ValueError, hpcfut.empty, (1,) * 100 + (N,))
    raised(ValueError, hpcfut.empty, N, order="K")
    raised(TypeError, hpcfut.empty, N, "no type")
    raised(TypeError, hpcfut.empty, "N")
    assert_segments({0: 0})


def case_what_is_built_is_stored_as_it_looks_now(n_ranks: int) -> None:
    array = hpcfut.empty(N)
    array[:] = np.arange(N)
    array.shape = (N // 2, 2)
    ref = hpcfut.put(array)
    array[0] = 7
    assert hpcfut.get(ref).shape == (N // 2, 2)
    assert float(hpcfut.get(ref).sum()) == sum_of(0), "It was no draft any more, and was copied."
    inside = hpcfut.put({"array": array, "part": array[:3]})
    array[0] = 0
    assert hpcfut.get(inside)["array"][0].tolist() == [7, 7]
    total = hpcfut.remote(lambda array: float(array.sum()))
    n_ranks_sum = hpcfut.get([on_rank(total, rank).remote(array) for rank in range(n_ranks)], timeout=WAIT_S)
    assert n_ranks_sum == [sum_of(0) - 1] * n_ranks
    assert array.flags.writeable


def case_what_was_built_in_an_old_session() -> None:
    with own_session():
        array = hpcfut.empty(N)
        sealed = hpcfut.empty(N)
        sealed[:] = 2
        hpcfut.put(sealed)
    with own_session():
        array[:] = 3
        ref = hpcfut.put(array)
        array[:] = 4
        other = hpcfut.put(sealed)
        assert (float(hpcfut.get(ref)[0]), float(hpcfut.get(other)[0])) == (3, 2), "They are ordinary arrays now."


def case_what_fills_the_memory_is_told(n_ranks: int) -> None:
    last = n_ranks - 1
    ref = on_rank(make, last).remote(0)
    array = hpcfut.get(ref, timeout=WAIT_S)
    outer = hpcfut.put([ref])
    with Gate() as gate:
        waiting = pass_gate.remote(gate, ref)
        summary = hpcfut.memory_summary()
        gate.open()
        hpcfut.get(waiting, timeout=WAIT_S)
    heading, _, *lines = summary.splitlines()
    assert heading.endswith(f"held by {n_ranks} rank{'s' * (n_ranks > 1)}")
    assert [line.split()[0] for line in lines[1 : n_ranks + 1]] == [str(rank) for rank in range(n_ranks)]
    assert "4.0 MB" in lines[1 + last]
    (told,) = (line for line in lines if line.startswith(repr(ref)[10:-1] + " "))
    assert f"4.0 MB  stored   {last} " in told
    (inside,) = (line for line in lines if line.startswith(repr(outer)[10:-1] + " "))
    assert "inline" in inside
    for reason in (
        "1 ref on rank 0",
        "1 argument of unfinished task on rank 0",
        f"inside {repr(outer)[10:-1]}",
        "view",
    ):
        assert reason in told, told
    assert (f"lent by rank {last} to rank 0" in told) == (last != 0)
    del ref, outer, array


@hpcfut.remote
def forks() -> tuple[int, float]:
    import os

    array = hpcfut.empty(N)
    array[:] = 1
    pid = os.fork()
    if not pid:
        status = 1
        try:
            hpcfut.put(array)
        except RuntimeError:
            status = 0
        os._exit(status)
    _, status = os.waitpid(pid, 0)
    return status, float(hpcfut.get(hpcfut.put(array)).sum())


def case_a_forked_child_cannot_store_what_its_parent_builds(n_ranks: int) -> None:
    assert hpcfut.get([on_rank(forks, rank).remote() for rank in range(n_ranks)], timeout=WAIT_S) == [(0, N)] * n_ranks


def case_tasks_go_where_their_arguments_are(n_ranks: int) -> None:
    where = hpcfut.remote(lambda array: hpcfut.get_runtime_context().get_rank())
    workers = list(range(1, n_ranks)) * 4
    refs = {rank: on_rank(make, rank).remote(rank) for rank in workers}
    for ref in refs.values():
        hpcfut.wait([ref], timeout=WAIT_S, fetch_local=False)
    one_by_one = [hpcfut.get(where.remote(refs[rank]), timeout=WAIT_S) for rank in workers]
    at_once = hpcfut.get([where.remote(refs[rank]) for rank in workers[: len(workers) // 2]], timeout=WAIT_S)
    n_right = sum(map(int.__eq__, one_by_one + at_once, workers + workers))
    # A rank that comes late, because there are fewer cores, is not waited for.
    assert n_right >= 0.75 * len(one_by_one + at_once), (one_by_one, at_once)


def case_waiting_for_more_than_the_store_holds(n_ranks: int) -> None:
    """Who waits only wants to know: what has been here may make room for the next."""
    nbytes = 1_000_000
    with own_session(object_store_memory=4 * nbytes):
        stored = [hpcfut.put(np.full(nbytes, number, np.uint8)) for number in range(12)]
        made = [hpcfut.remote(np.full).remote(nbytes, number, np.uint8) for number in range(12)]
        for refs in (stored, made):
            for n_wanted in (3, 5, 12):
                ready, others = hpcfut.wait(refs, num_returns=n_wanted, timeout=WAIT_S)
                assert (len(ready), len(others)) == (n_wanted, 12 - n_wanted)
            assert len(hpcfut.wait(refs, num_returns=12)[0]) == 12
            assert [int(hpcfut.get(ref, timeout=WAIT_S)[-1]) for ref in refs] == list(range(12))
        with Gate() as gate:
            never = pass_gate.remote(gate)
            ready, others = hpcfut.wait([*stored, never], num_returns=13, timeout=1.0)
            assert (ready, others) == (stored, [never]), "What has been here counts when the time is over, too."
            assert hpcfut.wait([never], timeout=0) == ([], [never])
            gate.open()
            assert hpcfut.wait([never], timeout=WAIT_S) == ([never], [])
        del stored, made, ready, others, never, refs
