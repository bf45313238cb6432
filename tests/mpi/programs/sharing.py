"""What ranks share to work together: pools of actors, queues, barriers, semaphores."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

import hpcfut
from hpcfut.exceptions import ActorDiedError, TaskCancelledError
from hpcfut.util import ActorPool, Barrier, BrokenBarrierError, Empty, Full, Queue, Semaphore
from hpcfut.util.actor_pool import ActorPool as ActorPoolOfRay
from hpcfut.util.queue import Queue as QueueOfRay
from tests.mpi.support import WAIT_S, Gate, get, on_rank, raised


class Worker:
    """Does what a pool gives it."""

    def double(self, value: int) -> int:
        if value < 0:
            raise ValueError(f"{value} is negative")
        return 2 * value

    def wait_at(self, gate: Gate, value: Any = None) -> Any:
        gate.wait()
        return value

    def pair(self, value: int) -> tuple[int, int]:
        return value, -value


Workers: Any = hpcfut.remote(Worker)


def double(worker: Any, value: int) -> Any:
    return worker.double.remote(value)


# -- ActorPool ---------------------------------------------------------------------------------------------------------


def case_a_pool_maps(n_ranks: int) -> None:
    assert ActorPoolOfRay is ActorPool
    assert QueueOfRay is Queue
    pool = ActorPool([on_rank(Workers, rank).remote() for rank in range(n_ranks)])
    assert list(pool.map(double, range(20))) == [*range(0, 40, 2)]
    assert sorted(pool.map_unordered(double, range(20))) == [*range(0, 40, 2)]
    assert list(pool.map(double, [])) == []
    pair = pool.map(lambda worker, value: worker.pair.options(num_returns=2).remote(value), [3])
    assert list(pair) == [[3, -3]]


def case_a_pool_gives_out_work_while_a_result_is_awaited() -> None:
    pool = ActorPool([Workers.remote(), Workers.remote()])
    with Gate() as gate, Gate() as later:
        pool.submit(lambda worker, value: worker.wait_at.remote(gate, value), "first")
        for value in range(3):
            pool.submit(double, value)
        # The gate is opened by what comes after all of these: so it runs while the first result is awaited.
        pool.submit(lambda worker, value: open_gate.remote(value), gate)
        assert pool.get_next(timeout=WAIT_S) == "first"
        assert [pool.get_next(timeout=WAIT_S) for _ in range(4)] == [0, 2, 4, None]
        pool.submit(lambda worker, value: worker.wait_at.remote(later, value), "late")
        pool.submit(double, 5)
        assert pool.get_next_unordered(timeout=WAIT_S) == 10
        later.open()
        assert pool.get_next_unordered(timeout=WAIT_S) == "late"
    assert not pool.has_next()
    raised(StopIteration, pool.get_next)
    raised(StopIteration, pool.get_next_unordered)


@hpcfut.remote(num_cpus=0)
def open_gate(gate: Gate) -> None:
    gate.open()


def case_a_pool_and_errors_and_timeouts() -> None:
    pool = ActorPool([Workers.remote()])
    for value in (-1, 1):
        pool.submit(double, value)
    raised(ValueError, pool.get_next)
    assert pool.get_next(timeout=WAIT_S) == 2
    with Gate() as gate:
        for text in ("never", "later"):
            pool.submit(lambda worker, value: worker.wait_at.remote(gate, value), text)
        raised(TimeoutError, pool.get_next, timeout=0.01)
        raised(TimeoutError, pool.get_next_unordered, timeout=0)
        raised(TimeoutError, pool.get_next, timeout=0, ignore_if_timedout=True)
        gate.open()
        assert pool.get_next(timeout=WAIT_S) == "later"
    assert not pool.has_next()


def case_actors_join_and_leave_a_pool() -> None:
    worker, other = Workers.remote(), Workers.remote()
    pool = ActorPool([worker])
    assert "belongs to this pool" in str(raised(ValueError, pool.push, worker))
    assert pool.has_free()
    assert pool.pop_idle() == worker
    assert not pool.has_free()
    assert pool.pop_idle() is None
    pool.submit(double, 1)
    assert not pool.has_next()  # Nobody is there to do it.
    pool.push(other)
    assert not pool.has_free()
    assert "belongs to this pool" in str(raised(ValueError, pool.push, other))
    assert pool.get_next() == 2
    assert pool.has_free()
    pool.submit(double, 7)
    assert list(pool.map(double, [2])) == [4]  # What was not taken is thrown away.


# -- Queue -------------------------------------------------------------------------------------------------------------


@hpcfut.remote
def produce(queue: Queue, first: int, n: int) -> None:
    for number in range(first, first + n):
        queue.put(number)


@hpcfut.remote
def consume(queue: Queue, n: int) -> list[Any]:
    return [queue.get() for _ in range(n)]


def case_a_queue_between_ranks(n_ranks: int) -> None:
    queue = Queue(maxsize=3)
    producers = [on_rank(produce, rank).remote(queue, 100 * rank, 20) for rank in range(n_ranks)]
    consumers = [on_rank(consume, rank).remote(queue, 20) for rank in range(n_ranks)]
    taken = get(consumers)
    get(producers)
    assert sorted(itertools.chain(*taken)) == [100 * rank + n for rank in range(n_ranks) for n in range(20)]
    for part in taken:  # What one has put comes in order.
        for rank in range(n_ranks):
            own = [number for number in part if number // 100 == rank]
            assert own == sorted(own)
    assert queue.empty()


def case_a_queue_is_full_or_empty() -> None:
    queue = Queue(2)
    assert (queue.empty(), queue.full(), len(queue)) == (True, False, 0)
    assert isinstance(raised(Empty, queue.get_nowait), Empty)
    raised(Empty, queue.get, block=False)
    raised(Empty, queue.get, timeout=0.01)
    queue.put("a")
    queue.put_nowait([hpcfut.put("b")])
    assert (queue.empty(), queue.full(), queue.qsize(), queue.size()) == (False, True, 2, 2)
    raised(Full, queue.put_nowait, "c")
    raised(Full, queue.put, "c", timeout=0.01)
    assert queue.get(timeout=WAIT_S) == "a"
    assert get(queue.get()) == ["b"]
    for wrong in (queue.get, lambda timeout: queue.put(1, timeout=timeout)):
        raised(ValueError, wrong, timeout=-1)
    assert not Queue().full()


def case_batches_of_a_queue() -> None:
    queue = Queue(3)
    queue.put_nowait_batch(iter([1, 2]))
    assert "2 items do not fit" in str(raised(Full, queue.put_nowait_batch, [3, 4]))
    assert "3 items" in str(raised(Empty, queue.get_nowait_batch, 3))
    assert queue.get_nowait_batch(2) == [1, 2]
    assert queue.get_nowait_batch(0) == []
    raised(TypeError, queue.put_nowait_batch, 5)
    raised(TypeError, queue.get_nowait_batch, 1.5)
    raised(ValueError, queue.get_nowait_batch, -1)


def case_a_queue_in_coroutines() -> None:
    queue = Queue(1)

    async def talk() -> list[Any]:
        # More than any default allows at a time; the items come in between all the same.
        takers = [asyncio.create_task(queue.get_async()) for _ in range(1200)]
        await asyncio.gather(*[queue.put_async(number) for number in range(1200)])
        return list(await asyncio.gather(*takers))

    assert sorted(asyncio.run(talk())) == [*range(1200)]

    async def wait_in_vain() -> None:
        with contextlib.suppress(Empty):
            await queue.get_async(timeout=0.01)
            raise AssertionError("Something came.")
        await queue.put_async(1)
        with contextlib.suppress(Full):
            await queue.put_async(2, timeout=0.01)
            raise AssertionError("There was room.")

    asyncio.run(wait_in_vain())


def case_a_cancelled_taker_takes_nothing() -> None:
    queue = Queue()
    ref = queue.actor.get.remote(None)
    queue.empty()  # So that it waits.
    hpcfut.cancel(ref)
    raised(TaskCancelledError, get, ref)
    queue.put("item")
    assert queue.get(timeout=WAIT_S) == "item"


def case_the_end_of_a_queue() -> None:
    for force in (False, True):
        queue = Queue(actor_options={"name": "letters"})
        assert hpcfut.get_actor("letters") == queue.actor
        waiting = consume.remote(queue, 1)
        queue.put("last")
        assert get(waiting) == ["last"]
        waiting = consume.remote(queue, 1)
        queue.shutdown(force=force)
        raised(ActorDiedError, get, waiting)
        raised(ActorDiedError, queue.get)


# -- Barrier -----------------------------------------------------------------------------------------------------------


@hpcfut.remote
def meet(barrier: Barrier, n: int) -> list[int]:
    return [barrier.wait() for _ in range(n)]


def case_a_barrier_between_ranks(n_ranks: int) -> None:
    barrier = Barrier(n_ranks + 2)
    refs = [on_rank(meet, n % n_ranks).remote(barrier, 5) for n in range(n_ranks + 2)]
    rounds = zip(*get(refs), strict=True)
    assert [sorted(places) for places in rounds] == [[*range(n_ranks + 2)]] * 5
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (n_ranks + 2, 0, False)


def case_a_broken_barrier() -> None:
    barrier = Barrier(3)
    waiting = meet.remote(barrier, 1)
    raised(BrokenBarrierError, barrier.wait, timeout=0.01)
    raised(BrokenBarrierError, get, waiting)
    assert barrier.broken
    raised(BrokenBarrierError, barrier.wait)
    barrier.reset()
    assert not barrier.broken
    barrier.abort()
    assert barrier.broken
    raised(ValueError, Barrier, 0)

    async def gather() -> list[int]:
        return await asyncio.gather(*[barrier.wait_async() for _ in range(3)])

    barrier.reset()
    assert sorted(asyncio.run(gather())) == [0, 1, 2]


# -- Semaphore ---------------------------------------------------------------------------------------------------------


@hpcfut.remote
def go_in(semaphore: Semaphore, folder: Path, n_max: int) -> bool:
    with semaphore:
        mine = folder / os.urandom(8).hex()
        mine.touch()
        is_right = len(list(folder.iterdir())) <= n_max
        mine.unlink()
    return is_right


def case_a_semaphore_between_ranks(n_ranks: int) -> None:
    with Gate() as gate:
        folder = gate.folder / "inside"
        folder.mkdir()
        semaphore = Semaphore(2)
        assert all(get([on_rank(go_in, n % n_ranks).remote(semaphore, folder, 2) for n in range(5 * n_ranks)]))


def case_a_semaphore_is_taken() -> None:
    semaphore = Semaphore()
    with semaphore:
        assert not semaphore.acquire(blocking=False)
        assert not semaphore.acquire(timeout=0.01)
    assert semaphore.acquire(timeout=0)
    semaphore.release(2)
    assert semaphore.acquire(blocking=False)
    assert semaphore.acquire(blocking=False)
    assert not semaphore.acquire(blocking=False)
    raised(ValueError, semaphore.release, 0)
    raised(ValueError, Semaphore, -1)
    semaphore.release()

    async def take() -> bool:
        async with semaphore:
            return await semaphore.acquire_async(timeout=0.01)

    assert not asyncio.run(take())
