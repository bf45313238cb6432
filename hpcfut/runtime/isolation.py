"""Isolation, on the rank: tasks whose code runs in child processes, so that it can end nothing but itself.

Theory of operation

To the core such a task is like any other: an executor thread has it, holds its slot and its resources, and ends it. But
the thread only hands the call, as it came, to a child process, and serves that until the call is over: what the code
wants of hpcfut, this thread does in the name of the task. So a ``get`` there gives the slot back, and a cancellation
ends it, as anywhere; so does the end of the child, whose memory is watched meanwhile, too (``child_watch.py``). Stored
arguments are read where they lie, as the child has the same memory mapped for reading; large results come through the
channel right into the room that is taken for them.

The rank keeps the refs and views that a child holds in its stead, by what the child says (``wire/isolation.py``), and
lets go of them with the child. A child that is gone has crashed, whatever it was that ended it; the task is tried again
by another one. Children are used again, for functions that they know best, until one of their functions is
forgotten, or they have made as many calls as it allows.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from hpcfut.core.effects import RunTask
from hpcfut.core.events import RoomReturned
from hpcfut.model.errors import HpcfutError, ObjectLostError, TaskCancelledError
from hpcfut.model.failure import CRASHED, OUT_OF_MEMORY, RAISED, Failure
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.ports import ChildMaker
from hpcfut.runtime.child_watch import ChildWatch
from hpcfut.runtime.isolated_answers import answer
from hpcfut.runtime.isolated_child import IsolatedChild
from hpcfut.runtime.outcomes import IsolatedResults, IsolatedTaskError
from hpcfut.wire.isolation import (
    CallBegun,
    CallEnded,
    CallRaised,
    CallReturned,
    Made,
    decode_said,
    encode,
)
from hpcfut.wire.messages import Result

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime

#: Children without work are kept for further calls, but not more.
N_IDLE_MAX: Final = 4
_MIB: Final = 1 << 20


class _Outcome:
    """What has come of a call so far."""

    def __init__(self) -> None:
        self.results = IsolatedResults((), [])
        #: What the code, or storing its results, has raised.
        self.raised: CallRaised | Exception | None = None
        self.is_complete = False


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
        self._watch = ChildWatch()
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
        self._watch.close()

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
                    try:
                        self._children = self._open_children()
                    except OSError as error:
                        raise self._no_process(error) from None
                    except EOFError:
                        continue
                children = self._children
            try:
                worker = IsolatedChild(children.start(), self._runtime, self._find)
            except OSError as error:
                raise self._no_process(error) from None
            except EOFError:  # Somebody has ended what makes them.
                with self._lock:
                    if self._children is children:
                        self._children = None
                children.close()
                continue
            self._workers[worker.child.pid] = worker
            self._watch.add(worker)
            return worker
        raise self._no_process("what makes them ends at once")

    def _no_process(self, why: object) -> HpcfutError:
        return HpcfutError(
            f"Rank {self._runtime.rank} can start no process for an isolated task: {why}. Run fewer tasks at a time, "
            f"or raise the limits of processes, open files or memory."
        )

    def _end(self, worker: IsolatedChild) -> int | None:
        self._workers.pop(worker.child.pid, None)
        self._watch.drop(worker)
        return worker.end()

    def _give_back(self, worker: IsolatedChild, template: TaskTemplate) -> None:
        worker.end_task()
        n_calls = worker.n_calls[template.template_id]
        is_spent = 0 < template.n_calls_max <= n_calls
        self._idle.append(worker)
        # Appended first: whoever makes it stale now finds it there.
        is_dying = worker.is_struck or worker.nbytes_found
        if is_spent or worker.is_stale or is_dying or len(self._idle) > N_IDLE_MAX:
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
                    self._watch.drop(worker)
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
        worker.begin(task_id, nbytes_max := _memory_of(template))
        if nbytes_max:
            self._watch.limit(worker)
        interruption.strikes[task_id] = lambda is_forced: worker.strike(task_id, is_forced)
        outcome = _Outcome()
        try:
            self._converse(worker, call, template, outcome)
        except EOFError:
            status = self._end(worker)
            if not outcome.is_complete:
                if task_id in interruption.cancelled or self._runtime.engine.end is not None:
                    raise TaskCancelledError from None
                raise IsolatedTaskError(self._end_of(worker, template, status), is_retriable=True) from None
            # It has ended as it dropped what the call had had.
        except BaseException:  # A Ctrl-C, say: what the child says next has lost its sense.
            self._end(worker)
            self._give_up(call.return_ids, outcome.results.results)
            raise
        else:
            self._give_back(worker, template)
        finally:
            del interruption.strikes[task_id]
            if task_id not in interruption.cancelled:
                interruption.pending.pop(task_id, None)  # Its process has ended, and no wait has heard of it.
        raised = outcome.raised
        if isinstance(raised, CallRaised):
            if raised.is_cancelled and task_id in interruption.cancelled:
                raise TaskCancelledError
            failure = Failure(RAISED, raised.text, raised.payload)
            raise IsolatedTaskError(failure, is_retriable=raised.is_retriable)
        if raised is not None:
            raise raised
        return outcome.results

    def _converse(self, worker: IsolatedChild, call: RunTask, template: TaskTemplate, outcome: _Outcome) -> None:
        """Begin the call, and serve the child until it has ended."""
        self._begin(worker, call, template)
        while True:
            frame = worker.channel.receive()
            assert frame is not None
            said = decode_said(frame)
            worker.note(said)
            what = said.what
            if isinstance(what, CallEnded):
                return
            if isinstance(what, CallRaised):
                outcome.raised, outcome.is_complete = what, True
            elif isinstance(what, CallReturned):
                try:
                    # The child is about to drop these refs, and the core has not heard of the results.
                    outcome.results.refs = [worker.refs[ref] for made in what.results for ref in made.contained]
                    outcome.results.results = self._store_all(worker, call.return_ids, what.results)
                except EOFError:
                    raise
                except Exception as error:
                    outcome.raised = error
                outcome.is_complete = True
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

    def _end_of(self, worker: IsolatedChild, template: TaskTemplate, status: int | None) -> Failure:
        """Why the process of a task has ended."""
        task = f"Task {template.name} on rank {self._runtime.rank}"
        if not worker.nbytes_found:
            return Failure(CRASHED, f"{task} ended with its process, {_how(status)}")
        found, most = worker.nbytes_found / _MIB, worker.nbytes_max / _MIB
        text = (
            f"{task} used more memory than it had asked for: {found:.1f} MiB, and its option memory is {most:.1f} MiB. "
            f"Its process was ended. Ask for more, or let the task hold less at a time."
        )
        return Failure(OUT_OF_MEMORY, text)

    def _store_all(self, worker: IsolatedChild, return_ids: tuple[int, ...], made: list[Made]) -> tuple[Result, ...]:
        results: list[Result] = []
        try:
            for object_id, value in zip(return_ids, made, strict=True):
                results.append(self.store(worker, object_id, value))
        except Exception:  # It goes on upwards, when the channel stands at what the child says next.
            self._give_up(return_ids, results)
            # The one that failed was skipped.
            for value in made[len(results) + 1 :]:
                worker.channel.skip(value.nbytes if value.payload is None else 0)
            raise
        return tuple(results)

    def _give_up(self, return_ids: tuple[int, ...], results: Sequence[Result]) -> None:
        """The results that are stored already will be nobody's."""
        for object_id, result in zip(return_ids, results, strict=False):
            if result.payload is None:
                self._runtime.engine.post(RoomReturned(object_id))

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


def _memory_of(template: TaskTemplate) -> int:
    """How many bytes the code may have for itself, 0 for any number."""
    return dict(template.resources).get("memory", 0) // RESOURCE_UNIT


def _how(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None:
        return "of which nobody knows how it ended: what had made it was gone as well."
    if status >= 0:
        return f"whose exit status is {status}. User code, or a library, has left Python by itself (os._exit)."
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    if -status == signal.SIGKILL:
        return f"which was killed ({name}). The host may have run out of memory: ask for less, or run fewer at a time."
    return f"which crashed ({name}). What it printed last may tell where; code in C does that, not Python."
