"""``await ref``: event loops that drive the engine while they have nothing else to do.

Theory of operation

All awaits of one event loop share a ``LoopWatch``. A coroutine that awaits a ref only appends to the mailbox; what many
of them have to say is heard in one turn, when the loop has gone round once. The loop goes on to take turns for as long
as a small task takes, because nobody else could be as fast, and then leaves that to the helper, which looks as often as
its recent findings suggest. Whoever turns the engine finds the values; if that was another thread, it wakes the loop.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from hpcfut.api.calls import rebuild
from hpcfut.api.refs import id_of
from hpcfut.api.session import runtime_of
from hpcfut.model.errors import TaskCancelledError
from hpcfut.model.failure import Failure
from hpcfut.runtime.engine import AWAKE_FOR_S
from hpcfut.runtime.watching import unwatch, watch

if TYPE_CHECKING:
    from hpcfut.api.refs import ObjectRef
    from hpcfut.runtime.runtime import Runtime

Value = TypeVar("Value")
#: What a watch tells of one object; nothing at the end of the session.
Told = list[bytes | Failure | None]


def awaited(ref: ObjectRef[Value]) -> Generator[Any, None, Value]:
    """What ``await ref`` does."""
    runtime = runtime_of(ref)
    told = yield from _told(runtime, id_of(ref), is_fetching=True)
    value: Value = rebuild(runtime, told)
    return value


@types.coroutine
def made(runtime: Runtime, object_id: int) -> Generator[Any, None, bytes | Failure | None]:
    """Wait until an object has been made, somewhere; gives what is told of it."""
    return (yield from _told(runtime, object_id, is_fetching=False))


def _told(runtime: Runtime, object_id: int, *, is_fetching: bool) -> Generator[Any, None, bytes | Failure | None]:
    loop = asyncio.get_running_loop()
    loop_watch = runtime.loops.get(loop)
    if loop_watch is None:
        loop_watch = runtime.loops[loop] = LoopWatch(runtime, loop)
    values = yield from loop_watch.values_of(object_id, is_fetching=is_fetching)
    if not values:
        runtime.demand_session()
    return values[0]


class LoopWatch:
    """The awaits of one event loop; all of it happens on the loop's thread but for ``tell``."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        self._runtime = runtime
        self._loop = loop
        #: Of the awaits that are not over.
        self._futures: dict[asyncio.Future[Told], None] = {}
        #: What has been told and is not yet in its future.
        self._arrived: deque[tuple[asyncio.Future[Told], Told]] = deque()
        #: Whether the loop is going to look at ``_arrived`` anyway.
        self._is_looking = False
        self._idle_since = 0.0

    def values_of(self, object_id: int, *, is_fetching: bool) -> Generator[Any, None, Told]:
        """Wait for an object, in a coroutine."""
        future: asyncio.Future[Told] = self._loop.create_future()

        def tell(object_ids: list[int], values: Told) -> None:
            self._arrived.append((future, values))
            if not self._is_looking:
                self._wake()

        watch_id = watch(self._runtime, [object_id], tell, is_fetching=is_fetching, is_waiting=True)
        self._futures[future] = None
        self._idle_since = 0.0
        if not self._is_looking:
            self._is_looking = True
            self._runtime.engine.watchers.looking[id(self)] = None
            self._loop.call_soon(self._turn)
        try:
            return (yield from future)
        finally:
            unwatch(self._runtime, watch_id)
            del self._futures[future]
            if not self._futures:
                self._runtime.loops.pop(self._loop, None)

    def _wake(self) -> None:
        """Let the loop look, which may sleep; another thread has found something."""
        self._is_looking = True
        with suppress(RuntimeError):  # The loop was closed with coroutines that still wait.
            self._loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        """Look; where that raises a cancellation of the loop's task, tell the awaits, because a callback loses it."""
        try:
            self._look()
        except BaseException as error:  # Whatever it is, nobody looks any more, and the next await must begin anew.
            self._is_looking = False
            self._runtime.engine.watchers.looking.pop(id(self), None)
            if not isinstance(error, TaskCancelledError):
                raise
            for future in list(self._futures):
                if not future.done():
                    future.set_exception(error)

    def _look(self) -> None:
        """Take a turn, and hand out what has been told; again, if that can be worth while."""
        runtime, arrived = self._runtime, self._arrived
        engine = runtime.engine
        if engine.tick():
            engine.on_leave()
        else:
            engine.hear()
        now = runtime.now()
        runtime.demand_no_interruption()
        if arrived or not self._idle_since:
            self._idle_since = now
            self._hand_out()
        is_young = now - self._idle_since < AWAKE_FOR_S
        if is_young and self._futures and engine.may_spin and not engine.is_driven:
            self._loop.call_soon(self._turn)
            return
        # The flag first, the look second: who tells does it the other way round.
        self._is_looking = False
        self._hand_out()
        engine.watchers.looking.pop(id(self), None)
        if self._futures:
            engine.watchers.on_leave()

    def _hand_out(self) -> None:
        arrived = self._arrived
        while arrived:
            future, values = arrived.popleft()
            if not future.done():
                future.set_result(values)
