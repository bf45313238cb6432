"""Steps: what a call of an async actor runs beside itself, with ``asyncio.gather`` say, knows whose it is.

Each such coroutine is a task of the event loop by itself, with a copy of the context in which it was made. So the call
is found in a context variable; while it has not ended, the thread is said to run it in each step of the coroutine.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hpcfut.runtime.loops import LoopHome

#: The home of the actor and the id of the call, in what that runs.
OF_CALL: Final[ContextVar[tuple[LoopHome, int] | None]] = ContextVar("hpcfut-call", default=None)


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine as the loop sees it, with something to be done around each step."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    @abstractmethod
    def step(self, resume: Callable[..., Any], *args: Any) -> Any:
        """Go on, by calling this."""

    def send(self, value: Any) -> Any:
        """Go on until it awaits something."""
        return self.step(self._coroutine.send, value)

    def throw(self, *raised: Any) -> Any:
        """Go on with an exception."""
        return self.step(self._coroutine.throw, *raised)

    def close(self) -> None:
        """The loop wants no more of it."""
        self._coroutine.close()

    def __await__(self) -> Any:
        return self


class Steps(Stepped):
    """A coroutine that a call runs beside itself."""

    __slots__ = ("_home", "_task_id")

    def __init__(self, home: LoopHome, task_id: int, coroutine: Coroutine[Any, Any, Any]) -> None:
        super().__init__(coroutine)
        self._home = home
        self._task_id = task_id

    def step(self, resume: Callable[..., Any], *args: Any) -> Any:
        """The thread runs the call meanwhile."""
        home, task_id = self._home, self._task_id
        if not home.runs(task_id):
            return resume(*args)  # The call has left it behind.
        current, environments = home.executor.current, home.executor.environments
        outer = current.task_id, current.method_id
        current.task_id = current.method_id = task_id
        if environments.of_task:
            environments.put_on(task_id)
        try:
            return resume(*args)
        finally:
            if environments.of_task:
                environments.take_off(task_id)
            current.task_id, current.method_id = outer
