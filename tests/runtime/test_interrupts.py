"""Ctrl-C while Python runs what it calls by itself, and drops what is raised there."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import hpcfut
from hpcfut.api import interrupts

LONG_S = 20.0
Hear = Callable[["sys.UnraisableHookArgs"], object]


def press() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def spin() -> None:
    """Runs Python until something is raised."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        pass


def press_and_spin() -> None:
    press()
    spin()


def in_callback(act: Callable[[], None]) -> None:
    """Does it in a weakref callback."""

    class Watched:
        pass

    watched = Watched()
    watch = weakref.ref(watched, lambda _: act())
    del watched
    assert watch() is None


def in_del(act: Callable[[], None]) -> None:
    """Does it in a `__del__`."""

    class Dying:
        def __del__(self) -> None:
            act()

    Dying()


@contextmanager
def session(hear: Hear | None = None) -> Iterator[None]:
    """A session of a program that has a hook of its own for what Python drops; without one nothing may be dropped."""
    dropped: list[str] = []

    def note(what: sys.UnraisableHookArgs) -> None:
        dropped.append(repr(what.exc_value))

    hear = hear or note
    hook = sys.unraisablehook
    # Who starts the tests in the background lets them ignore Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = hear
    try:
        hpcfut.init()
        yield
    finally:
        hpcfut.shutdown()
        hook_left, sys.unraisablehook = sys.unraisablehook, hook
        handler_left = signal.signal(signal.SIGINT, handler)
        assert hook_left is hear
        assert handler_left is signal.default_int_handler
        assert not dropped


def compute() -> None:
    spin()


def sleep() -> None:
    time.sleep(LONG_S)


def call_hpcfut() -> None:
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        hpcfut.get(hpcfut.put(1))


def wait_in_hpcfut() -> None:
    @hpcfut.remote
    def wait() -> None:
        while True:
            time.sleep(0.01)

    ref = wait.remote()
    try:
        hpcfut.wait([ref], timeout=LONG_S)
    finally:
        hpcfut.cancel(ref)


@pytest.mark.parametrize("place", [in_callback, in_del])
@pytest.mark.parametrize("go_on", [compute, sleep, call_hpcfut, wait_in_hpcfut])
def test_ctrl_c_that_python_drops_comes_again(
    place: Callable[[Callable[[], None]], None], go_on: Callable[[], None]
) -> None:
    def script() -> None:
        place(press_and_spin)
        go_on()

    with session(), pytest.raises(KeyboardInterrupt):
        script()


def test_ctrl_c_that_python_drops_several_times_comes_until_it_is_raised() -> None:
    n_dropped = 0

    def be_dropped() -> None:
        nonlocal n_dropped
        try:
            spin()
        except KeyboardInterrupt:
            n_dropped += 1
            raise

    def script() -> None:
        in_callback(press_and_spin)
        for _ in range(3):
            in_callback(be_dropped)
        spin()

    with session(), pytest.raises(KeyboardInterrupt):
        script()
    assert n_dropped == 3


def test_ctrl_c_while_the_hook_tells_of_something_else() -> None:
    heard = []

    def press_as_well(dropped: sys.UnraisableHookArgs) -> None:
        heard.append(dropped.exc_type)
        press()

    def fail() -> None:
        raise ValueError

    def script() -> None:
        in_callback(fail)
        spin()

    with session(press_as_well), pytest.raises(KeyboardInterrupt):
        script()
    assert heard == [ValueError]


def test_other_things_that_python_drops_are_told_as_before() -> None:
    heard = []

    def hear(dropped: sys.UnraisableHookArgs) -> None:
        heard.append((dropped.exc_type, threading.current_thread().name))

    def fail() -> None:
        raise ValueError

    def interrupt() -> None:
        raise KeyboardInterrupt

    with session(hear):
        in_callback(fail)
        thread = threading.Thread(target=in_callback, args=(interrupt,), name="another")
        thread.start()
        thread.join()
        # As the user's own handler of Ctrl-C may do.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        in_callback(interrupt)
        signal.signal(signal.SIGINT, before)
    assert heard == [
        (ValueError, "MainThread"),
        (KeyboardInterrupt, "another"),
        (KeyboardInterrupt, "MainThread"),
    ]


def test_ctrl_c_that_was_dropped_at_the_end_of_a_session_is_raised_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_AGAIN_S", 1.0)
    with session():
        in_callback(press_and_spin)
        hpcfut.shutdown()
        with pytest.raises(KeyboardInterrupt):
            spin()
