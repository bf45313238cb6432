"""Generators that run on this rank: each item is told as it is made, and none before there is a name for it.

The owner gives names for as many items as the generator may be ahead of its consumer, and more as the consumer takes
them. A generator without a name is not asked for an item; it tells the core, which gives its slot away, and waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from hpcfut.core.effects import RunTask
from hpcfut.core.events import Event, RunHeldBack, RunYielded
from hpcfut.model.errors import TaskCancelledError
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.environments import Environments
from hpcfut.runtime.interruption import Interruption
from hpcfut.wire.messages import Result

_NOTHING = Result(b"")


class Producers:
    """The generators that run here."""

    def __init__(
        self,
        engine: Engine,
        interruption: Interruption,
        environments: Environments,
        make_result: Callable[[int, Any], Result],
    ) -> None:
        self._engine = engine
        self._interruption = interruption
        self._environments = environments
        self._make_result = make_result
        self.names: dict[int, Names] = {}
        engine.on_resume = self._resume

    def produce(self, run: RunTask, value: Any) -> None:
        """Take what the function returned to its end."""
        task_id, items = run.task_id, self.items_of(run, value)
        names = self.names[task_id] = Names(run.item_ids)
        try:
            while True:
                if not names.left:
                    self._hold_back(task_id, names)
                if task_id in self._interruption.pending:
                    raise TaskCancelledError
                try:
                    item = next(items)
                except StopIteration:
                    return
                if self._engine.end is not None:
                    raise SystemExit  # The session is over, or this is a copy that the generator's code has forked.
                self.tell(task_id, names.left.popleft(), item)
                del item
        finally:
            del self.names[task_id]
            _close(items)

    def items_of(self, run: RunTask, value: Any) -> Iterator[Any]:
        """What there is to be iterated over.

        Raises:
            TypeError: There is nothing.
        """
        try:
            return iter(value)
        except TypeError:
            name = self._engine.core.template(run.template_id).name
            raise TypeError(
                f'Task {name} has num_returns="streaming", but it returned {type(value).__name__}. Make it a '
                f"generator, or return something that can be iterated over."
            ) from None

    def tell(self, task_id: int, name: int, item: Any) -> None:
        """An item was made; without a name, the owner has it from an earlier attempt."""
        result = self._make_result(name, item) if name else _NOTHING
        self._engine.post_soon(RunYielded(task_id, name, result))

    def _hold_back(self, task_id: int, names: Names) -> None:
        """Wait for names."""
        engine, blocked = self._engine, self._interruption.blocked
        waiter = engine.new_waiter()
        engine.busy.pop(task_id, None)
        self._environments.take_off(task_id)
        blocked[task_id] = waiter
        event: Event | None = RunHeldBack(task_id)
        try:
            # Names may have come before the waiter was there to be told.
            while not names.left:
                if engine.end is not None or task_id in self._interruption.pending:
                    raise TaskCancelledError
                engine.wait(waiter, None, event)
                event = None
                waiter.has_news = False
        finally:
            del blocked[task_id]
            engine.forget(waiter)
            self._environments.put_on(task_id)
            engine.busy[task_id] = None

    def _resume(self, task_id: int, position: int, item_ids: tuple[int, ...]) -> None:
        names = self.names.get(task_id)
        if names is None:
            return  # It has not begun, and is told again when it is held back, or has ended.
        names.add(position, item_ids)
        if names.wake is not None:
            names.wake()
        waiter = self._interruption.blocked.get(task_id)
        if waiter is not None:
            waiter.tell()


class Names:
    """Names for the next items of one generator."""

    __slots__ = ("_n_told", "left", "wake")

    def __init__(self, item_ids: tuple[int, ...]) -> None:
        self.left = deque(item_ids)
        self._n_told = len(item_ids)
        #: Called, in a turn, when more have come, for a coroutine that waits for them.
        self.wake: Callable[[], None] | None = None

    def add(self, position: int, item_ids: tuple[int, ...]) -> None:
        """Names for the items from a position on; some of them may be known, and some before them may be missing."""
        if position <= self._n_told:
            self.left.extend(item_ids[self._n_told - position :])
            self._n_told = max(self._n_told, position + len(item_ids))


def _close(items: Iterator[Any]) -> None:
    """Let the ``finally`` blocks of a generator that was stopped in the middle run now."""
    close = getattr(items, "close", None)
    if close is not None:
        close()
