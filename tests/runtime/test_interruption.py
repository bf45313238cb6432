"""Interruption: whom it strikes, and whom it does not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

import hpcfut
from hpcfut.api import session
from hpcfut.exceptions import TaskCancelledError
from hpcfut.runtime.interruption import _strike
from hpcfut.runtime.runtime import Runtime

LONG_S = 10.0


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    hpcfut.init()
    yield session.current()
    hpcfut.shutdown()


class Spinning:
    """A thread that runs Python until it is struck, or may go on."""

    def __init__(self) -> None:
        self.is_inside = threading.Event()
        self.may_go_on = threading.Event()
        self.was_struck = False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.is_inside.wait(LONG_S)

    def _run(self) -> None:
        try:
            self._spin()
        except TaskCancelledError:
            self.was_struck = True

    def _spin(self) -> None:
        self.is_inside.set()
        while not self.may_go_on.is_set():
            pass

    def frame(self) -> FrameType:
        """The frame of ``_spin``."""
        frame: FrameType | None = sys._current_frames()[self.ident]
        while frame is not None and frame.f_code is not Spinning._spin.__code__:
            frame = frame.f_back
        assert frame is not None
        return frame

    @property
    def ident(self) -> int:
        assert self.thread.ident is not None
        return self.thread.ident

    def end(self) -> bool:
        """Lets it go on; gives whether it was struck."""
        self.may_go_on.set()
        self.thread.join(LONG_S)
        return self.was_struck


def test_the_topmost_frame_is_struck() -> None:
    spinning = Spinning()
    frame = spinning.frame()
    deadline = time.monotonic() + LONG_S
    # It calls ``is_set`` now and then, and is not struck while that is on top.
    while not _strike(spinning.ident, frame):
        assert time.monotonic() < deadline
    spinning.thread.join(LONG_S)
    assert spinning.was_struck


def test_a_frame_below_is_not_struck() -> None:
    spinning = Spinning()
    below = spinning.frame().f_back
    assert below is not None
    for _ in range(1000):
        assert not _strike(spinning.ident, below)
    assert not spinning.end()


def test_a_thread_that_has_ended_is_not_struck() -> None:
    spinning = Spinning()
    frame = spinning.frame()
    spinning.end()
    assert not _strike(spinning.ident, frame)


def test_a_task_that_was_given_out_and_not_begun_is_interrupted(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    @hpcfut.remote
    def forever() -> None:
        while True:
            pass

    find_thread = runtime.engine.on_run
    monkeypatch.setattr(runtime.engine, "on_run", lambda: None)
    ref = forever.remote()
    assert hpcfut.wait([ref], timeout=0.1) == ([], [ref])
    assert runtime.engine.runs
    hpcfut.cancel(ref)
    assert hpcfut.wait([ref], timeout=0.1) == ([], [ref])
    find_thread()
    with pytest.raises(TaskCancelledError):
        hpcfut.get(ref, timeout=LONG_S)
    assert not runtime.executor.cancelled
    assert not runtime.executor.interruption.pending


def test_an_interruption_that_comes_as_the_task_ends_is_forgotten(runtime: Runtime) -> None:
    ref = hpcfut.remote(lambda: 1).remote()
    assert hpcfut.get(ref) == 1
    runtime.executor.interruption.interrupt(12345)
    deadline = time.monotonic() + LONG_S
    while runtime.executor.cancelled or runtime.executor.interruption.pending:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_ctrl_c_in_the_moment_after_a_cancelled_task_is_not_forgotten(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pending(dict[int, None]):
        """Ctrl-C comes when somebody looks, and finds nothing."""

        def __bool__(self) -> bool:
            runtime.interrupt()
            return False

    runtime._alert()  # A task has been cancelled, and has ended since.
    monkeypatch.setattr(runtime.executor.interruption, "pending", Pending())
    runtime.demand_no_interruption()
    monkeypatch.undo()
    with pytest.raises(KeyboardInterrupt):
        hpcfut.get(hpcfut.put(1))
