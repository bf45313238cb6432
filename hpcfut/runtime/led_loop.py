"""An event loop that leads (``engine.py``) while it has nothing to do, so that calls come to the thread that runs them.

It has the baton if it began a call last, and then waits inside the engine instead of on its selector. What wakes it is
told to both: a byte in the loop's own pipe first, news for its waiter second. Before it waits it takes back the news
first and looks at the pipe second. So one of them is seen. Where user code waits for sockets or pipes, the engine would
not see these; such a loop gives the baton back and sleeps on its selector.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

from hpcfut.runtime.engine import Engine

#: That of the loop itself, which wakes it.
N_OWN_PIPES = 1


class LedLoop(asyncio.SelectorEventLoop):
    """The loop of one actor; made on its thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiter = engine.new_waiter()
        super().__init__(_Selector(self))

    def _write_to_self(self) -> None:
        super()._write_to_self()  # type: ignore[misc]  # It is meant to be overridden, and typeshed does not know it.
        self._waiter.tell()

    def begin(self) -> None:
        """A call begins."""
        self._engine.take_baton(self._waiter)

    def news(self) -> None:
        """A call has come in a turn of this thread."""
        self._waiter.has_news = True

    def look(self) -> None:
        """It is going to look at its pipe."""
        self._waiter.has_news = False

    def lead(self, timeout_s: float | None, *, is_blind: bool) -> bool:
        """Wait as the leader, if that is this thread's part; ``is_blind``: not for all that may come."""
        engine, waiter = self._engine, self._waiter
        if engine.baton is not waiter or engine.end is not None:
            return False
        if is_blind:
            engine.leave_baton(waiter)
            return False
        engine.wait(waiter, None if timeout_s is None else engine.now() + timeout_s)
        return True

    def leave(self) -> None:
        """Its thread ends."""
        self._engine.leave_baton(self._waiter)
        self._engine.forget(self._waiter)
        self.close()


class _Selector(selectors.DefaultSelector):
    """What the loop waits with."""

    def __init__(self, loop: LedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Wait for what is ready."""
        if timeout is not None and timeout <= 0:
            return super().select(0)
        self._loop.look()
        ready = super().select(0)
        if ready:
            return ready
        is_blind = len(self.get_map()) > N_OWN_PIPES
        return super().select(0 if self._loop.lead(timeout, is_blind=is_blind) else timeout)
