"""Residents: the actors that live on this rank, and the threads on which their code runs.

Theory of operation

Each actor has a *home*. That of a sync actor is one thread, which runs its constructor, all its methods and in the end
its ``__del__``, so that what is bound to a thread (a connection to a database, say) works. A threaded actor has
several, as many as calls have been running at a time. An actor with ``async`` methods has an event loop (``loops.py``).
The core says what runs when, and never gives out more calls at a time than the actor allows.

Homes are known by the id of the actor, and a home ends with ``DropActor`` or with the session. An actor that is started
again gets a new home, even where a call of the old instance has not ended yet.

* ``take``, ``drop`` and the return of a thread to the idle ones happen with the engine's lock. A thread that is not
  among them has something to run or is about to look; so a run that is put down for it is never lost, nor is the end.
* A thread takes back ``has_news`` before it looks for a run and whether the home is left, and whoever brings one or the
  other says so (``tell``) after that. So no wake-up is lost.
* Threads of actors lead while they have the baton (``engine.py``), so that a call to the actor that was called last
  comes to the thread that runs it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from hpcfut.core.effects import RunTask
from hpcfut.model.template import TaskTemplate
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.fatal import fatal
from hpcfut.runtime.outcomes import ActorExitError
from hpcfut.runtime.waiter import Waiter

if TYPE_CHECKING:
    from hpcfut.runtime.executor import Executor
    from hpcfut.runtime.loops import LoopHome


class Residents:
    """The actors of one rank."""

    def __init__(self, engine: Engine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor
        self._homes: dict[int, ThreadHome | LoopHome] = {}
        engine.on_actor_run = self._run
        engine.on_drop_actor = self._drop

    def _run(self, run: RunTask, taker: Waiter | None, leader: Waiter | None) -> None:
        """Run a constructor or a method; inside a turn."""
        actor_id = run.actor_id
        if run.task_id == actor_id:
            self._homes[actor_id] = self._make_home(run)
        self._homes[actor_id].take(run, taker, leader)

    def _make_home(self, run: RunTask) -> ThreadHome | LoopHome:
        actor = self._engine.core.template(run.template_id).actor
        if actor is None or not actor.is_async:
            return ThreadHome(self._engine, self._executor, run.actor_id)
        from hpcfut.runtime.loops import LoopHome  # Few jobs have such actors.

        return LoopHome(self._engine, self._executor, run.actor_id)

    def _drop(self, actor_id: int) -> None:
        home = self._homes.pop(actor_id, None)
        if home is not None:  # Else its constructor could not begin.
            home.drop()

    def __len__(self) -> int:
        return len(self._homes)

    # -- code ----------------------------------------------------------------------------------------------------------

    def load(self, template: TaskTemplate) -> Callable[..., Any]:
        """What runs for a constructor or a method, on a thread of the actor's home."""
        if template.actor is not None:
            return partial(self.construct, self._executor.pickling.loads(template.function), template.template_id)
        built_in = BUILT_IN.get(template.method)
        return partial(self.call, template.method) if built_in is None else partial(self.call_built_in, built_in)

    def construct(self, made: tuple[type, bytes], class_id: int, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Make the instance; the API sends the name of the actor as the first argument."""
        current = self._executor.current
        current.method_id = current.task_id
        home = current.home
        home.name, home.descriptor = name, (class_id, made[1])
        home.instance = made[0](*args, **kwargs)

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Run a method."""
        current = self._executor.current
        current.method_id = current.task_id
        return getattr(current.home.instance, method)(*args, **kwargs)

    def call_built_in(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a method that every actor has."""
        current = self._executor.current
        current.method_id = current.task_id
        return method(current.home.instance, *args, **kwargs)

    # -- the end -------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The session is over; inside a turn. Calls that run are interrupted by others."""
        for home in self._homes.values():
            home.drop()

    def close(self, grace_s: float) -> None:
        """Wait until the instances have been let go, but not for those whose calls were abandoned."""
        until = time.monotonic() + grace_s
        for home in self._homes.values():
            for thread in home.idle_threads():
                thread.join(max(until - time.monotonic(), 0.0))
        self._homes.clear()


class ThreadHome:
    """The threads of one actor."""

    is_loop: Final = False

    def __init__(self, engine: Engine, executor: Executor, actor_id: int) -> None:
        self._engine = engine
        self._executor = executor
        self.actor_id = actor_id
        #: The user's object, what it is called, and what a handle needs besides a ref.
        self.instance: Any = None
        self.name = ""
        self.descriptor: tuple[int, bytes] = (0, b"")
        #: Its threads, and those that have nothing to run, the one that became so last at the end.
        self._threads: dict[int, threading.Thread] = {}
        self._idle: dict[int, Waiter] = {}
        self._is_left = False

    def take(self, run: RunTask, taker: Waiter | None, leader: Waiter | None) -> None:
        """Run this: on the thread that is at hand, if it is one of these, else on another one; inside a turn."""
        idle, waiter = self._idle, taker or leader
        if waiter is None or idle.pop(waiter.waiter_id, None) is None:
            if not idle:
                self._start(run)
                return
            _, waiter = idle.popitem()
        waiter.run = run
        if waiter is not taker:
            waiter.tell()

    def drop(self) -> None:
        """Nothing more will be run; inside a turn."""
        self._is_left = True
        for waiter in self._idle.values():
            waiter.tell()

    def idle_threads(self) -> list[threading.Thread]:
        """Those that run nothing, and so end soon once the home is left."""
        return [thread for key, thread in list(self._threads.items()) if key in self._idle]

    def _start(self, run: RunTask) -> None:
        waiter = self._engine.new_waiter()
        waiter.pool, waiter.run = self._idle, run
        thread = threading.Thread(target=self._live, args=(waiter,), name="hpcfut-actor", daemon=True)
        self._threads[waiter.waiter_id] = thread
        thread.start()

    def _live(self, waiter: Waiter) -> None:
        engine = self._engine
        with fatal("a thread of an actor"):
            self._executor.current.home = self
            try:
                self._serve(waiter)
            finally:
                engine.leave_baton(waiter)
                engine.forget(waiter)
            self._threads.pop(waiter.waiter_id)
            if not self._threads:
                # Its ``__del__`` is code of the user's.
                self.instance = None

    def _serve(self, waiter: Waiter) -> None:
        engine, execute = self._engine, self._executor.execute
        while True:
            waiter.has_news = False
            run = waiter.run
            if run is not None:
                waiter.run = None
                engine.take_baton(waiter)
                while run is not None:
                    run = execute(run, waiter)
                if engine.baton is not waiter:
                    engine.leave_rest()
            elif self._is_left or engine.end is not None:
                return
            elif engine.baton is waiter:
                engine.wait(waiter, None)
            else:
                waiter.sleep(-1.0)


def _is_ready(instance: Any) -> bool:
    return True


def _apply(instance: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return function(instance, *args, **kwargs)


def _leave(instance: Any) -> None:
    raise ActorExitError


#: Methods that every actor has, by the names that programs for Ray know.
BUILT_IN: Final[dict[str, Callable[..., Any]]] = {
    "__ray_ready__": _is_ready,
    "__ray_call__": _apply,
    "__ray_terminate__": _leave,
}
