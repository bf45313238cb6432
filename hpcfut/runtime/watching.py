"""What the API asks for where no thread waits for all of it: watches, and taking what is ready one by one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hpcfut.core.events import WaitAbandoned, WaitStarted, WatchEnded, WatchStarted
from hpcfut.model.failure import Failure
from hpcfut.runtime.waiter import Waiter
from hpcfut.runtime.watchers import Tell

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime


def watch(runtime: Runtime, object_ids: list[int], tell: Tell, *, is_fetching: bool, is_waiting: bool) -> int:
    """Let ``tell`` be told of each of these objects as it becomes ready; the core hears of it with its next turn."""
    runtime.demand_session()
    engine = runtime.engine
    watch_id = next(engine.waiter_ids)
    engine.watchers.add(watch_id, tell)
    if engine.end is not None:
        engine.watchers.end()  # It was told before this watcher could hear it.
    runtime.mailbox.append(WatchStarted(watch_id, object_ids, is_fetching, is_waiting, runtime.task_id))
    return watch_id


def unwatch(runtime: Runtime, watch_id: int) -> None:
    """Let nobody be told of the rest, if there is a rest; any thread, even a finalizer."""
    if runtime.engine.watchers.discard(watch_id):
        runtime.mailbox.append(WatchEnded(watch_id))


class ReadyObjects:
    """Gives one thread after the other the next of some objects that is ready."""

    def __init__(self, runtime: Runtime, object_ids: list[int]) -> None:
        self._runtime = runtime
        self._ready: deque[int] = deque()
        #: Of the thread that waits for the next one.
        self._waiter: Waiter | None = None
        self._watch_id = watch(runtime, object_ids, self._tell, is_fetching=False, is_waiting=False)

    def _tell(self, object_ids: list[int], values: list[bytes | Failure | None]) -> None:
        self._ready.extend(object_ids)
        waiter = self._waiter
        if waiter is not None:
            waiter.tell()

    def close(self) -> None:
        """Nobody wants the rest."""
        unwatch(self._runtime, self._watch_id)

    def take(self, deadline: float | None) -> int | None:
        """The next object; waits for it, and gives None at the deadline."""
        runtime = self._runtime
        if not self._ready:
            runtime.engine.hear()
            if not self._ready:
                self._wait(deadline)
        runtime.demand_no_interruption()
        if self._ready:
            return self._ready.popleft()
        runtime.demand_session()
        return None

    def _wait(self, deadline: float | None) -> None:
        """Wait as ``Runtime.wait`` does, for nothing that the core knows of, until there is news of the watch."""
        runtime = self._runtime
        engine, executor = runtime.engine, runtime.executor
        current = executor.current
        task_id = current.task_id
        self._waiter = waiter = engine.new_waiter()
        was_busy = engine.busy.pop(task_id, 0) is None
        if task_id:
            executor.blocked[task_id] = waiter
            executor.environments.take_off(task_id)
        started: WaitStarted | None = WaitStarted(waiter.waiter_id, [], 1, False, False, task_id)
        if self._ready or runtime.must_stop(current):
            waiter.has_news = True  # It was told before this waiter could hear it.
        try:
            while True:
                engine.wait(waiter, deadline, started)
                started = None
                waiter.has_news = False
                if self._ready:
                    break
                if runtime.must_stop(current) or (deadline is not None and runtime.now() >= deadline):
                    break
            if not self._ready:
                runtime.raise_interruption()
        finally:
            engine.post_soon(WaitAbandoned(waiter.waiter_id))
            self._waiter = None
            if was_busy:
                engine.busy[task_id] = None
            if task_id:
                executor.blocked.pop(task_id, None)
                executor.environments.put_on(task_id)
            engine.forget(waiter)
