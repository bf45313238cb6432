"""The executor: threads that run tasks, and what happens around a task's code.

A worker's main thread is an executor thread. Others are started when a task is ready and no executor thread is free,
which happens only while some are blocked in ``get``, or where a driver has the main thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from hpcfut.core.effects import RunTask
from hpcfut.core.events import RoomReturned, RunRaised, RunReturned
from hpcfut.model.config import Config
from hpcfut.model.errors import ObjectLostError, TaskCancelledError
from hpcfut.model.failure import ACTOR_EXITED, CANCELLED, RAISED, Failure
from hpcfut.model.ids import name_of
from hpcfut.model.template import STREAMING, TaskTemplate
from hpcfut.runtime.drafts import Drafts
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.environments import Environments
from hpcfut.runtime.fatal import fatal
from hpcfut.runtime.functions import Functions
from hpcfut.runtime.interruption import Interruption
from hpcfut.runtime.open_arguments import OpenArgument
from hpcfut.runtime.outcomes import (
    ActorExitError,
    IsolatedResults,
    IsolatedTaskError,
    end_copy,
    listed,
    trace_of,
)
from hpcfut.runtime.producers import Producers
from hpcfut.runtime.residents import Residents
from hpcfut.runtime.room import Room
from hpcfut.runtime.waiter import Waiter
from hpcfut.wire.exceptions import encodable
from hpcfut.wire.messages import Result
from hpcfut.wire.packing import Pickled, pack_inline, pack_into
from hpcfut.wire.pickling import Pickling, payload_of_atoms

N_IDLE_THREADS_MAX = 2
#: In place of the number of results: they have been stored as they came from a child process.
ISOLATED: Final = -2


class Current(threading.local):
    """What runs on this thread."""

    def __init__(self) -> None:
        # Run anew by every thread that looks.
        self.task_id = 0
        #: Tasks on this thread's stack.
        self.n_nested = 0
        self.ident = threading.get_ident()
        #: The home of the actor that has this thread, and the last task that was a call of it.
        self.home: Any = None
        self.method_id = 0
        self.is_main = threading.current_thread() is threading.main_thread()


class Executor:
    """Runs the tasks that the core wants to be run."""

    def __init__(self, engine: Engine, pickling: Pickling, config: Config) -> None:
        self.engine = engine
        self.pickling = pickling
        self.current = Current()
        self._nbytes_inline_max = config.nbytes_inline_max
        self.environments = Environments(lambda: self.current.task_id)
        self.stop_grace_s = config.stop_grace_s
        self.functions = Functions(pickling, self.environments)
        callers: list[Any] = [Executor.execute, Executor._results, Producers.produce]
        callers += [Environments.call, Environments.iterate]
        callers += [Residents.construct, Residents.call, Residents.call_built_in]
        self.interruption = interruption = Interruption(
            engine, [caller.__code__ for caller in callers], config.stop_grace_s
        )
        self.room = Room(engine, self.task_of_thread, interruption.blocked)
        self.drafts = Drafts(engine, self.room.take, config.nbytes_inline_max)
        self.producers = Producers(engine, interruption, self.environments, self._result)
        # Looked up once: this is the task path.
        self.running, self.blocked, self.cancelled = interruption.running, interruption.blocked, interruption.cancelled
        self.marked = interruption.marked
        self._loaded, self._forgotten = self.functions.loaded, self.functions.forgotten
        #: Called on its thread when a marked task has ended.
        self.on_marked_end: Callable[[int], None] = lambda task_id: None
        #: Runs the code of an isolated task; bound in ``isolation.py``.
        self.run_isolated: Callable[[RunTask, TaskTemplate], IsolatedResults]
        self.residents = Residents(engine, self)
        self._n_threads = 0
        #: That of the main thread of a worker.
        self._main: Waiter | None = None
        self._pid = os.getpid()
        engine.on_run = self._find_thread
        engine.on_forget = self.functions.forget
        engine.on_interrupt = interruption.interrupt
        engine.on_end = self._wind_down

    # -- threads -----------------------------------------------------------------------------------------------------

    def serve(self, is_over: Callable[[], bool], *, may_lead: bool) -> None:
        """Run tasks on this thread until it is over.

        A spare thread never leads: a thread that waits for something of its own would have to be woken by it. The main
        thread of a worker does while it has the baton (``engine.py``).
        """
        engine, idle, runs = self.engine, self.engine.idle, self.engine.runs
        waiter = engine.new_waiter()
        key = waiter.waiter_id
        waiter.pool = idle
        idle[key] = waiter
        if may_lead:
            self._main = waiter
            engine.begin_to_lead(waiter)

        try:
            while True:
                waiter.has_news = False
                run = None
                if key not in idle:
                    run = engine.take_run(waiter)
                elif runs:
                    try:
                        run = runs.pop()
                    except IndexError:  # Another thread was faster.
                        continue
                    if idle.pop(key, None) is None:
                        # In the same moment this thread was given another one.
                        runs.append(run)
                        run = engine.take_run(waiter)
                if run is not None:
                    if runs:
                        # It may have been counted on this thread while that took its task.
                        self._find_thread()
                    if may_lead:
                        engine.take_baton(waiter)
                    while run is not None:
                        run = self.execute(run, waiter)
                    if engine.baton is not waiter:
                        engine.leave_rest()
                elif is_over():
                    # Nobody may count on this thread any more; whoever did so just before has left a task.
                    idle.pop(key, None)
                    if not runs or engine.end is not None:
                        return
                    idle[key] = waiter
                elif engine.baton is waiter:
                    engine.wait(waiter, None)
                else:
                    waiter.sleep(-1.0)
        finally:
            idle.pop(key, None)
            engine.forget(waiter)

    def _wind_down(self) -> None:
        """The session is over; inside a turn."""
        self.interruption.wind_down()
        self.residents.end()

    def close(self) -> None:
        """The session is over: wait until what runs here has ended or been abandoned, and actors have been let go."""
        self.interruption.wait_until_wound_down()
        self.residents.close(self.stop_grace_s)

    def _find_thread(self) -> None:
        """A task is ready: wake a free thread, or start one."""
        # A copy, because threads come and go here without a lock.
        idle, n_runs = list(self.engine.idle.values()), len(self.engine.runs)
        if n_runs > len(idle):
            self._n_threads += 1
            threading.Thread(target=self._spare, name=f"hpcfut-executor-{self._n_threads}", daemon=True).start()
            return
        # The one that became idle last is either this thread, which will look by itself, or the warmest; but the main
        # thread of a worker, which may lead, comes first.
        if len(idle) > 1 and self._main in idle:
            idle.remove(self._main)
            idle.append(self._main)
        for waiter in idle[len(idle) - n_runs :]:
            waiter.tell()

    def _spare(self) -> None:
        engine = self.engine
        with fatal("an executor thread"):
            self.serve(lambda: engine.end is not None or len(self.engine.idle) > N_IDLE_THREADS_MAX, may_lead=False)

    # -- one task ------------------------------------------------------------------------------------------------------

    def execute(self, run: RunTask, idle: Waiter | None = None) -> RunTask | None:
        """Run one task on this thread, and tell the core how it ended; who waits for it need not be told at once.

        Args:
            run: The task.
            idle: The waiter of an executor thread, which may be given the next task.

        Returns:
            What runs next on the executor thread, if anything does.
        """
        engine, current = self.engine, self.current
        if self._forgotten:
            self._forgotten.clear()
        outer_id = current.task_id
        task_id = current.task_id = run.task_id
        current.n_nested += 1
        self.running[task_id] = current.ident
        engine.busy[task_id] = None
        value = None
        event: RunReturned | RunRaised
        try:
            if engine.end is not None:
                raise TaskCancelledError  # It was given out just before; ``wind_down`` may not have seen it.
            function, n_returns = self._loaded.get(run.template_id) or self._load(run)
            values = self._values_of(run) if run.arguments else ()
            if run.payload:
                args, kwargs = self.pickling.loads_call(run.payload, values)
                values = ()
                value = function(*args, **kwargs)
                del args, kwargs
            else:
                value = function(*values)
                values = ()
            if engine.end is not None and os.getpid() != self._pid:
                end_copy(None)
            if n_returns == 1:
                event = RunReturned(task_id, (self._result(task_id, value),))
            else:
                event = RunReturned(task_id, self._results(run, value, n_returns))
        except BaseException as error:  # Whatever user code raises is the task's end, SystemExit included.
            if engine.end is not None and os.getpid() != self._pid:
                end_copy(error)
            try:
                event = self.failed(run, error)
            except TaskCancelledError:  # It was cancelled as it raised by itself.
                event = self.failed(run, error)
        finally:
            del self.running[task_id]
            if self.marked:
                try:
                    self.end_marked(task_id)
                except TaskCancelledError:
                    self.end_marked(task_id)
            del engine.busy[task_id]
            current.task_id = outer_id
            current.n_nested -= 1
        # The value lives until here: refs in it must not be released before the core knows that it holds them.
        if idle is None:
            engine.mailbox.append(event)
            return None
        return engine.next_run(event, idle)

    def task_of_thread(self) -> int:
        """The task that the calling thread runs, 0 for none."""
        return self.current.task_id

    def mark(self, task_id: int) -> None:
        """See to it that ``on_marked_end`` is called when this task, which runs on this thread, has ended."""
        self.marked[task_id] = None

    def end_marked(self, task_id: int) -> None:
        """A task has ended while some are marked; perhaps it is one of them."""
        self.interruption.is_over(task_id)
        self.on_marked_end(task_id)

    def _load(self, run: RunTask) -> tuple[Callable[..., Any], int]:
        template = self.engine.core.template(run.template_id)
        if template.is_isolated:
            call = msgspec.structs.replace(run)
            # The child is given the arguments as they are, and here there are none to be loaded.
            run.payload, run.arguments, run.places = b"", (), ()
            return partial(self.run_isolated, call, template), ISOLATED
        if template.actor is None and not template.method:
            return self.functions.load(template)
        return self.functions.keep(template, self.residents.load(template), is_loop=self.current.home.is_loop)

    # What an event loop needs of it, in which many tasks run on one thread.

    def function_of(self, run: RunTask) -> tuple[Callable[..., Any], int]:
        """The code of a task, and how many results it has."""
        return self.functions.loaded.get(run.template_id) or self._load(run)

    def arguments_of(self, run: RunTask) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What it is called with."""
        values = self._values_of(run) if run.arguments else []
        return self.pickling.loads_call(run.payload, values) if run.payload else (tuple(values), {})

    def returned(self, run: RunTask, value: Any, n_returns: int) -> RunReturned:
        """How a run has ended that returned this."""
        if n_returns == 1:
            return RunReturned(run.task_id, (self._result(run.task_id, value),))
        return RunReturned(run.task_id, self._results(run, value, n_returns))

    def _values_of(self, run: RunTask) -> list[Any]:
        opened: Sequence[OpenArgument] = run.places
        run.places = ()  # The values keep what they need.
        stored = []
        for argument in opened:
            load = argument.load
            if load is None:
                if isinstance(argument.view, Failure):
                    raise ObjectLostError(argument.view.text)
                load = argument.load = self.pickling.loader_of(argument.view)
            stored.append(load())
        if len(stored) == len(run.arguments):
            return stored
        stored.reverse()
        loads = self.pickling.loads
        return [stored.pop() if argument.payload is None else loads(argument.payload) for argument in run.arguments]

    def _result(self, object_id: int, value: Any) -> Result:
        payload = payload_of_atoms(value)
        if payload is not None and len(payload) <= self._nbytes_inline_max:
            return Result(payload, len(payload), ())
        return self.keep(object_id, value)

    def keep(self, object_id: int, value: Any, pickled: Pickled | None = None) -> Result:
        """Keep a value, which may be pickled already: where it lies if it is a draft, else as ``store`` does."""
        if self.drafts.by_array:
            draft = self.drafts.take(value)
            if draft is not None:
                return self.drafts.store(object_id, draft)
        return self.store(object_id, pickled or self.pickling.dumps(value))

    def store(self, object_id: int, pickled: Pickled) -> Result:
        """Keep a pickled value: inline if it is small, sealed in the window if not."""
        if pickled.nbytes <= self._nbytes_inline_max:
            return Result(pack_inline(pickled), pickled.nbytes, pickled.contained)
        window, nbytes = self.engine.window, pickled.nbytes
        offset = self.room.take(object_id, nbytes)
        try:
            pack_into(pickled, window.buffer(offset, nbytes))
        except BaseException:  # Whatever stops the copy goes on upwards; the room must not stay taken.
            self.engine.post(RoomReturned(object_id))
            raise
        window.seal(offset, object_id, nbytes)
        return Result(None, nbytes, pickled.contained)

    def _results(self, run: RunTask, value: Any, n_returns: int) -> tuple[Result, ...]:
        if n_returns <= 0:
            if n_returns == ISOLATED:
                results: tuple[Result, ...] = value.results
                return results
            if n_returns == STREAMING:
                self.producers.produce(run, value)
            return ()
        values = listed(value, n_returns, self.engine.core.template(run.template_id).name)
        # All are pickled before the first is stored, so that one that cannot be leaves nothing behind.
        pickled = [self.pickling.dumps(value) for value in values]
        # Those that were built in place come last: they need no room, so that none of them is given up.
        drafts, kept = self.drafts.by_array, dict[int, Result]()
        try:
            for position in sorted(range(n_returns), key=lambda position: id(values[position]) in drafts):
                return_id = run.return_ids[position]
                kept[return_id] = self.keep(return_id, values[position], pickled[position])
        except BaseException:  # Whatever stops it goes on upwards; the room of the others must not stay taken.
            for return_id, result in kept.items():
                if result.payload is None:
                    self.engine.post(RoomReturned(return_id))
            raise
        return tuple(kept[return_id] for return_id in run.return_ids)

    def failed(self, run: RunTask, error: BaseException) -> RunRaised:
        """How a run has ended that raised this."""
        name = self.engine.core.template(run.template_id).name
        rank = self.engine.core.context.rank
        if isinstance(error, TaskCancelledError) and (run.task_id in self.cancelled or self.engine.end is not None):
            return RunRaised(run.task_id, Failure(CANCELLED, f"Task {name} was cancelled on rank {rank}."), False)
        if isinstance(error, IsolatedTaskError):
            return RunRaised(run.task_id, error.failure, error.is_retriable)
        if isinstance(error, ActorExitError):
            left = f"Actor {name_of(run.actor_id)} left by itself: {name} on rank {rank} called exit_actor()."
            return RunRaised(run.task_id, Failure(ACTOR_EXITED, left), False)
        text = encodable(f"Task {name} raised on rank {rank}:\n{trace_of(error)}")
        payload = self.pickling.dumps_exception(BaseException.with_traceback(error, None))
        is_retriable = self.functions.is_tried_again(run.template_id, error)
        return RunRaised(run.task_id, Failure(RAISED, text, payload), is_retriable)
