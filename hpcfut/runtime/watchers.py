"""Watchers: callables that are told when objects become ready, by whichever thread turns the core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Called inside a turn, with the ids and the values as ``TellWatcher`` has them, but with views for places: it must
#: neither wait nor run user code. No ids mean that the session is over.
Tell = Callable[[list[int], list[Any]], None]


class Watchers:
    """Those of one rank, by the ids of their watches."""

    def __init__(self) -> None:
        self._tells: dict[int, Tell] = {}
        #: Counts what may make the next news come soon: new watches, and news.
        self.n_news = 0
        #: Threads that look for news themselves at the moment, as keys.
        self.looking: dict[int, None] = {}
        #: Called by who leaves it to others to look for news that may come soon.
        self.on_leave: Callable[[], None] = lambda: None

    @property
    def are_left_alone(self) -> bool:
        """Whether somebody wants to be told, and looks for nothing himself."""
        return bool(self._tells) and not self.looking

    def add(self, watch_id: int, tell: Tell) -> None:
        """Before the core is told of the watch."""
        self._tells[watch_id] = tell
        self.n_news += 1

    def discard(self, watch_id: int) -> bool:
        """Nobody is to be told any more; gives whether there was more to tell."""
        return self._tells.pop(watch_id, None) is not None

    def tell(self, watch_id: int, object_ids: list[int], values: list[Any], *, is_last: bool) -> None:
        """Objects are ready."""
        self.n_news += 1
        tell = self._tells.pop(watch_id, None) if is_last else self._tells.get(watch_id)
        if tell is not None:
            tell(object_ids, values)

    def end(self) -> None:
        """The session is over: there is nothing more to be told."""
        while self._tells:
            _, tell = self._tells.popitem()
            tell([], [])
