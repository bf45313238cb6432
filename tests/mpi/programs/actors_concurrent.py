"""Actors that do several things at a time: event loops, threads, groups."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import hpcfut
from hpcfut.exceptions import ActorDiedError, TaskCancelledError, TaskUnschedulableError
from tests.mpi.support import Gate, get, on_rank, raised, same


class Meeting:
    """Calls that wait for each other."""

    def __init__(self) -> None:
        self.n_here = 0
        self.n_most = 0
        self.loop = asyncio.get_running_loop()
        self.is_open = asyncio.Event()
        self.begun: list[Any] = []

    async def meet(self, n: int, value: Any = None) -> Any:
        """Wait until there are so many."""
        self.n_here += 1
        if self.n_here == n:
            self.is_open.set()
        await self.is_open.wait()
        return value

    async def begin(self, value: Any) -> Any:
        self.begun.append(value)
        await asyncio.sleep(0)
        return self.begun.index(value)

    async def take(self, refs: list[Any]) -> Any:
        return await asyncio.gather(*refs)

    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            await asyncio.sleep(0)
            yield number

    def plain(self) -> bool:
        return asyncio.get_running_loop() is self.loop

    def plain_count(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise KeyError("async")

    async def sleep(self, gate: Gate) -> str:
        gate.arrive()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            self.begun.append("cancelled")
            raise
        return "slept"

    async def told(self) -> list[Any]:
        return self.begun

    async def leave(self) -> None:
        hpcfut.exit_actor()

    async def task_ids(self) -> list[str | None]:
        context, ids = hpcfut.get_runtime_context(), []
        for _ in range(3):
            ids.append(context.get_task_id())
            await asyncio.sleep(0)
        return ids


Meetings: Any = hpcfut.remote(Meeting)


def case_a_thousand_calls_at_a_time(n_ranks: int) -> None:
    for rank in range(n_ranks):
        meeting = on_rank(Meetings, rank).remote()
        assert get([meeting.meet.remote(1000, n) for n in range(1000)]) == [*range(1000)]


def case_async_calls_begin_in_order() -> None:
    meeting = Meetings.remote()
    assert get([meeting.begin.remote(n) for n in range(100)]) == [*range(100)]


def case_max_concurrency_of_async_actors() -> None:
    meeting = Meetings.options(max_concurrency=2).remote()
    first = meeting.meet.remote(3)
    second, third = meeting.meet.remote(3), meeting.meet.remote(3)
    assert hpcfut.wait([first, second, third], timeout=0.05)[0] == []
    hpcfut.cancel(first)
    raised(TaskCancelledError, get, first)
    get([second, third])


def case_an_async_method_awaits_refs(n_ranks: int) -> None:
    for rank in range(n_ranks):
        meeting = on_rank(Meetings, rank).remote()
        assert get(meeting.take.remote([same.remote(n) for n in range(20)])) == [*range(20)]


def case_async_generators(n_ranks: int) -> None:
    for rank in range(n_ranks):
        meeting = on_rank(Meetings, rank).remote()
        for n in (0, 1, 200):
            assert get(list(meeting.count.remote(n))) == [*range(n)]
            assert get(list(meeting.plain_count.remote(n))) == [*range(n)]


def case_plain_methods_run_in_the_loop() -> None:
    meeting = Meetings.remote()
    assert get(meeting.plain.remote())
    assert "async" in str(raised(KeyError, get, meeting.fail.remote()))


def case_an_async_call_is_cancelled() -> None:
    meeting = Meetings.remote()
    with Gate() as gate:
        ref = meeting.sleep.remote(gate)
        gate.until_arrived(1, [ref])
        hpcfut.cancel(ref)
        raised(TaskCancelledError, get, ref)
    assert get(meeting.told.remote()) == ["cancelled"]


def case_an_async_actor_is_killed_or_leaves() -> None:
    meeting = Meetings.remote()
    with Gate() as gate:
        ref = meeting.sleep.remote(gate)
        gate.until_arrived(1, [ref])
        hpcfut.kill(meeting)
        raised(ActorDiedError, get, ref)
    meeting = Meetings.remote()
    raised(ActorDiedError, get, meeting.leave.remote())
    raised(ActorDiedError, get, meeting.told.remote())


def case_each_step_knows_its_task() -> None:
    meeting = Meetings.remote()
    told = get([meeting.task_ids.remote() for _ in range(10)])
    assert all(len(set(ids)) == 1 and None not in ids for ids in told)
    assert len({ids[0] for ids in told}) == 10


class Parent:
    """Its calls run several coroutines at a time."""

    async def told(self) -> tuple[str | None, str | None]:
        await asyncio.sleep(0)
        context = hpcfut.get_runtime_context()
        return context.get_task_id(), context.get_actor_id()

    async def tell(self) -> bool:
        """Whether what it runs beside itself knows whose it is, and what it leaves behind does not."""
        own = await self.told()
        self.left = asyncio.ensure_future(self.linger())
        told = await asyncio.gather(self.told(), asyncio.wait_for(self.told(), 60))
        return list(told) == [own, own] and None not in own

    async def linger(self) -> str | None:
        await asyncio.sleep(0.01)
        return hpcfut.get_runtime_context().get_task_id()

    async def left_behind(self) -> str | None:
        return await self.left


def case_what_a_call_gathers_knows_whose_it_is() -> None:
    actor = hpcfut.remote(Parent).remote()
    assert get(actor.tell.remote())
    assert get(actor.left_behind.remote()) is None


class Knot:
    """Waits with the thread of its loop for what only that could run."""

    async def inner(self) -> int:
        return 1

    async def outer(self, me: Any) -> Any:
        return hpcfut.get(me.inner.remote())


def case_an_event_loop_that_waits_for_a_call_of_itself_is_told() -> None:
    actor = hpcfut.remote(Knot).remote()
    error = raised(TaskUnschedulableError, get, actor.outer.remote(actor))
    assert "Knot.inner waits for its turn, which Knot.outer has" in str(error)
    assert get(actor.inner.remote()) == 1


class Threads:
    """Calls that meet at a barrier."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(3)
        self.lock = threading.Lock()
        self.event = threading.Event()

    def meet(self) -> int:
        self.barrier.wait(60)
        return threading.get_ident()

    def wait(self) -> bool:
        return self.event.wait(60)

    def set(self) -> None:
        self.event.set()

    def nested(self, value: Any) -> Any:
        return hpcfut.get(same.remote(value))


def case_threaded_actors(n_ranks: int) -> None:
    for rank in range(n_ranks):
        threads = on_rank(hpcfut.remote(max_concurrency=3)(Threads), rank).remote()
        for _ in range(2):
            assert len(set(get([threads.meet.remote() for _ in range(3)]))) == 3
        waiting = threads.wait.remote()
        threads.set.remote()
        assert get(waiting)
        assert get([threads.nested.remote(n) for n in range(20)]) == [*range(20)]


def case_concurrency_groups() -> None:
    class Grouped:
        def __init__(self) -> None:
            self.event = threading.Event()

        @hpcfut.method(concurrency_group="io")
        def read(self) -> bool:
            return self.event.wait(60)

        def open(self) -> None:
            self.event.set()

    grouped = hpcfut.remote(concurrency_groups={"io": 2, "other": 1})(Grouped).remote()
    reads = [grouped.read.remote() for _ in range(4)]
    in_other = grouped.open.options(concurrency_group="other").remote()
    get([in_other, *reads])
    assert get(reads) == [True] * 4


def case_concurrency_groups_of_async_actors() -> None:
    meeting = Meetings.options(concurrency_groups={"one": 1}).remote()
    one = meeting.meet.options(concurrency_group="one")
    first, second = one.remote(2), one.remote(2)
    assert hpcfut.wait([first, second], timeout=0.05)[0] == []
    get(meeting.meet.remote(2))
    get([first, second])


def case_a_loop_hears_sockets_and_other_threads(n_ranks: int) -> None:
    class Listener:
        def __init__(self) -> None:
            self.ends = socket.socketpair()
            for end in self.ends:
                end.setblocking(False)

        async def receive(self) -> bytes:
            return await asyncio.get_running_loop().sock_recv(self.ends[0], 100)

        async def send(self, data: bytes) -> None:
            await asyncio.get_running_loop().sock_sendall(self.ends[1], data)

        async def of_a_thread(self, value: int) -> int:
            await asyncio.to_thread(time.sleep, 0.002)
            return value

        async def after(self, s: float) -> float:
            began = time.monotonic()
            await asyncio.sleep(s)
            return time.monotonic() - began

        def close(self) -> None:
            for end in self.ends:
                end.close()

    for rank in range(n_ranks):
        listener = on_rank(hpcfut.remote(Listener), rank).remote()
        for n in range(5):
            assert get(listener.of_a_thread.remote(n)) == n
            received = listener.receive.remote()
            assert get(listener.of_a_thread.remote(n)) == n
            listener.send.remote(str(n).encode())
            assert get(received) == str(n).encode()
        assert get(listener.after.remote(0.01)) >= 0.01
        get(listener.close.remote())
