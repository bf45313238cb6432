"""The helper: a thread that turns the core while no other thread of the rank drives, because all run user code.

It lets a rank that is busy in user code answer. It runs no user code, logs nothing and unpickles nothing.

While somebody watches objects without waiting for them inside hpcfut, nobody else may be there to find them; then the
helper looks as a leader does, often at first and ever more seldom until there is news.

Each of its looks takes the GIL from another thread, which costs that thread some 40 microseconds. So it sleeps on the
doorbell while there is nothing to answer (``rest.py``). When it is rung it looks and goes on sleeping; but if it was
rung a moment ago, it does not listen before a period is over, so that many rings cost few looks. While others drive it
looks less often, and when that has gone on for a while it parks: it costs nothing until the thread that drives leaves
to run user code.
"""

from __future__ import annotations

import sys
import threading
import time

from hpcfut.ports import HAS_WORK, SLEEPS
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.fatal import fatal
from hpcfut.runtime.rest import N_LOOKS

PERIOD_S = 0.0005
PERIOD_DRIVEN_S = 0.002
#: While data are under way: the buffers of a fast link are empty after some hundred microseconds.
PERIOD_HURRIED_S = 0.0001
#: The thread that gives the GIL up at the latest after this time lets the helper in.
SWITCH_INTERVAL_S = 0.0005
#: The same while data are hurried: it gives the GIL away, and must get it back, for every step. While a transfer
#: lasts, user code in pure Python goes on up to a tenth slower.
SWITCH_INTERVAL_HURRIED_S = 0.0001
N_IDLE_TICKS_MAX = 20
#: For watchers it looks again after this share of the time since the last news, but not sooner than that.
WATCH_SHARE = 0.3
WATCH_PERIOD_MIN_S = 0.00002


class Helper:
    """Owns the thread; ``close`` ends it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_parked = False
        self._is_closing = False
        #: When the helper was rung last.
        self._rung_at = 0.0
        self._n_news = 0
        self._news_at = 0.0
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread = threading.Thread(target=self._work, name="hpcfut-helper", daemon=True)
        engine.on_leave = self.wake
        engine.watchers.on_leave = self.hurry

    def start(self) -> None:
        """Begin. Not before the API knows the runtime: a task may run on a spare thread as soon as somebody looks."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not been closed."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Somebody stopped driving."""
        if self._is_parked:
            self._is_parked = False
            self._ring()

    def hurry(self) -> None:
        """Somebody who does not drive wants to be told soon."""
        self._is_parked = False
        self._ring()
        if self._engine.rest.is_dozing:
            self._engine.rest.ring()

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:
            return  # It has been rung already.

    def _work(self) -> None:
        with fatal("the helper thread"):
            self._tick_on()

    def _tick_on(self) -> None:
        engine, n_driven, period_s = self._engine, 0, PERIOD_S
        while not self._is_closing:
            self._bell.acquire(timeout=period_s)
            watch_s = self._until_next_look() if engine.watchers.are_left_alone else PERIOD_S
            if engine.tick() if watch_s < PERIOD_S else self._stand_in():
                n_driven = 0
                if engine.is_hurried:
                    self._move_data()
                period_s = self._until_next_look() if engine.watchers.are_left_alone else PERIOD_S
                continue
            n_driven += 1
            period_s = watch_s if watch_s < PERIOD_S else min(2 * period_s, PERIOD_DRIVEN_S)
            if n_driven >= N_IDLE_TICKS_MAX and engine.is_driven:
                self._park()
                n_driven, period_s = 0, PERIOD_S

    def _move_data(self) -> None:
        """Look often while data are under way, and let user code keep the GIL for less."""
        engine = self._engine
        sys.setswitchinterval(SWITCH_INTERVAL_HURRIED_S)
        while engine.is_hurried and not self._is_closing and engine.tick():
            self._bell.acquire(timeout=PERIOD_HURRIED_S)
        sys.setswitchinterval(SWITCH_INTERVAL_S)

    def _until_next_look(self) -> float:
        now, n_news = time.monotonic(), self._engine.watchers.n_news
        if n_news != self._n_news:
            self._n_news, self._news_at = n_news, now
        return min(max(WATCH_SHARE * (now - self._news_at), WATCH_PERIOD_MIN_S), PERIOD_S)

    def _stand_in(self) -> bool:
        """Answer for the threads that run user code, and doze while there is nothing to answer.

        Returns:
            Whether nobody drove, and there was no turn within the period. Otherwise nothing was done.
        """
        engine, rest = self._engine, self._engine.rest
        if not engine.try_lead(PERIOD_S):
            return False
        rest.lie_down(self._how())
        doze_s = self._look(N_LOOKS)
        while doze_s is not None:
            is_rung = rest.doze(doze_s)
            if not engine.try_lead(0.0):
                break
            # Somebody who led meanwhile may have got the rank up.
            is_up = is_rung or not rest.wakes_at
            if is_rung and self._answer():
                break
            if is_up:
                rest.lie_down(self._how())
            doze_s = self._look(N_LOOKS if is_up or rest.was_called else 1)
        return True

    def _answer(self) -> bool:
        """Look at once for what the rank was rung for; gives up the lead and returns true if that is so too often."""
        engine = self._engine
        engine.look()
        rung_at, self._rung_at = self._rung_at, time.monotonic()
        if self._rung_at - rung_at >= PERIOD_S:
            return False
        engine.rest.get_up()
        engine.leave_lead()
        return True

    def _how(self) -> int:
        return SLEEPS if self._engine.core.scheduler.n_slots_free > 0 else HAS_WORK

    def _look(self, n_looks: int) -> float | None:
        """Look so often and give up the lead; returns for how long to doze then, if there is nothing else to do."""
        engine, rest = self._engine, self._engine.rest
        try:
            for _ in range(n_looks):
                has_found = engine.look()
                rest.note_look()
            return None if has_found or self._is_closing else rest.prepare_doze()
        finally:
            if not rest.is_dozing:
                rest.get_up()
            engine.leave_lead()

    def _park(self) -> None:
        # The flag first, the look second: a driver that leaves in between sees the flag.
        self._is_parked = True
        if self._engine.is_driven and not self._is_closing:
            self._bell.acquire()
        self._is_parked = False

    def close(self) -> None:
        """End the thread and give the interpreter its switch interval back."""
        self._is_closing = True
        self._ring()
        self._engine.rest.ring()
        if self.is_running:
            self._thread.join()
        sys.setswitchinterval(self._switch_interval_s)
