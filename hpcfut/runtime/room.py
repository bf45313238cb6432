"""Room for large values: a thread asks for memory in the arena, and waits until it is given some, or denied."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

from hpcfut.core.events import RoomReturned, RoomWanted
from hpcfut.model.errors import ObjectStoreFullError
from hpcfut.model.failure import Failure
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.waiter import Waiter

#: Who waits for so long has the garbage collector look for values that only cycles keep alive.
COLLECT_AFTER_S: Final = 0.2


class Room:
    """Gives threads of one rank places to write values to."""

    def __init__(self, engine: Engine, task_of_thread: Callable[[], int], blocked: dict[int, Waiter]) -> None:
        """Make it for one rank.

        Args:
            engine: What gives room.
            task_of_thread: The task that the calling thread runs, 0 for none.
            blocked: By task, what a thread waits with that a cancellation must wake.
        """
        self._engine = engine
        self._task_of_thread = task_of_thread
        self._blocked = blocked
        #: Raises what is to end the wait of this thread, if anything is; bound in ``runtime.py``.
        self.raise_interruption: Callable[[], None] = lambda: None

    def take(self, object_id: int, nbytes: int) -> int:
        """Where this thread may write a value of so many bytes; held back until there is room.

        Raises:
            ObjectStoreFullError: There is none, and will not be.
        """
        engine = self._engine
        waiter = engine.new_waiter()
        wanted: RoomWanted | None = RoomWanted(waiter.waiter_id, object_id, nbytes)
        collect_at: float | None = engine.now() + COLLECT_AFTER_S
        task_id = self._task_of_thread()
        if task_id:
            self._blocked[task_id] = waiter
        try:
            while not waiter.is_done:
                engine.wait(waiter, collect_at, wanted)
                wanted = None
                waiter.has_news = False
                if waiter.is_done:
                    break
                self.raise_interruption()
                if collect_at is not None and engine.now() >= collect_at:
                    collect_at = None
                    gc.collect()
                    engine.hear_now()
        except BaseException:  # Whatever ends the wait; the room, given or not, is not wanted any more.
            engine.mailbox.append(RoomReturned(object_id))
            raise
        finally:
            if task_id:
                self._blocked.pop(task_id, None)
            engine.forget(waiter)
        given: int | Failure = waiter.values[0]
        if isinstance(given, Failure):
            raise ObjectStoreFullError(given.text)
        return given
