"""Data under way are hurried: for how long, and what the helper does meanwhile."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from hpcfut.core.effects import SendObject
from hpcfut.core.events import SendCompleted
from hpcfut.runtime.helper import SWITCH_INTERVAL_HURRIED_S, SWITCH_INTERVAL_S, Helper
from hpcfut.runtime.movement import NBYTES_HURRIED_PER_S, Movement


def test_data_are_hurried_for_as_long_as_a_slow_network_would_take() -> None:
    completed = [(True, 1, 7)]
    transport: Any = SimpleNamespace(send_data=lambda *_: None, completed_data=lambda: completed)
    window: Any = SimpleNamespace(bare=lambda offset, nbytes: memoryview(b""))
    context: Any = SimpleNamespace(now=10.0)
    movement = Movement(transport, window, context, lambda *_: None)
    assert not movement.is_hurried(10.0)
    for reader in (1, 2):
        movement.send_object(SendObject(7, 5, reader, 0, int(NBYTES_HURRIED_PER_S)))
    assert movement.is_hurried(11.9)
    assert not movement.is_hurried(12.1), "Whoever does not take data holds up nobody's user code for ever."
    assert movement.take_completed() == [SendCompleted(5)]
    assert movement.is_hurried(11.9)
    completed[:] = [(True, 2, 7)]
    movement.take_completed()
    assert not movement.is_hurried(11.9)


def test_the_helper_looks_often_and_lets_user_code_go_on_as_before() -> None:
    before, intervals = sys.getswitchinterval(), []

    def tick() -> bool:
        intervals.append(round(sys.getswitchinterval(), 6))
        engine.is_hurried = len(intervals) < 3
        return True

    engine: Any = SimpleNamespace(is_hurried=True, tick=tick, watchers=SimpleNamespace(), rest=SimpleNamespace())
    engine.rest.ring = lambda: None
    helper = Helper(engine)
    helper._move_data()
    assert intervals == [SWITCH_INTERVAL_HURRIED_S] * 3
    assert round(sys.getswitchinterval(), 6) == SWITCH_INTERVAL_S
    helper.close()
    assert sys.getswitchinterval() == before
