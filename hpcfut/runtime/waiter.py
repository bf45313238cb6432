"""A thread that waits inside hpcfut, and how it is woken."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

from hpcfut.core.effects import RunTask
from hpcfut.runtime.rest import Rest


class Waiter(msgspec.Struct, eq=False):
    """One thread that waits; made for each wait, because a late wake-up must not hit the next one."""

    waiter_id: int
    #: Whether there is anything to look at; the waiting thread takes it back before it looks.
    has_news: bool = False
    is_done: bool = False
    #: What ``WakeWaiter`` brought, with views for places.
    object_ids: list[int] = []
    values: list[Any] = []
    #: A task to run on this thread.
    run: RunTask | None = None
    #: The threads among which it stands while it has nothing to run, if it is a thread that runs tasks.
    pool: dict[int, Waiter] | None = None
    #: Made by the first sleep: most waits end without one.
    _bell: Any = None
    _is_rung: bool = False
    #: Where the thread sleeps instead, while it leads.
    _rest: Rest | None = None

    def tell(self) -> None:
        """Something happened that this thread waits for, or that ends its wait."""
        self.has_news = True
        self.ring()

    def ring(self) -> None:
        """Wake the thread, or keep it from falling asleep once."""
        # The flag first, the bell second; the sleeper makes its bell first and looks at the flag second. A thread that
        # was rung before is awake, or about to be, and will look at everything after that.
        if self._is_rung:
            return
        self._is_rung = True
        if self._rest is not None:
            self._rest.ring()
        bell = self._bell
        if bell is not None:
            try:
                bell.release()
            except RuntimeError:
                return  # It has been rung already.

    def sleep(self, timeout_s: float) -> None:
        """Sleep until rung, or for this long (negative: for ever)."""
        bell = self._bell
        if bell is None:
            bell = threading.Lock()
            bell.acquire()
            self._bell = bell
            if self._is_rung:
                timeout_s = 0.0
        bell.acquire(timeout=timeout_s)
        self._is_rung = False

    def sleep_on(self, rest: Rest, timeout_s: float) -> bool:
        """Sleep as the leader until it or its rank is rung, or for this long; returns whether it was rung."""
        self._rest = rest
        is_rung = self._is_rung or rest.sleep(timeout_s)
        self._rest = None
        self._is_rung = False
        return is_rung
