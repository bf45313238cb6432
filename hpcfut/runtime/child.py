"""A child process of a rank, in which the code of isolated tasks runs; the composition root of such a process.

It stands in for ``Runtime`` before the API: what code of the user's wants of hpcfut is asked of the rank, by one thread
after the other (``wire/isolation.py``). User code runs on the main thread. There the signal of a cancellation raises,
unless the thread is just inside this module: then it is raised at the boundary.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from hpcfut.edges.host.channel import Channel
from hpcfut.edges.host.child_memory import ChildMemory
from hpcfut.edges.host.fork_server import serve_forks
from hpcfut.edges.host.no_mpi import refuse_mpi
from hpcfut.edges.host.task_output import TaskOutput
from hpcfut.model.errors import HpcfutError, ObjectLostError, TaskCancelledError
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.template import TaskTemplate
from hpcfut.runtime.child_refs import ChildRefs
from hpcfut.runtime.environments import Environments
from hpcfut.runtime.functions import Functions
from hpcfut.runtime.job import RefHooks
from hpcfut.runtime.large_arguments import put_large
from hpcfut.runtime.missing import MISSING, Missing
from hpcfut.runtime.outcomes import end_copy, listed, trace_of
from hpcfut.runtime.waiter import Waiter
from hpcfut.wire.exceptions import encodable
from hpcfut.wire.isolation import (
    Answered,
    CallBegun,
    CallEnded,
    CallRaised,
    CallReturned,
    CancelWanted,
    FunctionMade,
    Made,
    ObjectMade,
    Question,
    Said,
    Shown,
    TaskMade,
    WaitWanted,
    decode_start,
    decode_told,
    encode,
)
from hpcfut.wire.packing import Pickled, pack_inline, parts_of
from hpcfut.wire.pickling import Pickling
from hpcfut.wire.pickling.blanks import blank_of


class ChildRuntime:
    """What the API finds in such a process."""

    is_over = False

    def __init__(self, start: bytes, channel: Channel, hooks: RefHooks) -> None:
        self._start = told = decode_start(start)
        self.rank = told.rank
        self.engine = Missing()
        self.now = time.monotonic
        #: The task whose code runs.
        self.task_id = 0
        #: What ``wait`` remembers on a rank.
        self.awaited_ids: list[int] = []
        self._refs = ChildRefs()
        #: Refs that went away.
        self.released = self._refs.released
        self._forgotten: deque[int] = deque()
        self._channel = channel
        self._memory = ChildMemory(told.guide)
        self._lock = threading.Lock()
        self._templates: dict[int, TaskTemplate] = {}
        self._pid = os.getpid()
        self._main = threading.get_ident()
        #: Whether a cancellation may be raised right away on the main thread; whether it came when it could not.
        self._is_in_code = self._is_pending = False
        #: Whether it has been raised in this task, and whether that is still to be told.
        self._was_struck = self._is_struck = False

        def make_counted_ref(object_id: int) -> Any:
            self._refs.made.append(object_id)
            return hooks.make_ref(object_id)

        self.pickling = Pickling(hooks.ref_type, hooks.id_of, make_counted_ref)
        self._functions = Functions(self.pickling, Environments(lambda: self.task_id))
        self._output = TaskOutput(told.rank)

    def __getattr__(self, name: str) -> NoReturn:
        raise HpcfutError(f"What was called {MISSING}")

    # -- calls -------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run calls until the rank is gone."""
        # First of all: what has come already was kept for this.
        signal.signal(signal.SIGURG, self._on_strike)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
        sys.argv[:] = self._start.argv
        self._output.install(self._task_of_thread, lambda source: None, is_driver=False)
        if "numpy.random" in sys.modules:
            # Else all copies of the server would draw the same numbers; Python's own does so by itself.
            sys.modules["numpy.random"].seed()
        try:
            while True:
                told = self._hear()
                assert isinstance(told, CallBegun), told
                values = [self._raw(shown) for shown in told.arguments]
                with self._lock:
                    # From now on a thread that an earlier call has left asks in the name of this task.
                    self.task_id = told.task_id
                    # Not so what is pending: the rank strikes for this call only, and maybe before it is heard of.
                    self._was_struck = self._is_struck = False
                self._call(told, values)
                del told, values
                self._output.finish_all()
                if self._memory.n_views or self._refs.told:
                    gc.collect()  # Cycles, of an exception and its frames say, may hold what nobody needs.
                with self._lock:
                    self.task_id = 0
                    self._say(CallEnded())
        except EOFError:
            return

    def _task_of_thread(self) -> int:
        return self.task_id if threading.get_ident() == self._main else 0

    def _call(self, told: CallBegun, values: list[Any]) -> None:
        """Run the code of a task, and tell what came of it."""
        if told.template is not None:
            self._templates[told.template_id] = told.template
        template = self._templates[told.template_id]
        try:
            try:
                function, _ = self._functions.loaded.get(told.template_id) or self._functions.load(template)
                loaded = [self._loaded(value) for value in values]
                values.clear()
                args, kwargs = self.pickling.loads_call(told.payload, loaded)
                del loaded
                self._enter_code()
                value = function(*args, **kwargs)
            finally:
                self._is_in_code = False
            if os.getpid() != self._pid:
                end_copy(None)
            results = self._pickled(value, template)
        except BaseException as error:  # Whatever user code raises is the task's end, SystemExit included.
            self._is_in_code = False
            if os.getpid() != self._pid:
                end_copy(error)
            raised = self._raised(error, template)
            with self._lock:
                self._say(raised)
            return
        payloads = [part for made in results if self._is_large(made) for part in parts_of(made)]
        with self._lock:  # Another thread may be in the middle of a question.
            self._say(CallReturned([self._made_of(pickled) for pickled in results]), payloads)

    def _pickled(self, value: Any, template: TaskTemplate) -> list[Pickled]:
        n_returns = template.n_returns
        if n_returns <= 0:
            return []
        values = [value] if n_returns == 1 else listed(value, n_returns, template.name)
        return [self.pickling.dumps(each) for each in values]

    def _raised(self, error: BaseException, template: TaskTemplate) -> CallRaised:
        text = encodable(f"Task {template.name} raised in process {self._pid} of rank {self.rank}:\n{trace_of(error)}")
        payload = self.pickling.dumps_exception(BaseException.with_traceback(error, None))
        is_retriable = self._functions.is_tried_again(template.template_id, error)
        return CallRaised(text, payload, is_retriable, isinstance(error, TaskCancelledError))

    # -- cancellation --------------------------------------------------------------------------------------------------

    def _on_strike(self, number: int, frame: FrameType | None) -> None:
        if self._is_in_code:
            self._raise_strike()
        self._is_pending = True

    def _raise_strike(self) -> None:
        if self.task_id and not self._was_struck:
            self._was_struck = self._is_struck = True
            raise TaskCancelledError(f"The task was cancelled in process {self._pid} of rank {self.rank}.")

    def _enter_code(self) -> None:
        self._is_in_code = True
        if self._is_pending:
            self._raise_strike()

    # -- talking to the rank -------------------------------------------------------------------------------------------

    def _hear(self) -> CallBegun | Any:
        frame = self._channel.receive()
        assert frame is not None
        return decode_told(frame)

    def _say(self, what: Any, payloads: Sequence[bytes | memoryview] = ()) -> None:
        """Say something; with the lock."""
        self._channel.send(self._frame(what), payloads)

    def _frame(self, what: Any) -> bytes:
        """What is to be said, with the refs and views that have come and gone since."""
        n_closed = len(self._memory.closed)
        taken, dropped = self._refs.settle()
        closed = [self._memory.closed.popleft() for _ in range(n_closed)]
        forgotten = [self._forgotten.popleft() for _ in range(len(self._forgotten))]
        is_struck, self._is_struck = self._is_struck, False
        return encode(Said(what, taken, dropped, closed, forgotten, is_struck))

    def _ask(self, question: Question, payloads: Sequence[bytes | memoryview] = ()) -> tuple[Answered, list[Any]]:
        """Ask the rank for something, in the name of the task; gives the answer, and what is shown with it."""
        if os.getpid() != self._pid:
            raise RuntimeError("This process is a copy that the code of a task has forked, and hpcfut is not there.")
        is_main = threading.get_ident() == self._main
        was_in_code = self._is_in_code
        if is_main:
            self._is_in_code = False
        with self._lock:
            if not self.task_id:
                raise HpcfutError("hpcfut was used by a thread of an isolated task that has ended. Join it before.")
            frame = self._frame(question)
            try:
                self._channel.send(frame, payloads)
                told = self._hear()
                values = [self._raw(shown) for shown in told.values] if isinstance(told, Answered) else []
            except EOFError:
                os._exit(0)  # The rank is gone.
            except BaseException:  # A signal handler of the user's, say: what is read next would not be what it seems.
                traceback.print_exc()
                os._exit(1)
        if not isinstance(told, Answered):
            error = self.pickling.loads_exception(told.payload)
            if is_main and isinstance(error, TaskCancelledError):
                self._was_struck = self._is_struck = True
            self._is_in_code = was_in_code if is_main else self._is_in_code
            raise error or HpcfutError("The rank could not do it, and its reason could not be carried here.")
        if is_main and was_in_code:
            self._enter_code()
        return told, values

    def _raw(self, shown: Shown | None) -> Any:
        """The bytes of what is shown, or why there are none."""
        if shown is None or shown.failure is not None:
            return None if shown is None else shown.failure
        if shown.payload is not None:
            return shown.payload
        try:
            if shown.rank >= 0:
                return self._memory.view(shown.number, shown.rank, shown.start, shown.nbytes)
            target = memoryview(bytearray(shown.nbytes))
        except Exception as error:  # There is no room for it, or whose memory it is has ended.
            if shown.rank >= 0:
                self._memory.closed.append(shown.number)
            else:
                self._channel.skip(shown.nbytes)
            why = f"{type(error).__name__}: {error}".rstrip(": ")
            return Failure(LOST, f"A value of {shown.nbytes} B cannot be read in process {self._pid}. {why}.")
        self._channel.receive_into(target)
        return target.toreadonly()

    def _loaded(self, value: Any) -> Any:
        if isinstance(value, Failure):
            raise ObjectLostError(value.text)
        return self.pickling.loads(value)

    def _is_large(self, pickled: Pickled) -> bool:
        return pickled.nbytes > self._start.nbytes_inline_max

    def _made_of(self, pickled: Pickled) -> Made:
        payload = None if self._is_large(pickled) else pack_inline(pickled)
        return Made(payload, pickled.nbytes, pickled.contained)

    # -- what the API asks for, as ``Runtime`` has it ------------------------------------------------------------------

    def define(
        self,
        make_template: Callable[[int, bytes, tuple[int, ...], bytes], TaskTemplate],
        function: Any,
        retried: tuple[type[BaseException], ...],
    ) -> int:
        """Register a remote function."""
        pickled = self.pickling.dumps(function)
        types = self.pickling.dumps(retried) if retried else Pickled(b"", (), (), 0)
        nested = pickled.contained + types.contained
        told, _ = self._ask(FunctionMade(make_template(0, pack_inline(pickled), nested, pack_inline(types))))
        return told.ids[0]

    def forget(self, template_id: int) -> None:
        """The last handle on a remote function went away; any thread, any time."""
        self._forgotten.append(template_id)

    def submit(
        self, template_id: int, n_returns: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[int, ...]:
        """Submit a task; returns the ids of its results, each of which the caller holds once."""
        pickled, arguments = self.pickling.dumps_call(args, kwargs)
        large: list[int] = []
        try:
            if self._is_large(pickled):
                args, kwargs, large = put_large(
                    args, kwargs, self.pickling, self._start.nbytes_inline_max, self._put, self.released
                )
                pickled, arguments = self.pickling.dumps_call(args, kwargs)
            made = TaskMade(template_id, n_returns, pack_inline(pickled), arguments, pickled.contained)
            told, _ = self._ask(made)
        finally:
            self.released.extend(large)
        self._refs.hold_new(told.ids)
        return tuple(told.ids)

    def put(self, value: Any) -> int:
        """Store a value; returns its id, which the caller holds once."""
        return self._put(self.pickling.dumps(value))

    def _put(self, pickled: Pickled) -> int:
        payloads = parts_of(pickled) if self._is_large(pickled) else ()
        told, _ = self._ask(ObjectMade(self._made_of(pickled)), payloads)
        self._refs.hold_new(told.ids)
        return told.ids[0]

    def empty(self, shape: Any, dtype: Any, order: Any) -> Any:
        """An array in the memory of this process."""
        return blank_of(shape, dtype, order, sys.maxsize).apart()

    def at_hand(self, object_id: int, *, is_fetching: bool = False) -> None:
        """Nothing is at hand here."""

    def wait(
        self, object_ids: list[int], n_wanted: int, timeout_s: float | None, is_fetching: bool, is_taking: bool
    ) -> Waiter | None:
        """Wait, as on a rank."""
        told, values = self._ask(WaitWanted(object_ids, n_wanted, timeout_s, is_fetching, is_taking))
        if not told.is_done:
            return None
        return Waiter(0, object_ids=told.ids, values=values)

    def cancel(self, object_id: int, *, is_recursive: bool, is_forced: bool = False) -> None:
        """Cancel the task that makes an object."""
        self._ask(CancelWanted(object_id, is_recursive, is_forced))

    def demand_session(self) -> None:
        """The session lasts for as long as the rank does."""

    def demand_no_interruption(self, held: tuple[int, ...] = ()) -> None:
        """Every question looks by itself."""

    def disown(self) -> None:
        """This is a forked copy, whose connection is closed already."""


def be_fork_server(descriptor: int, hooks: Callable[[], RefHooks], enter: Callable[[ChildRuntime], None]) -> NoReturn:
    """Be the process that makes children of a rank; ``enter`` has the API use what each of them has of a runtime."""

    def prepare() -> None:
        refuse_mpi()
        # Loads NumPy, for all children at once.
        blank_of(0, float, "C", sys.maxsize)

    def work(start: bytes, channel: Channel) -> None:
        runtime = ChildRuntime(start, channel, hooks())
        enter(runtime)
        runtime.serve()

    serve_forks(descriptor, prepare, work)
