"""Executor threads: who takes a task, what never starts, and where cancellation does not strike."""

import gc
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import hpcfut
from hpcfut.api import calls, session
from hpcfut.core.effects import RunTask
from hpcfut.core.events import Event
from hpcfut.exceptions import TaskCancelledError
from hpcfut.model.errors import NotARefError, SessionEndedError
from hpcfut.runtime.mailbox import Released
from hpcfut.runtime.runtime import Runtime
from hpcfut.runtime.waiter import Waiter

LONG_S = 10.0


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    # Who starts the tests in the background lets them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hpcfut.init(object_store_memory=3_000_000)
    yield session.current()
    hpcfut.shutdown()
    signal.signal(signal.SIGINT, before)


def a_run(n: int) -> RunTask:
    return RunTask(n, 0, b"", (), (), (), 0)


def test_a_task_that_comes_while_another_is_taken_finds_a_thread(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, executor = runtime.engine, runtime.executor
    second_ran, is_over = threading.Event(), threading.Event()
    ended: list[bool] = []

    class Runs(list[RunTask]):
        def pop(self, index: Any = -1) -> RunTask:
            run = super().pop(index)
            if run.task_id == 1:
                self.append(a_run(2))
                executor._find_thread()
            return run

    def execute(run: RunTask, idle: Waiter) -> None:
        if run.task_id == 1:
            ended.append(second_ran.wait(LONG_S))
            is_over.set()
        else:
            second_ran.set()
        engine.idle[idle.waiter_id] = idle

    monkeypatch.setattr(engine, "runs", Runs([a_run(1)]))
    monkeypatch.setattr(executor, "execute", execute)
    thread = threading.Thread(target=executor.serve, args=(is_over.is_set,), kwargs={"may_lead": False})
    thread.start()
    thread.join(2 * LONG_S)
    assert ended == [True]


def test_a_task_that_was_given_out_as_the_session_ended_does_not_run(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @hpcfut.remote
    def touch(path: str) -> None:
        Path(path).touch()

    monkeypatch.setattr(runtime.engine, "on_run", lambda: None)
    ref = touch.remote(str(tmp_path / "ran"))
    assert hpcfut.wait([ref], timeout=0.1) == ([], [ref])
    (run,) = runtime.engine.runs
    hpcfut.shutdown()
    runtime.executor.execute(run)
    assert not (tmp_path / "ran").exists()


class Slow:
    """Takes a while to pickle."""

    is_pickling = threading.Event()
    is_pickled = threading.Event()

    def __reduce__(self) -> Any:
        Slow.is_pickling.set()
        for _ in range(200):
            time.sleep(0.001)
        Slow.is_pickled.set()
        return str, ("done",)


def test_cancellation_does_not_strike_inside_hpcfut(runtime: Runtime) -> None:
    @hpcfut.remote
    def put() -> Any:
        hpcfut.put(sys.modules["tests.runtime.test_executor"].Slow())
        while True:
            pass

    def cancel() -> None:
        assert Slow.is_pickling.wait(LONG_S)
        hpcfut.cancel(ref)

    ref = put.remote()
    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(TaskCancelledError):
        hpcfut.get(ref, timeout=LONG_S)
    thread.join()
    assert Slow.is_pickled.is_set()
    assert not runtime.executor.cancelled
    assert not runtime.executor.interruption.pending


def test_results_of_which_one_finds_no_room_leave_nothing(runtime: Runtime) -> None:
    @hpcfut.remote(num_returns=2)
    def two() -> Any:
        return np.zeros(2_000_000, "u1"), np.zeros(2_000_000, "u1")

    with pytest.raises(MemoryError):
        hpcfut.get(two.remote())
    assert runtime.engine.core.copies.arena.n_segments == 0


def test_a_wait_for_what_the_last_one_left_looks_at_its_refs_all_the_same(runtime: Runtime) -> None:
    first, late, other = (hpcfut.put(number) for number in range(3))
    assert hpcfut.wait([first, late, other]) == ([first], [late, other])
    with pytest.raises(ValueError, match="a ref twice"):
        hpcfut.wait([late, late])
    with pytest.raises(NotARefError, match="a int at position 1"):
        hpcfut.wait([late, 7])  # type: ignore[list-item]
    with pytest.raises(NotARefError, match="a Mock at position 0"):
        hpcfut.wait([Mock(), other])
    with pytest.raises(NotARefError, match="a Mock at position 1"):
        hpcfut.wait([late, Mock()])
    with pytest.raises(ValueError, match="whole number from 1 to 2"):
        hpcfut.wait([late, other], num_returns=3)
    stale: hpcfut.ObjectRef[int] = hpcfut.ObjectRef(other._object_id, Released())
    with pytest.raises(SessionEndedError):
        hpcfut.wait([late, first, stale])
    assert hpcfut.wait([late, other]) == ([late], [other])
    assert hpcfut.wait([other, late]) == ([other], [late])
    assert hpcfut.wait([late]) == ([late], [])


def test_wait_gives_no_more_than_was_asked_for(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = [hpcfut.put(n) for n in range(3)]
    wait = runtime.wait

    def wait_for_more(object_ids: list[int], n_wanted: int, timeout_s: float | None, *how: bool) -> Waiter | None:
        """As where a third one becomes ready in the moment in which the time is over."""
        return wait(object_ids, n_wanted + 1, timeout_s, *how)

    monkeypatch.setattr(runtime, "wait", wait_for_more)
    monkeypatch.setattr(calls, "runtime_of", lambda *refs: runtime)
    assert hpcfut.wait(refs, num_returns=2, timeout=0) == (refs[:2], refs[2:])


def test_arguments_of_which_one_finds_no_room_leave_nothing(runtime: Runtime) -> None:
    @hpcfut.remote
    def take(*values: Any) -> None: ...

    with pytest.raises(MemoryError):
        take.remote(np.zeros(2_000_000, "u1"), np.zeros(4_000_000, "u1"))
    gc.collect()
    runtime.engine.hear_now()
    assert runtime.engine.core.copies.arena.n_segments == 0


def test_ctrl_c_inside_the_engine_is_raised_as_the_call_ends(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    is_pressed = False

    def press(now: float, **how: Any) -> bool:
        nonlocal is_pressed
        if threading.current_thread() is threading.main_thread() and not is_pressed:
            is_pressed = True
            signal.raise_signal(signal.SIGINT)
        return turn(now, **how)

    def put_on() -> None:
        for _ in range(1000):
            assert not is_pressed, "The call during which the key was pressed has ended."
            hpcfut.put(0)

    turn = runtime.engine._turn
    monkeypatch.setattr(runtime.engine, "_turn", press)
    with pytest.raises(KeyboardInterrupt):
        put_on()
    runtime.engine.hear_now()
    assert runtime.engine.core.statistics().n_owned == 0


def test_ctrl_c_between_two_steps_of_a_wait_ends_it_in_good_order(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    @hpcfut.remote
    def sleep() -> None:
        time.sleep(1.0)

    def press(self: Runtime, current: Any) -> bool:
        signal.raise_signal(signal.SIGINT)
        return must_stop(self, current)

    must_stop = Runtime.must_stop
    monkeypatch.setattr(Runtime, "must_stop", press)
    ref = sleep.remote()
    with pytest.raises(KeyboardInterrupt):
        hpcfut.get(ref, timeout=0.01)
    assert not runtime.engine.core.waits.waits


def test_refs_in_a_result_are_held_until_its_end_is_told(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    @hpcfut.remote
    def child() -> str:
        return "kept"

    @hpcfut.remote
    def parent() -> Any:
        ref = child.remote()
        hpcfut.get(ref)
        return ref

    def next_run(event: Event, waiter: Waiter) -> RunTask | None:
        runtime.engine.hear_now()  # As another thread might, just now.
        return original(event, waiter)

    original = runtime.engine.next_run
    monkeypatch.setattr(runtime.engine, "next_run", next_run)
    held = [parent.remote() for _ in range(3)]
    assert hpcfut.wait(held, num_returns=3, timeout=LONG_S)[1] == []
    assert [hpcfut.get(hpcfut.get(ref)) for ref in held] == ["kept"] * 3
