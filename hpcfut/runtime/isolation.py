"""Isolation, on the rank: tasks whose code runs in child processes, so that it can end nothing but itself.

Theory of operation

To the core such a task is like any other: an executor thread has it, holds its slot and its resources, and ends it. But
the thread only hands the call, as it came, to a child process, and serves that until the call is over: what the code
wants of hpcfut, this thread does in the name of the task. So a ``get`` there gives the slot back, and a cancellation
ends it, as anywhere. Stored arguments are read where they lie, as the child has the same memory mapped for reading;
large results come through the channel right into the room that is taken for them.

The rank keeps the refs and views that a child holds in its stead, by what the child says (``wire/isolation.py``), and
lets go of them with the child. A child that is gone has crashed, whatever it was that ended it; the task is tried again
by another one. Children are used again, for functions that they know best, until one of their functions is
forgotten, or they have made as many calls as it allows.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from hpcfut.core.effects import RunTask
from hpcfut.core.events import RoomReturned, TemplateDropped
from hpcfut.model.errors import HpcfutError, ObjectLostError, TaskCancelledError
from hpcfut.model.failure import CRASHED, OUT_OF_MEMORY, RAISED, Failure
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.ports import Child, ChildMaker
from hpcfut.runtime.executor import IsolatedResults, IsolatedTaskError
from hpcfut.runtime.isolated_answers import answer
from hpcfut.wire.isolation import (
    CallBegun,
    CallEnded,
    CallRaised,
    CallReturned,
    Made,
    Said,
    Shown,
    decode_said,
    encode,
)
from hpcfut.wire.messages import Result

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime

#: Children without work are kept for further calls, but not more.
N_IDLE_MAX: Final = 4
#: So often the memory of a child is looked at that may have only so much.
MEMORY_CHECK_S: Final = 0.02
_MIB: Final = 1 << 20


class IsolatedChild:
    """A child process, and what the rank holds for it."""

    def __init__(self, child: Child, runtime: Runtime, find: Callable[[memoryview], tuple[int, int] | None]) -> None:
        self.child = child
        self.channel = child.channel
        self._runtime = runtime
        self._find = find
        self.nbytes_at_start = child.nbytes_private
        #: Functions that it knows, and how often it has called each.
        self.n_calls: dict[int, int] = {}
        #: Refs that it holds.
        self.refs: dict[int, Any] = {}
        #: What it views.
        self._views: dict[int, memoryview] = {}
        self._n_views = 0
        #: Remote functions that it has made.
        self.own_templates: dict[int, None] = {}
        #: One of its functions is forgotten.
        self.is_stale = False
        #: The task whose code it runs, 0 for none.
        self.task_id = 0
        self._is_struck = False
        self._lock = threading.Lock()

    def begin(self, task_id: int) -> None:
        """It is going to run the code of this task."""
        with self._lock:
            self.task_id, self._is_struck = task_id, False

    def end_task(self) -> None:
        """It runs nothing now."""
        with self._lock:
            self.task_id = 0

    def strike(self, task_id: int, is_forced: bool) -> None:
        """Have ``TaskCancelledError`` raised in this task, once, or end the process."""
        with self._lock:
            if self.task_id != task_id:
                return
            if is_forced:
                self.child.signal(signal.SIGKILL)
            elif not self._is_struck:
                self._is_struck = True
                self.child.signal(signal.SIGURG)

    def show(self, value: Any, payloads: list[bytes | memoryview]) -> Shown:
        """A value as the child can see it; ``payloads`` go behind the frame."""
        if isinstance(value, Failure):
            return Shown(None, failure=value)
        if isinstance(value, bytes):
            return Shown(value, len(value))
        place = self._find(value)
        if place is None:
            payloads.append(value)
            return Shown(None, len(value))
        self._n_views += 1
        self._views[self._n_views] = value
        return Shown(None, len(value), *place, self._n_views)

    def note(self, said: Said) -> None:
        """Hold what it has come to hold, and no more what it does not."""
        make_ref = self._runtime.pickling.make_ref
        for object_id in said.taken:
            self.refs[object_id] = make_ref(object_id)
        for object_id in said.dropped:
            del self.refs[object_id]
        for number in said.closed:
            del self._views[number]
        for template_id in said.forgotten:
            del self.own_templates[template_id]
            self._runtime.mailbox.append(TemplateDropped(template_id))
        if said.is_struck:
            self._runtime.executor.interruption.pending.pop(self.task_id, None)

    def hold_new(self, object_ids: list[int]) -> None:
        """These were made for it; who makes one holds it once."""
        for object_id in object_ids:
            self.refs[object_id] = self._runtime.pickling.make_ref(object_id)
        self._runtime.released.extend(object_ids)

    def end(self) -> int:
        """End the process; returns its status, as ``Child.end`` does."""
        self.end_task()
        self._let_go()
        return self.child.end()

    def leave(self) -> None:
        """Have it end by itself, without waiting for that."""
        self._let_go()
        self.child.let_go()

    def _let_go(self) -> None:
        self.refs.clear()
        self._views.clear()
        self._runtime.mailbox.extend(map(TemplateDropped, self.own_templates))
        self.own_templates.clear()


class Isolation:
    """The children of one rank in one session."""

    def __init__(
        self,
        runtime: Runtime,
        open_children: Callable[[], ChildMaker],
        find: Callable[[memoryview], tuple[int, int] | None],
    ) -> None:
        """Get ready; nothing is started before the first isolated task.

        Args:
            runtime: The session.
            open_children: Gives what makes children.
            find: Where bytes lie that a view shows: a rank of the host, and from which byte of its memory on.
        """
        self._runtime = runtime
        self._open_children = open_children
        self._find = find
        self._children: ChildMaker | None = None
        self._workers: dict[int, IsolatedChild] = {}
        self._idle: list[IsolatedChild] = []
        self._lock = threading.Lock()
        engine = runtime.engine
        runtime.executor.run_isolated = self.run
        forget = engine.on_forget

        def forget_all(template_id: int) -> None:
            forget(template_id)
            self._forget(template_id)

        engine.on_forget = forget_all

    def close(self) -> None:
        """The session is over: end all children."""
        with self._lock:
            children, self._children = self._children, None
        for worker in self._idle:
            worker.leave()
        self._idle.clear()
        if children is not None:
            children.close()

    # -- children ----------------------------------------------------------------------------------------------------

    def _take(self, template_id: int) -> IsolatedChild:
        """A child without work, one that knows the function if there is one, or a new one."""
        while True:
            idle = sorted(self._idle[:], key=lambda worker: template_id in worker.n_calls)
            if not idle:
                return self._make()
            with suppress(ValueError):  # Another thread was faster.
                self._idle.remove(idle[-1])
                with suppress(EOFError):
                    if not idle[-1].is_stale and idle[-1].channel.receive(0.0) is None:
                        return idle[-1]
                self._end(idle[-1])

    def _make(self) -> IsolatedChild:
        for _ in range(2):
            with self._lock:
                if self._runtime.engine.end is not None:
                    raise TaskCancelledError
                if self._children is None:
                    self._children = self._open_children()
                children = self._children
            try:
                worker = IsolatedChild(children.start(), self._runtime, self._find)
            except EOFError:  # Somebody has ended what makes them.
                with self._lock:
                    if self._children is children:
                        self._children = None
                children.close()
                continue
            self._workers[worker.child.pid] = worker
            return worker
        raise HpcfutError(f"Rank {self._runtime.rank} can start no process for an isolated task.")

    def _end(self, worker: IsolatedChild) -> int:
        self._workers.pop(worker.child.pid, None)
        return worker.end()

    def _give_back(self, worker: IsolatedChild, template: TaskTemplate) -> None:
        worker.end_task()
        n_calls = worker.n_calls[template.template_id]
        is_spent = 0 < template.n_calls_max <= n_calls
        self._idle.append(worker)
        # Appended first: whoever makes it stale now finds it there.
        if is_spent or worker.is_stale or len(self._idle) > N_IDLE_MAX:
            with suppress(ValueError):
                self._idle.remove(worker)
                self._end(worker)

    def _forget(self, template_id: int) -> None:
        """No task needs this function any more: what it holds in a child goes with that. Called in a turn."""
        for worker in list(self._workers.values()):
            if template_id in worker.n_calls:
                worker.is_stale = True
                with suppress(ValueError):  # It works, and ends after that.
                    self._idle.remove(worker)
                    self._workers.pop(worker.child.pid, None)
                    worker.leave()

    # -- one call ----------------------------------------------------------------------------------------------------

    def run(self, call: RunTask, template: TaskTemplate) -> IsolatedResults:
        """Run the code of a task, on its executor thread.

        Raises:
            IsolatedTaskError: It has raised, or its process has ended.
            TaskCancelledError: It was cancelled.
        """
        executor = self._runtime.executor
        interruption, task_id = executor.interruption, call.task_id
        worker = self._take(template.template_id)
        worker.begin(task_id)
        interruption.strikes[task_id] = lambda is_forced: worker.strike(task_id, is_forced)
        try:
            results, raised = self._converse(worker, call, template)
        except EOFError:
            status = self._end(worker)
            if task_id in interruption.cancelled or self._runtime.engine.end is not None:
                raise TaskCancelledError from None
            text = f"Task {template.name} on rank {self._runtime.rank} ended with its process, {_how(status)}"
            raise IsolatedTaskError(Failure(CRASHED, text), is_retriable=True) from None
        except BaseException:  # A Ctrl-C, say: what the child says next has lost its sense.
            self._end(worker)
            raise
        finally:
            del interruption.strikes[task_id]
        self._give_back(worker, template)
        if isinstance(raised, CallRaised):
            if raised.is_cancelled and task_id in interruption.cancelled:
                raise TaskCancelledError
            failure = Failure(RAISED, raised.text, raised.payload)
            raise IsolatedTaskError(failure, is_retriable=raised.is_retriable)
        if raised is not None:
            raise raised
        return results

    def _converse(
        self, worker: IsolatedChild, call: RunTask, template: TaskTemplate
    ) -> tuple[IsolatedResults, CallRaised | Exception | None]:
        """Begin the call, and serve the child until it has ended; gives its results, or what it or the rank raised."""
        self._begin(worker, call, template)
        results = IsolatedResults((), [])
        raised: CallRaised | Exception | None = None
        while True:
            said = self._hear(worker, template)
            worker.note(said)
            what = said.what
            if isinstance(what, CallEnded):
                return results, raised
            if isinstance(what, CallRaised):
                raised = what
            elif isinstance(what, CallReturned):
                try:
                    # The child is about to drop these refs, and the core has not heard of the results.
                    results.refs = [worker.refs[ref] for made in what.results for ref in made.contained]
                    results.results = self._store_all(worker, call.return_ids, what.results)
                except Exception as error:
                    raised = error
                    if isinstance(error, EOFError):
                        raise
            else:
                answer(self._runtime, worker, call.task_id, what, self.store)

    def _begin(self, worker: IsolatedChild, call: RunTask, template: TaskTemplate) -> None:
        stored, call.places = list(call.places), ()
        payloads: list[bytes | memoryview] = []
        arguments = []
        for argument in call.arguments:
            value = argument.payload if argument.payload is not None else stored.pop(0).view
            if isinstance(value, Failure):
                raise ObjectLostError(value.text)
            arguments.append(worker.show(value, payloads))
        template_id = template.template_id
        is_new = template_id not in worker.n_calls
        worker.n_calls[template_id] = worker.n_calls.get(template_id, 0) + 1
        begun = CallBegun(call.task_id, template_id, template if is_new else None, call.payload, arguments)
        worker.channel.send(encode(begun), payloads)

    def _hear(self, worker: IsolatedChild, template: TaskTemplate) -> Said:
        """What the child says next, which may take long; meanwhile its memory is watched if it has a limit."""
        limit = dict(template.resources).get("memory", 0) // RESOURCE_UNIT
        while (frame := worker.channel.receive(MEMORY_CHECK_S if limit else None)) is None:
            used = worker.child.nbytes_private - worker.nbytes_at_start
            if used > limit:
                text = (
                    f"Task {template.name} on rank {self._runtime.rank} used more memory than it had asked for: "
                    f"{used / _MIB:.1f} MiB, and its option memory is {limit / _MIB:.1f} MiB. Its process was ended. "
                    f"Ask for more, or let the task hold less at a time."
                )
                raise IsolatedTaskError(Failure(OUT_OF_MEMORY, text), is_retriable=True)
        return decode_said(frame)

    def _store_all(self, worker: IsolatedChild, return_ids: tuple[int, ...], made: list[Made]) -> tuple[Result, ...]:
        results: list[Result] = []
        try:
            for object_id, value in zip(return_ids, made, strict=True):
                results.append(self.store(worker, object_id, value))
        except Exception:
            for object_id, result in zip(return_ids, results, strict=False):
                if result.payload is None:
                    self._runtime.engine.post(RoomReturned(object_id))
            # The one that failed was skipped.
            for value in made[len(results) + 1 :]:
                worker.channel.skip(value.nbytes if value.payload is None else 0)
            raise
        return tuple(results)

    def store(self, worker: IsolatedChild, object_id: int, made: Made) -> Result:
        """Keep a value that the child has made: inline, or in the window, where it comes right from the channel."""
        if made.payload is not None:
            return Result(made.payload, made.nbytes, made.contained)
        engine, channel = self._runtime.engine, worker.channel
        try:
            offset = self._runtime.executor.room.take(object_id, made.nbytes)
        except Exception:
            channel.skip(made.nbytes)
            raise
        try:
            try:
                target = engine.window.buffer(offset, made.nbytes)
            except MemoryError:
                channel.skip(made.nbytes)
                raise
            channel.receive_into(target)
        except BaseException:  # Whatever stops it goes on upwards; the room must not stay taken.
            engine.post(RoomReturned(object_id))
            raise
        engine.window.seal(offset, object_id, made.nbytes)
        return Result(None, made.nbytes, made.contained)


def _how(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"whose exit status is {status}. User code, or a library, has left Python by itself (os._exit)."
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    if -status == signal.SIGKILL:
        return f"which was killed ({name}). The host may have run out of memory: ask for less, or run fewer at a time."
    return f"which crashed ({name}). What it printed last may tell where; code in C does that, not Python."
