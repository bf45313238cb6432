"""A child process, as the rank sees it; here there is none."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hpcfut.runtime.isolated_child import IsolatedChild
from hpcfut.wire.isolation import CallEnded, Said

TASK_ID = 7


class Process:
    """Remembers what signals it was sent."""

    pid = 1
    channel: Any = None
    nbytes_private = 0

    def __init__(self) -> None:
        self.signals: list[int] = []

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def end(self) -> int | None:
        return None

    def let_go(self) -> None:
        pass


class Interrupted:
    """Remembers what is to be interrupted."""

    def __init__(self, pending: Sequence[int], forced: Sequence[int]) -> None:
        self.pending, self.forced = dict.fromkeys(pending), dict.fromkeys(forced)

    def interrupt(self, task_id: int, is_forced: bool = False) -> None:
        assert is_forced
        self.pending[task_id] = None


def working(interruption: Interrupted) -> tuple[IsolatedChild, Process]:
    process = Process()
    runtime: Any = SimpleNamespace(
        executor=SimpleNamespace(interruption=interruption), pickling=SimpleNamespace(make_ref=None)
    )
    child = IsolatedChild(process, runtime, lambda view: None)
    child.begin(TASK_ID, 0)
    return child, process


def test_a_task_in_which_the_exception_was_raised_is_struck_no_more() -> None:
    interruption = Interrupted([TASK_ID], [])
    child, _ = working(interruption)
    child.note(Said(CallEnded(), is_struck=True))
    assert not interruption.pending


def test_a_process_that_is_to_end_is_not_spared_because_the_exception_was_raised() -> None:
    interruption = Interrupted([TASK_ID], [TASK_ID])
    child, _ = working(interruption)
    child.note(Said(CallEnded(), is_struck=True))
    assert TASK_ID in interruption.pending


def test_a_strike_is_made_once_unless_it_is_forced() -> None:
    child, process = working(Interrupted([], []))
    for is_forced in (False, False, True):
        child.strike(TASK_ID, is_forced)
    child.strike(TASK_ID + 1, False)
    assert process.signals == [signal.SIGURG, signal.SIGKILL]
    assert child.is_struck, "It is not used for another call, which this might hit."
