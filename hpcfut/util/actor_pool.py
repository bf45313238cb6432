"""A pool of actors that share work, of which each does one thing at a time.

Who asks for a result waits for whichever call ends first, and gives its actor the next work, until the result that was
asked for is there: one slow call keeps no other actor idle. Nothing happens between the calls of the pool's methods.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hpcfut


class ActorPool:
    """Gives work to whichever of its actors is idle, and the results in the order of the work or as they come.

    Example:
        >>> from hpcfut.util import ActorPool
        >>> @hpcfut.remote
        ... class Doubler:
        ...     def double(self, x):
        ...         return 2 * x
        >>> pool = ActorPool([Doubler.remote(), Doubler.remote()])
        >>> list(pool.map(lambda actor, x: actor.double.remote(x), [1, 2, 3, 4]))
        [2, 4, 6, 8]
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        """``actors``: handles of them."""
        self._idle = deque(actors)
        #: Work for which no actor was idle.
        self._waiting: deque[tuple[Callable[[Any, Any], Any], Any]] = deque()
        #: Calls are known by their ref, the last one if they have several. Those that run, with what runs them;
        self._running: dict[Any, Any] = {}
        #: those that have ended and whose result nobody has taken;
        self._ended: dict[Any, None] = {}
        #: and of all whose result nobody has taken what ``get`` is given, in the order of their submission.
        self._results: dict[Any, Any] = {}

    def map(self, fn: Callable[[Any, Any], Any], values: Iterable[Any]) -> Iterator[Any]:
        """``fn(actor, value)`` for all values; the results come in the order of the values.

        Results of earlier work that nobody has taken are thrown away.

        Args:
            fn: Calls a method of the actor with the value, and returns the ref.
            values: All of them are taken at once.
        """
        self._submit_all(fn, values)
        return self._all(self.get_next)

    def map_unordered(self, fn: Callable[[Any, Any], Any], values: Iterable[Any]) -> Iterator[Any]:
        """``fn(actor, value)`` for all values; the results come as they are ready."""
        self._submit_all(fn, values)
        return self._all(self.get_next_unordered)

    def submit(self, fn: Callable[[Any, Any], Any], value: Any) -> None:
        """Have ``fn(actor, value)`` called, with an actor that is idle, as soon as there is one."""
        self._waiting.append((fn, value))
        self._give_out()

    def has_next(self) -> bool:
        """Whether there is a result to be taken, now or later."""
        return bool(self._results)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of the work that was submitted first, of that whose result nobody has taken.

        Args:
            timeout: How many seconds it waits for it at most.
            ignore_if_timedout: Whether nobody will ask for it any more if it does not come in that time.

        Raises:
            StopIteration: There is no more.
            TimeoutError: It did not come in that time.
        """
        first = next(iter(self._results), None)
        return self._take(lambda: first if first in self._ended else None, timeout, ignore_if_timedout)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The result of any work; arguments and exceptions are those of ``get_next``."""
        return self._take(lambda: next(iter(self._ended), None), timeout, ignore_if_timedout)

    def has_free(self) -> bool:
        """Whether an actor is idle, and no work waits."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """Take an actor that is idle out of the pool; ``None`` if there is none."""
        return self._idle.popleft() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor to the pool.

        Raises:
            ValueError: It belongs to the pool.
        """
        if actor in self._idle or actor in self._running.values():
            raise ValueError(f"{actor!r} belongs to this pool already.")
        self._idle.append(actor)
        self._give_out()

    def _submit_all(self, fn: Callable[[Any, Any], Any], values: Iterable[Any]) -> None:
        while self._running:
            self._hear(None)
        self._results.clear()
        self._ended.clear()
        for value in values:
            self.submit(fn, value)

    def _all(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def _give_out(self) -> None:
        while self._idle and self._waiting:
            fn, value = self._waiting.popleft()
            refs = fn(self._idle[0], value)
            key = refs[-1] if isinstance(refs, list) else refs
            self._running[key] = self._idle.popleft()
            self._results[key] = refs

    def _hear(self, timeout_s: float | None) -> bool:
        """Wait until a call has ended, and give its actor the next work; whether one has."""
        ended, _ = hpcfut.wait(list(self._running), timeout=timeout_s)
        for key in ended:
            self._end(key)
        return bool(ended)

    def _end(self, key: Any) -> None:
        self._ended[key] = None
        self._idle.append(self._running.pop(key))
        self._give_out()

    def _take(self, found: Callable[[], Any], timeout_s: float | None, is_ignored: bool) -> Any:
        if not self._results:
            raise StopIteration("No more results are to come: all work that was submitted has been taken.")
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while (key := found()) is None:
            left_s = None if until is None else max(until - time.monotonic(), 0.0)
            if not self._hear(left_s) and left_s == 0:
                self._ignore(is_ignored)
                raise TimeoutError(f"The result did not come within {timeout_s:g} s.")
        del self._ended[key]
        return hpcfut.get(self._results.pop(key))

    def _ignore(self, is_ignored: bool) -> None:
        """Its time is over; the actor counts as idle, as if the call had ended."""
        if is_ignored:
            key = next(iter(self._results))
            self._end(key)
            del self._results[key], self._ended[key]
