"""The home of an actor with ``async`` methods: an event loop on a thread of its own, in which all its code runs.

Theory of operation

Each call is an ``asyncio.Task`` over a ``Call``, which stands between the loop and the coroutine of the method: before
each step it says which task runs on this thread, and at the end it tells what came of it. Calls that come are put down
(``take``, inside a turn, on whichever thread), and the loop begins them when it has gone round once; what has ended
meanwhile is told in one turn, which may bring the next calls.

* ``take`` puts down first and looks at ``_is_looking`` then; ``_begin`` takes that back first and looks for calls then.
  So one of them sees the other, and no call waits for the next one. ``drop`` and the first look do the same with
  ``_loop``.
* A call is cancelled as ``asyncio`` does it: ``CancelledError`` is raised where it awaits. Code that blocks the loop
  cannot be interrupted, but for a ``get`` that waits.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from hpcfut.core.effects import RunTask
from hpcfut.core.events import RunHeldBack
from hpcfut.model.errors import TaskCancelledError
from hpcfut.model.template import STREAMING
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.fatal import fatal
from hpcfut.runtime.outcomes import end_copy
from hpcfut.runtime.producers import Names
from hpcfut.runtime.steps import OF_CALL, Stepped, Steps
from hpcfut.runtime.waiter import Waiter

if TYPE_CHECKING:
    import asyncio

    from hpcfut.runtime.executor import Executor
    from hpcfut.runtime.led_loop import LedLoop


class LoopHome:
    """The event loop of one actor."""

    is_loop: Final = True

    def __init__(self, engine: Engine, executor: Executor, actor_id: int) -> None:
        self.engine = engine
        self.executor = executor
        self.actor_id = actor_id
        #: The user's object, what it is called, and what a handle needs besides a ref.
        self.instance: Any = None
        self.name = ""
        self.descriptor: tuple[int, bytes] = (0, b"")
        self._arrived: deque[RunTask] = deque()
        self._calls: dict[int, Call] = {}
        self._loop: LedLoop | None = None
        self._ident = 0
        #: Whether the loop is going to look for calls anyway, and to tell what has ended.
        self._is_looking = self._is_telling = False
        self._is_left = False
        #: What is raised in what awaits, to cancel it; known once ``asyncio`` has been loaded.
        self.cancelled_error: type[BaseException] = TaskCancelledError
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._live, name="hpcfut-actor-loop", daemon=True)
        self._thread.start()

    def take(self, run: RunTask, taker: Waiter | None, leader: Waiter | None) -> None:
        """Run this soon; inside a turn."""
        self._arrived.append(run)
        self._look_soon()

    def drop(self) -> None:
        """Nothing more will be run; inside a turn."""
        self._is_left = True
        self._look_soon()

    def idle_threads(self) -> list[threading.Thread]:
        """The thread, if it runs nothing, and so ends soon once the home is left."""
        return [] if self._calls or self._arrived else [self._thread]

    def _look_soon(self) -> None:
        loop = self._loop
        if loop is None or self._is_looking:
            return
        self._is_looking = True
        if threading.get_ident() == self._ident:
            loop.call_soon(self._begin)
            loop.news()
            return
        try:
            loop.call_soon_threadsafe(self._begin)
        except RuntimeError:
            return  # It is closed: everything has ended, and nothing more was to come.

    # -- on its thread -------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        import asyncio  # It takes long to load.

        from hpcfut.runtime.led_loop import LedLoop

        with fatal("the event loop of an actor"):
            self.executor.current.home = self
            loop = LedLoop(self.engine)
            asyncio.set_event_loop(loop)
            self.cancelled_error = asyncio.CancelledError
            self._ident = threading.get_ident()
            self._is_looking = True
            self._loop = loop
            loop.set_task_factory(self._make_task)
            loop.call_soon(self._begin)
            while not self._is_over:
                try:
                    loop.run_forever()
                except (KeyboardInterrupt, SystemExit):  # Of a task that a method has left behind.
                    traceback.print_exc()
            self._end_tasks(loop, asyncio.all_tasks(loop))
            # Its ``__del__`` is code of the user's.
            self.instance = None
            loop.leave()

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        import asyncio

        call = OF_CALL.get()
        if call is not None and isinstance(coroutine, Coroutine) and not isinstance(coroutine, Stepped):
            coroutine = Steps(*call, coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    def runs(self, task_id: int) -> bool:
        """Whether this call has not ended."""
        return task_id in self._calls

    @property
    def _is_over(self) -> bool:
        return self._is_left and not self._calls and not self._arrived

    def _end_tasks(self, loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
        """End what methods have left behind."""
        import asyncio

        for task in tasks:
            task.cancel()
        ends = [asyncio.wait(tasks, timeout=self.executor.stop_grace_s)] if tasks else []
        for end in (*ends, loop.shutdown_asyncgens()):
            try:
                loop.run_until_complete(end)
            except (KeyboardInterrupt, SystemExit):  # Of such a task; what is left goes with the loop.
                traceback.print_exc()

    def _begin(self) -> None:
        self._is_looking = False
        arrived, loop, interruption = self._arrived, self._loop, self.executor.interruption
        assert loop is not None
        if arrived:
            loop.begin()
        while arrived:
            run = arrived.popleft()
            task_id = run.task_id
            call = self._calls[task_id] = Call(self, run)
            interruption.running[task_id] = self._ident
            interruption.strikes[task_id] = call.strike
            call.task = loop.create_task(call)
        if self._is_over:
            loop.stop()

    def strike(self, call: Call) -> None:
        """Have a call cancelled, from another thread."""
        assert self._loop is not None
        with suppress(RuntimeError):  # It is closed: the call has just ended.
            self._loop.call_soon_threadsafe(call.cancel)

    def end_call(self, run: RunTask) -> None:
        """A call has ended; what came of it stands in the mailbox."""
        task_id, executor, loop = run.task_id, self.executor, self._loop
        assert loop is not None
        del self._calls[task_id], executor.running[task_id], executor.interruption.strikes[task_id]
        executor.environments.of_task.pop(task_id, None)
        if executor.marked:
            executor.end_marked(task_id)
        if not self._is_telling:
            self._is_telling = True
            loop.call_soon(self._tell)
        if self._is_over:
            loop.stop()

    def _tell(self) -> None:
        self._is_telling = False
        self.engine.hear_now()

    async def code_of(self, run: RunTask) -> None:
        """Run a constructor or a method, and tell its results."""
        executor, engine = self.executor, self.engine
        OF_CALL.set((self, run.task_id))
        if engine.end is not None:
            raise TaskCancelledError  # It was given out just before.
        function, n_returns = executor.function_of(run)
        variables = engine.core.template(run.template_id).env_vars
        if variables:
            executor.environments.of_task[run.task_id] = dict(variables)
            executor.environments.put_on(run.task_id)
        args, kwargs = executor.arguments_of(run)
        value = function(*args, **kwargs)
        del args, kwargs
        if type(value) is CoroutineType:
            value = await value
        if n_returns == STREAMING:
            await self._produce(run, value)
            value, n_returns = None, 0
        if engine.end is not None and os.getpid() != self._pid:
            end_copy(None)
        # Before the value goes: refs in it must not be released before the core knows that it holds them.
        engine.mailbox.append(executor.returned(run, value, n_returns))

    async def _produce(self, run: RunTask, value: Any) -> None:
        """Take what a generator, async or not, makes to its end; it is held back as in ``producers.py``."""
        producers, task_id = self.executor.producers, run.task_id
        items: Any = aiter(value) if hasattr(value, "__aiter__") else producers.items_of(run, value)
        names = producers.names[task_id] = Names(run.item_ids)
        try:
            while True:
                while not names.left:
                    await self._hold_back(task_id, names)
                try:
                    item = await anext(items) if hasattr(items, "__anext__") else next(items)
                except (StopAsyncIteration, StopIteration):
                    return
                if self.engine.end is not None:
                    raise TaskCancelledError
                producers.tell(task_id, names.left.popleft(), item)
                del item
        finally:
            del producers.names[task_id]
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()
            elif (close := getattr(items, "close", None)) is not None:
                close()

    async def _hold_back(self, task_id: int, names: Names) -> None:
        """Wait for names."""
        loop = self._loop
        assert loop is not None
        has_come: asyncio.Future[None] = loop.create_future()

        def come() -> None:
            if not has_come.done():
                has_come.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(come)

        names.wake = wake
        try:
            if names.left:
                return  # They came before they could be heard of.
            self.engine.post(RunHeldBack(task_id))
            await has_come
        finally:
            names.wake = None


class Call(Stepped):
    """One call, as the loop sees it."""

    __slots__ = ("_home", "_is_struck", "_run", "task")

    def __init__(self, home: LoopHome, run: RunTask) -> None:
        super().__init__(home.code_of(run))
        self._home = home
        self._run = run
        self._is_struck = False
        self.task: asyncio.Task[None] | None = None

    def step(self, resume: Callable[..., Any], *args: Any) -> Any:
        """The thread runs it meanwhile; at its end what came of it is told."""
        home, task_id = self._home, self._run.task_id
        executor, busy = home.executor, home.engine.busy
        current, environments = executor.current, executor.environments
        current.task_id = current.method_id = task_id
        busy[task_id] = None
        if environments.of_task:
            environments.put_on(task_id)
        try:
            return resume(*args)
        except StopIteration:
            pass
        except BaseException as error:  # Whatever user code raises is the end of the call, SystemExit included.
            if home.engine.end is not None and os.getpid() != home._pid:
                end_copy(error)
            if isinstance(error, home.cancelled_error) and task_id in executor.cancelled:
                error = TaskCancelledError()
            with fatal("the event loop of an actor"):  # Else nobody would see it.
                home.engine.mailbox.append(executor.failed(self._run, error))
        finally:
            if environments.of_task:
                environments.take_off(task_id)
            current.task_id = 0
            busy.pop(task_id, None)
        with fatal("the event loop of an actor"):
            home.end_call(self._run)
        raise StopIteration

    def strike(self, is_forced: bool) -> None:
        """Called again and again by the thread that interrupts, until it is over."""
        if not self._is_struck:
            self._is_struck = True
            self._home.strike(self)

    def cancel(self) -> None:
        """Raise ``CancelledError`` in it, unless a wait of it has raised something like that already."""
        pending = self._home.executor.interruption.pending
        if pending.pop(self._run.task_id, self) is not self and self.task is not None:
            self.task.cancel()
