"""The homes of actors: who leads, and that no call is left lying."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hpcfut
from hpcfut.api import session
from hpcfut.runtime.runtime import Runtime

LONG_S = 30.0


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """A rank whose driver does not wait, and that has an executor thread which may lead, as a worker has."""
    hpcfut.init()
    runtime = session.current()
    runtime.engine.core.scheduler._is_driver = False  # Else it would work only while the driver waits.
    is_over = threading.Event()
    worker = threading.Thread(target=runtime.executor.serve, args=(is_over.is_set,), kwargs={"may_lead": True})
    worker.start()
    until(lambda: runtime.engine.leader is not None)
    yield runtime
    is_over.set()
    for waiter in list(runtime.engine.waiters.values()):
        waiter.tell()
    worker.join(LONG_S)
    hpcfut.shutdown()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < deadline, "It did not become true."
        time.sleep(0.001)


def got(ref: Any) -> Any:
    """The value, without leading."""
    runtime = session.current()
    runtime.engine.hear_now()
    until(lambda: runtime.at_hand(ref._object_id) is not None)
    return hpcfut.get(ref)


def n_threads() -> int:
    return sum(thread.name == "hpcfut-actor" for thread in threading.enumerate())


class Where:
    def thread(self) -> int:
        return threading.get_ident()

    def same(self, value: Any) -> Any:
        return value


def test_who_ran_something_last_leads(runtime: Runtime) -> None:
    engine = runtime.engine
    main = engine.baton
    assert main is not None
    first, second = (hpcfut.remote(Where).remote() for _ in range(2))
    ask = hpcfut.remote(threading.get_ident)
    threads = [got(first.thread.remote()), got(second.thread.remote()), got(ask.remote())]
    assert len(set(threads)) == 3
    until(lambda: engine.leader is main)
    assert got(first.thread.remote()) == threads[0]
    until(lambda: engine.leader is not None and engine.leader is not main)
    baton = engine.baton
    assert baton is engine.leader
    for _ in range(3):
        assert got(first.thread.remote()) == threads[0]
        assert engine.baton is baton
    assert got(ask.remote()) == threads[2]
    assert engine.baton is main
    assert got(second.thread.remote()) == threads[1]
    assert engine.baton not in (main, baton)
    del second
    gc.collect()
    engine.hear_now()
    until(lambda: engine.leader is main)
    assert engine.baton is main


def test_no_call_is_left_lying(runtime: Runtime) -> None:
    actors = [hpcfut.remote(Where).options(max_concurrency=1 + n % 2).remote() for n in range(4)]
    task = hpcfut.remote(lambda value: value)
    failures: list[BaseException] = []

    def call(seed: int) -> None:
        try:
            for n in range(150):
                callee = actors[(n * seed) % 4].same if n % 5 else task
                assert got(callee.remote(n)) == n
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_threads_of_actors_end_with_them(runtime: Runtime) -> None:
    until(lambda: n_threads() == 0)  # Those of earlier tests may be about to end.
    actors = [hpcfut.remote(Where).remote() for _ in range(5)]
    for actor in actors:
        got(actor.thread.remote())
    assert n_threads() == 5
    del actor, actors
    gc.collect()
    runtime.engine.hear_now()
    until(lambda: n_threads() == 0)
