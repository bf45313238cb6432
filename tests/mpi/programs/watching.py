"""Refs as they become ready: `as_completed`, `await`, futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time
from collections.abc import Coroutine
from typing import Any

import hpcfut
from hpcfut.exceptions import GetTimeoutError, NotARefError, TaskCancelledError, TaskError
from tests.mpi.support import WAIT_S, Gate, on_rank, pass_gate, raised, same

Ref = hpcfut.ObjectRef[Any]
LARGE = 300_000


@hpcfut.remote
def fail() -> None:
    raise LookupError("failed")


@hpcfut.remote
def never_end() -> None:
    while True:
        time.sleep(0.001)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine in an event loop of its own, and never longer than a test may take."""
    return asyncio.run(asyncio.wait_for(coroutine, WAIT_S))


# --- as_completed ---


def case_as_completed_gives_every_ref_once() -> None:
    refs = [same.remote(number) for number in range(100)]
    seen = list(hpcfut.as_completed(refs, timeout=WAIT_S))
    assert len(seen) == len(refs)
    assert set(seen) == set(refs)
    assert sorted(hpcfut.get(seen)) == list(range(100))


def case_as_completed_gives_the_first_first() -> None:
    with Gate() as first, Gate() as second:
        # Actors of nothing but resources would be in each other's way on one rank, so they need none.
        late, early = (pass_gate.options(num_cpus=0).remote(gate, gate is first) for gate in (second, first))
        ready = hpcfut.put(0)
        order = hpcfut.as_completed([late, early, ready])
        assert next(order) is ready
        first.open()
        second.open()
        rest = list(order)
        assert set(rest) == {late, early}


def case_as_completed_does_not_raise_for_failed_tasks() -> None:
    refs = [fail.remote(), same.remote(1), same.remote(fail.remote())]
    seen = list(hpcfut.as_completed(refs, timeout=WAIT_S))
    assert set(seen) == set(refs)
    raised(LookupError, hpcfut.get, refs[0])
    raised(LookupError, hpcfut.get, refs[2])


def case_as_completed_with_a_timeout() -> None:
    with Gate() as gate:
        slow, fast = pass_gate.remote(gate), hpcfut.put(1)
        order = hpcfut.as_completed([slow, fast], timeout=0.05)
        assert next(order) is fast
        started = time.monotonic()
        assert "1 of the 2" in str(raised(GetTimeoutError, next, order))
        assert time.monotonic() - started < 5.0
        raised(StopIteration, next, order)
        raised(GetTimeoutError, next, hpcfut.as_completed([slow], timeout=0))
        assert list(hpcfut.as_completed([fast], timeout=0)) == [fast]
        gate.open()
        assert list(hpcfut.as_completed([slow, fast], timeout=WAIT_S)) in ([slow, fast], [fast, slow])


def case_wrong_input_to_as_completed() -> None:
    ref = hpcfut.put(1)
    assert "twice" in str(raised(ValueError, hpcfut.as_completed, [ref, ref]))
    for wrong in (ref, 5, None, [5], [ref, None]):
        assert isinstance(raised(NotARefError, hpcfut.as_completed, wrong), TypeError)
    for timeout in (-1, float("nan"), "1"):
        raised(ValueError, hpcfut.as_completed, [ref], timeout=timeout)
    assert list(hpcfut.as_completed([])) == []
    assert hpcfut.wait([]) == ([], [])
    assert list(hpcfut.as_completed((ref,))) == [ref]
    assert list(hpcfut.as_completed(iter([ref]))) == [ref]


def case_as_completed_may_be_left() -> None:
    with Gate() as gate:
        refs = [same.remote(1), pass_gate.remote(gate), hpcfut.put(2)]
        for ref in hpcfut.as_completed(refs):
            assert hpcfut.get(ref) in (1, 2)
            break
        gc.collect()
        gate.open()
        assert hpcfut.get(refs, timeout=WAIT_S) == [1, None, 2]


def case_as_completed_drops_what_it_has_given() -> None:
    refs = hpcfut.as_completed([same.remote(bytes(LARGE)) for _ in range(20)], timeout=WAIT_S)
    sizes = [len(hpcfut.get(ref)) for ref in refs]
    assert sizes == [LARGE] * 20


def case_as_completed_of_many() -> None:
    started = time.monotonic()
    n = 5000
    assert sum(hpcfut.get(ref) for ref in hpcfut.as_completed([same.remote(k) for k in range(n)])) == n * (n - 1) // 2
    took_s = time.monotonic() - started
    # Work that grew with the square would take minutes.
    assert took_s < WAIT_S, took_s


def case_as_completed_of_refs_of_others() -> None:
    @hpcfut.remote
    def start(n: int) -> list[Ref]:
        return [same.remote(number) for number in range(n)] + [hpcfut.put(bytes(LARGE)), fail.remote()]

    refs = hpcfut.get(start.remote(5), timeout=WAIT_S)
    assert set(hpcfut.as_completed(refs, timeout=WAIT_S)) == set(refs)


def case_as_completed_in_a_task() -> None:
    @hpcfut.remote
    def add(n: int) -> int:
        return sum(hpcfut.get(ref) for ref in hpcfut.as_completed([same.remote(number) for number in range(n)]))

    assert hpcfut.get([add.remote(n) for n in range(12)], timeout=WAIT_S) == [n * (n - 1) // 2 for n in range(12)]


def case_as_completed_in_several_threads() -> None:
    refs = [same.remote(number) for number in range(30)]
    got: list[int] = []

    def work() -> None:
        got.append(sum(hpcfut.get(ref) for ref in hpcfut.as_completed(refs, timeout=WAIT_S)))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert got == [sum(range(30))] * 4


# --- await ---


def case_await_a_ref() -> None:
    async def main() -> list[Any]:
        small, large, put = same.remote("small"), same.remote(bytes(LARGE)), hpcfut.put("put")
        return [await small, len(await large), await put, await small]

    assert run(main()) == ["small", LARGE, "put", "small"]


def case_await_raises_as_get_does() -> None:
    async def main() -> None:
        error = None
        try:
            await fail.remote()
        except LookupError as caught:
            error = caught
        assert isinstance(error, TaskError)
        assert "failed" in str(error)

    run(main())


def case_await_many() -> None:
    async def main() -> None:
        values = await asyncio.gather(*[same.remote(number) for number in range(1000)])
        assert values == list(range(1000))
        outcomes = await asyncio.gather(fail.remote(), same.remote(1), return_exceptions=True)
        assert isinstance(outcomes[0], LookupError)
        assert outcomes[1] == 1

    run(main())


def case_the_loop_goes_on_meanwhile() -> None:
    async def main(gate: Gate) -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while ticks < 20:
                await asyncio.sleep(0.001)
                ticks += 1
            gate.open()

        value, _ = await asyncio.gather(pass_gate.remote(gate, "through"), tick())
        assert (value, ticks) == ("through", 20)

    with Gate() as gate:
        run(main(gate))


def case_cancelling_an_await_leaves_the_task_alone() -> None:
    async def main(gate: Gate) -> None:
        ref = pass_gate.remote(gate, "through")
        timed_out = False
        try:
            await asyncio.wait_for(ref, 0.05)
        except TimeoutError:
            timed_out = True
        assert timed_out
        assert hpcfut.wait([ref], timeout=0) == ([], [ref])
        gate.open()
        assert await ref == "through"

    with Gate() as gate:
        run(main(gate))


def case_one_ref_awaited_by_many() -> None:
    async def main(gate: Gate) -> None:
        async def wait(ref: Ref) -> Any:
            return await ref

        ref = pass_gate.remote(gate, "through")
        waiting = [asyncio.create_task(wait(ref)) for _ in range(50)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        gate.open()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert outcomes[1::2] == ["through"] * 25
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])

    with Gate() as gate:
        run(main(gate))


def case_event_loops_in_several_threads() -> None:
    got: list[Any] = []

    async def main(number: int) -> int:
        values = [await same.remote(number + step) for step in range(5)]
        return sum(values) + sum(await asyncio.gather(*[same.remote(step) for step in range(20)]))

    threads = [
        threading.Thread(target=lambda number=number: got.append(run(main(number))), daemon=True) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    hpcfut.get([same.remote(number) for number in range(100)], timeout=WAIT_S)
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(got) == [5 * number + 10 + 190 for number in range(4)]


def case_await_in_a_task() -> None:
    # On one rank only if the task lends its slot to what it awaits.
    @hpcfut.remote
    def outer(n: int) -> list[int]:
        async def main() -> list[int]:
            first = await same.remote(n)
            return [first, *await asyncio.gather(*[same.remote(number) for number in range(n)])]

        return asyncio.run(main())

    assert hpcfut.get([outer.remote(n) for n in range(5)], timeout=WAIT_S) == [[n, *range(n)] for n in range(5)]


def case_await_outside_of_an_event_loop() -> None:
    ref = hpcfut.put(1)
    assert "event loop" in str(raised(RuntimeError, ref.__await__().send, None))


def case_a_loop_that_ends_before_its_awaits() -> None:
    async def main(gate: Gate) -> None:
        async def wait() -> None:
            await pass_gate.remote(gate)

        asyncio.get_running_loop().create_task(wait())
        await asyncio.sleep(0.01)

    with Gate() as gate:
        asyncio.run(main(gate))
        gate.open()
        assert hpcfut.get(same.remote(1), timeout=WAIT_S) == 1


# --- futures ---


def case_a_future_has_the_value() -> None:
    futures = [same.remote(value).future() for value in (1, bytes(LARGE))]
    assert futures[0].result(WAIT_S) == 1
    assert len(futures[1].result()) == LARGE
    assert futures[0].done()
    assert futures[0].exception() is None
    assert hpcfut.put(2).future().result(WAIT_S) == 2
    assert isinstance(fail.remote().future().exception(WAIT_S), LookupError)
    raised(LookupError, fail.remote().future().result, WAIT_S)


def case_futures_work_with_the_standard_library() -> None:
    futures = [same.remote(number).future() for number in range(30)]
    assert sum(future.result() for future in concurrent.futures.as_completed(futures, timeout=WAIT_S)) == 435
    failed = fail.remote().future()
    done, pending = concurrent.futures.wait([failed, same.remote(1).future()], timeout=WAIT_S)
    assert len(done) == 2
    assert not pending
    raised(LookupError, failed.result)

    async def main() -> Any:
        return await asyncio.wrap_future(same.remote("wrapped").future())

    assert run(main()) == "wrapped"


def case_a_future_with_a_timeout() -> None:
    with Gate() as gate:
        future = pass_gate.remote(gate, "through").future()
        raised(TimeoutError, future.result, 0.05)
        raised(TimeoutError, future.result, 0)
        assert not future.done()
        gate.open()
        assert future.result(WAIT_S) == "through"


def case_callbacks_may_call_hpcfut() -> None:
    got: list[Any] = []
    is_done = threading.Event()

    def call(future: concurrent.futures.Future[Any]) -> None:
        got.append(hpcfut.get(same.remote(future.result() + 1)))
        is_done.set()

    same.remote(1).future().add_done_callback(call)
    assert is_done.wait(WAIT_S)
    assert got == [2]


def case_cancelling_a_future_cancels_the_task() -> None:
    ref = never_end.remote()
    running, waiting = ref.future(), never_end.remote().future()
    time.sleep(0.05)
    for future in (waiting, running):
        assert future.cancel()
        assert future.cancelled()
        assert future.cancel()
        raised(concurrent.futures.CancelledError, future.result, WAIT_S)
    done, _ = concurrent.futures.wait([waiting, running], timeout=WAIT_S)
    assert done == {waiting, running}
    raised(TaskCancelledError, hpcfut.get, ref, timeout=WAIT_S)
    done_already = same.remote(1).future()
    assert done_already.result() == 1
    assert not done_already.cancel()


def case_a_future_in_a_task() -> None:
    @hpcfut.remote
    def outer(n: int) -> int:
        futures = [same.remote(number).future() for number in range(n)]
        done, _ = concurrent.futures.wait(futures)
        return sum(future.result() for future in done)

    assert hpcfut.get([outer.remote(n) for n in range(5)], timeout=WAIT_S) == [n * (n - 1) // 2 for n in range(5)]


def case_a_future_that_nobody_keeps() -> None:
    gate = Gate()
    with gate:
        pass_gate.remote(gate).future()
        gc.collect()
        gate.open()
        assert hpcfut.get(same.remote(1), timeout=WAIT_S) == 1


def case_futures_of_every_rank(n_ranks: int) -> None:
    futures = [on_rank(same, rank).remote(rank).future() for rank in range(n_ranks)]
    assert [future.result(WAIT_S) for future in futures] == list(range(n_ranks))


def case_a_task_that_awaits_is_cancelled() -> None:
    @hpcfut.remote
    def awaiting(gate: Gate) -> str:
        async def wait() -> None:
            await asyncio.gather(pass_gate.remote(gate), pass_gate.remote(gate))

        asyncio.run(wait())
        return "not reached"

    with Gate() as gate:
        ref = awaiting.remote(gate)
        gate.until_arrived(1, [ref])
        hpcfut.cancel(ref)
        raised(TaskCancelledError, hpcfut.get, ref, timeout=WAIT_S)
