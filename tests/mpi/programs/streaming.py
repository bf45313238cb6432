"""Generators: refs that come one by one, how far they run ahead, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hpcfut
from hpcfut.exceptions import GetTimeoutError, NotARefError, TaskCancelledError, TaskError, UnpicklableError
from tests.mpi.support import WAIT_S, Gate, assert_nothing_left, on_rank, raised, same


@hpcfut.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@hpcfut.remote
def note(path: Path, n: int = 10**9) -> Iterator[int]:
    """Writes down how many items it has been asked for."""
    try:
        for number in range(n):
            path.write_text(str(number + 1))
            yield number
    finally:
        path.with_suffix(".closed").touch()


def n_made(path: Path, n_expected: int) -> int:
    """How many items have been asked for, once the number rests; waits for the expected one."""
    deadline = time.monotonic() + WAIT_S
    while not path.exists() or path.read_text() != str(n_expected):
        assert time.monotonic() < deadline, f"{path.read_text() if path.exists() else 0} items were made."
        hpcfut.wait([same.remote(0)], timeout=0.01)
    for _ in range(3):
        hpcfut.wait([same.remote(0)], timeout=0.01)
    return int(path.read_text())


def await_file(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"Nobody made {path}."
        hpcfut.wait([same.remote(0)], timeout=0.01)


def case_a_generator_gives_its_refs_in_order(n_ranks: int) -> None:
    for rank in range(n_ranks):
        for n in (0, 1, 2, 64, 65, 200):
            items = on_rank(count, rank).remote(n)
            assert isinstance(items, hpcfut.ObjectRefGenerator)
            assert [hpcfut.get(ref) for ref in items] == list(range(n))
            raised(StopIteration, next, items)


def case_all_at_once() -> None:
    refs = list(count.remote(150))
    assert hpcfut.get(refs) == list(range(150))
    assert len(set(refs)) == 150


def case_streaming_is_an_option_of_any_function() -> None:
    stream = hpcfut.remote(num_returns="streaming")(lambda n: (number * 2 for number in range(n)))
    assert hpcfut.get(list(stream.remote(3))) == [0, 2, 4]
    assert hpcfut.get(list(same.options(num_returns="streaming").remote([5, 6]))) == [5, 6]
    error = raised(TypeError, hpcfut.get, next(same.options(num_returns="streaming").remote(5)))
    assert 'num_returns="streaming", but it returned int' in str(error)


def case_a_generator_function_with_a_number_of_results() -> None:
    assert hpcfut.get(count.options(num_returns=3).remote(3)) == [0, 1, 2]
    assert count.options(num_returns=0).remote(3) is None
    refs = count.options(num_returns=2).remote(3)
    assert "num_returns=2, but it returned 3 values" in str(raised(ValueError, hpcfut.get, refs[0]))
    # One result is the generator itself, which cannot be sent.
    raised(UnpicklableError, hpcfut.get, count.options(num_returns=1).remote(3))


def case_the_first_ref_comes_while_the_producer_runs(n_ranks: int) -> None:
    @hpcfut.remote
    def first_and_wait(gate: Gate) -> Iterator[str]:
        yield "first"
        gate.wait()
        yield "second"

    for rank in range(n_ranks):
        with Gate() as gate:
            items = on_rank(first_and_wait, rank).remote(gate)
            assert hpcfut.get(next(items), timeout=WAIT_S) == "first"
            raised(GetTimeoutError, items.next, timeout=0.02)
            raised(GetTimeoutError, items.next, timeout=0)
            gate.open()
            assert hpcfut.get(items.next(timeout=WAIT_S), timeout=WAIT_S) == "second"
            raised(StopIteration, items.next, timeout=WAIT_S)


def case_the_producer_is_never_more_than_the_bound_ahead(n_ranks: int) -> None:
    for rank in range(n_ranks):
        for bound in (1, 3):
            with Gate() as gate:
                path = gate.folder / "made"
                items = on_rank(note, rank, generator_backpressure_num_objects=bound).remote(path)
                assert n_made(path, bound) == bound
                for n_taken in range(1, 4):
                    assert hpcfut.get(next(items)) == n_taken - 1
                    assert n_made(path, bound + n_taken) == bound + n_taken
                del items
                await_file(path.with_suffix(".closed"))


def case_the_bound_is_64_by_default_and_has_rays_name_too() -> None:
    with Gate() as gate:
        items = note.remote(gate.folder / "made")
        assert n_made(gate.folder / "made", 64) == 64
        few = note.options(_generator_backpressure_num_objects=2).remote(gate.folder / "few")
        assert n_made(gate.folder / "few", 2) == 2
        del items
        del few
        await_file(gate.folder / "made.closed")
        await_file(gate.folder / "few.closed")


def case_a_producer_that_is_held_back_gives_its_place_away(n_ranks: int) -> None:
    with Gate() as gate:
        path = gate.folder / "made"
        held_back = [
            on_rank(note, rank, generator_backpressure_num_objects=1).remote(path.with_name(f"made-{rank}-{number}"), 5)
            for rank in range(n_ranks)
            for number in range(3)
        ]
        # Each rank runs one task at a time, and yet all these begin, and others run besides them.
        for rank in range(n_ranks):
            for number in range(3):
                assert n_made(path.with_name(f"made-{rank}-{number}"), 1) == 1
        assert hpcfut.get([on_rank(same, rank).remote(rank) for rank in range(n_ranks)]) == list(range(n_ranks))
        for items in held_back:
            assert hpcfut.get(list(items)) == list(range(5))


def case_large_items_and_items_with_refs() -> None:
    @hpcfut.remote
    def generate() -> Iterator[Any]:
        for number in range(4):
            yield bytes([number]) * 300_000
            yield [hpcfut.put(number), same.remote(number)]

    items = generate.remote()
    for number in range(4):
        assert hpcfut.get(next(items)) == bytes([number]) * 300_000
        assert hpcfut.get(hpcfut.get(next(items))) == [number, number]
    raised(StopIteration, next, items)


def case_refs_are_passed_on(n_ranks: int) -> None:
    @hpcfut.remote
    def add(*values: int) -> int:
        return sum(values)

    @hpcfut.remote
    def get_inside(refs: list[Any]) -> int:
        return sum(hpcfut.get(refs))

    for rank in range(n_ranks):
        refs = list(count.remote(20))
        assert hpcfut.get(on_rank(add, rank).remote(*refs)) == 190
        assert hpcfut.get(on_rank(get_inside, rank).remote(refs)) == 190


def case_a_task_consumes_a_generator(n_ranks: int) -> None:
    @hpcfut.remote
    def consume(rank: int, n: int) -> int:
        return sum(hpcfut.get(ref) for ref in on_rank(count, rank).remote(n))

    for rank in range(n_ranks):
        refs = [on_rank(consume, other).remote(rank, 100) for other in range(n_ranks)]
        assert hpcfut.get(refs, timeout=WAIT_S) == [4950] * n_ranks


def case_a_generator_of_generators() -> None:
    @hpcfut.remote(generator_backpressure_num_objects=1)
    def double(n: int) -> Iterator[Any]:
        for ref in count.options(generator_backpressure_num_objects=1).remote(n):
            yield 2 * hpcfut.get(ref)

    @hpcfut.remote(generator_backpressure_num_objects=1)
    def again(n: int) -> Iterator[Any]:
        for ref in double.remote(n):
            yield 2 * hpcfut.get(ref)

    assert [hpcfut.get(ref) for ref in again.remote(10)] == [4 * number for number in range(10)]


def case_an_error_is_the_last_ref(n_ranks: int) -> None:
    @hpcfut.remote
    def fail(n: int) -> Iterator[int]:
        yield from range(n)
        raise KeyError("half way")

    for rank in range(n_ranks):
        for n in (0, 1, 70):
            items = on_rank(fail, rank).remote(n)
            assert [hpcfut.get(next(items)) for _ in range(n)] == list(range(n))
            last = next(items)
            assert isinstance(raised(KeyError, hpcfut.get, last), TaskError)
            raised(StopIteration, next, items)
            raised(StopIteration, next, items)
    assert len(list(fail.remote(5))) == 6


def case_an_item_that_cannot_be_sent() -> None:
    @hpcfut.remote
    def generate() -> Iterator[Any]:
        yield 1
        yield threading.Lock()
        yield 3

    first, second = generate.remote()
    assert hpcfut.get(first) == 1
    raised(UnpicklableError, hpcfut.get, second)


def case_a_task_that_never_begins() -> None:
    (only,) = count.options(num_cpus=10**6).remote(3)
    raised(hpcfut.exceptions.TaskUnschedulableError, hpcfut.get, only)
    failed = hpcfut.remote(lambda: 1 / 0).remote()
    (only,) = count.remote(failed)
    raised(ZeroDivisionError, hpcfut.get, only)


def case_a_generator_that_nobody_holds_any_more_ends(n_ranks: int) -> None:
    for rank in range(n_ranks):
        with Gate() as gate:
            # Held back.
            path = gate.folder / "made"
            items = on_rank(note, rank).remote(path)
            kept = next(items)
            assert n_made(path, 65) == 65
            del items
            await_file(path.with_suffix(".closed"))
            assert hpcfut.get(kept) == 0

            # Running.
            @hpcfut.remote
            def spin(gate: Gate, path: Path) -> Iterator[int]:
                try:
                    yield 1
                    gate.arrive()
                    while True:
                        pass
                finally:
                    path.touch()

            items = on_rank(spin, rank).remote(gate, path.with_name("spun"))
            kept = next(items)
            gate.until_arrived(1, [kept])
            del items
            await_file(path.with_name("spun"))
            # Waiting in the queue, or just begun.
            for _ in range(20):
                on_rank(note, rank).remote(path.with_name("unheard"))
            del kept
            gc.collect()
            assert_nothing_left()


def case_cancelling_a_generator(n_ranks: int) -> None:
    for rank in range(n_ranks):
        with Gate() as gate:
            path = gate.folder / "made"
            items = on_rank(note, rank, generator_backpressure_num_objects=2).remote(path)
            assert n_made(path, 2) == 2
            # A number is written before its item is told; what has been told since has given its slot back.
            assert hpcfut.get(on_rank(same, rank).remote(0), timeout=WAIT_S) == 0
            hpcfut.cancel(items)
            await_file(path.with_suffix(".closed"))
            assert [hpcfut.get(next(items)) for _ in range(2)] == [0, 1]
            raised(TaskCancelledError, hpcfut.get, next(items), timeout=WAIT_S)
            raised(StopIteration, next, items)
            hpcfut.cancel(items)
            # The ref of an item names its task as well.
            items = on_rank(note, rank, generator_backpressure_num_objects=2).remote(path.with_name("other"))
            hpcfut.cancel(next(items))
            await_file(path.with_name("other.closed"))
            *_, last = items
            raised(TaskCancelledError, hpcfut.get, last)


def case_a_generator_is_tried_again() -> None:
    @hpcfut.remote(retry_exceptions=[OSError], max_retries=2, generator_backpressure_num_objects=2)
    def flaky(path: Path) -> Iterator[int]:
        with path.open("a") as file:
            file.write("x")
        n_attempts = len(path.read_text())
        for number in range(9):
            if number == 4 * n_attempts:
                raise OSError(n_attempts)
            yield number

    with Gate() as gate:
        # What has been given is not given again.
        assert [hpcfut.get(ref) for ref in flaky.remote(gate.folder / "attempts")] == list(range(9))
        assert (gate.folder / "attempts").read_text() == "xxx"


def case_several_threads_take_refs() -> None:
    items = count.remote(300)
    taken: list[int] = []

    def take() -> None:
        taken.extend(hpcfut.get(ref) for ref in items)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(taken) == list(range(300))


def case_async_for(n_ranks: int) -> None:
    async def consume(rank: int, n: int) -> list[int]:
        return [await ref async for ref in on_rank(count, rank).remote(n)]

    async def consume_all() -> list[list[int]]:
        return await asyncio.gather(*[consume(rank, n) for rank in range(n_ranks) for n in (0, 1, 100)])

    async def leave() -> Any:
        items = count.remote(10**6)
        async for ref in items:
            if await ref == 5:
                return await anext(items)

    async def stop_waiting(items: Any) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(anext(items), 0.01)

    @hpcfut.remote
    def wait_and_count(gate: Gate) -> Iterator[int]:
        gate.wait()
        yield 7

    assert asyncio.run(consume_all()) == [list(range(n)) for _ in range(n_ranks) for n in (0, 1, 100)]
    assert hpcfut.get(asyncio.run(leave())) == 6
    with Gate() as gate:
        items = wait_and_count.remote(gate)
        asyncio.run(stop_waiting(items))
        gate.open()
        # Whoever stopped waiting has left the ref to the next one.
        assert hpcfut.get(next(items)) == 7


def case_the_end_of_a_generator(n_ranks: int) -> None:
    @hpcfut.remote
    def stops(gate: Gate, n: int) -> Iterator[int]:
        yield from range(n)
        gate.wait()
        raise KeyError("no more")

    for rank in range(n_ranks):
        items = on_rank(count, rank).remote(3)
        end = items.completed()
        assert hpcfut.get([end, items.completed()], timeout=WAIT_S) == [None, None]
        assert items.next_ready()
        assert not items.is_finished()
        assert len(hpcfut.get(list(items))) == 3
        assert items.is_finished()
        assert not items.next_ready()
        assert hpcfut.get(items.completed(), timeout=WAIT_S) is None
    with Gate() as gate:
        items = stops.remote(gate, 2)
        early = items.completed()
        assert hpcfut.get([next(items), next(items)]) == [0, 1]
        assert hpcfut.wait([early], timeout=0.05) == ([], [early])
        assert not items.next_ready()
        assert not items.is_finished()
        gate.open()
        raised(KeyError, hpcfut.get, early, timeout=WAIT_S)
    # The failure itself is an item as well, and is told after it has been taken.
    raised(KeyError, hpcfut.get, items.completed(), timeout=WAIT_S)
    assert items.next_ready()
    raised(KeyError, hpcfut.get, next(items))
    raised(KeyError, hpcfut.get, items.completed(), timeout=WAIT_S)
    assert items.is_finished()
    raised(KeyError, hpcfut.get, items.completed(), timeout=WAIT_S)
    raised(StopIteration, next, items)


def case_the_end_of_a_cancelled_generator() -> None:
    items = count.remote(10**9)
    end = items.completed()
    hpcfut.cancel(items)
    raised(TaskCancelledError, hpcfut.get, end, timeout=WAIT_S)
    # Nobody takes its items any more.
    end = count.remote(10**9).completed()
    raised(TaskCancelledError, hpcfut.get, end, timeout=WAIT_S)


def case_await_the_end_of_a_generator() -> None:
    async def consume() -> tuple[list[int], None]:
        items = count.remote(100)
        end = items.completed()
        return [await ref async for ref in items], await end

    assert asyncio.run(consume()) == (list(range(100)), None)


def case_many_generators() -> None:
    generators = [count.options(generator_backpressure_num_objects=3).remote(10) for _ in range(30)]
    for items in generators:
        assert hpcfut.get(list(items)) == list(range(10))


def case_many_items() -> None:
    assert sum(hpcfut.get(ref) for ref in count.remote(3000)) == 2999 * 1500


def case_a_generator_cannot_be_sent_or_got() -> None:
    items = count.remote(2)
    assert "Take its refs here" in str(raised(TypeError, same.remote, items))
    calls: list[Callable[[Any], object]] = [hpcfut.get, hpcfut.wait]
    for call in calls:
        assert "list(" in str(raised(NotARefError, call, items))
    assert hpcfut.get(list(items)) == [0, 1]
