"""The runtime of a rank for one session: what the API asks for, in terms of events and waiters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, islice
from typing import Any, Final

from hpcfut.core.effects import EndJob
from hpcfut.core.events import (
    ActorCreated,
    CancelRequested,
    DriverEnded,
    MethodCalled,
    ObjectPut,
    StopRequested,
    StreamAdvanced,
    StreamEndWanted,
    TaskSubmitted,
    TemplateDefined,
    TemplateDropped,
    WaitAbandoned,
    WaitStarted,
)
from hpcfut.model.config import Config
from hpcfut.model.errors import SessionEndedError, TaskCancelledError
from hpcfut.model.failure import Failure
from hpcfut.model.ids import first_id, name_of
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import TaskTemplate
from hpcfut.ports import Clock
from hpcfut.runtime.actors import Actors
from hpcfut.runtime.callbacks import CallbackThread
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.executor import Current, Executor
from hpcfut.runtime.helper import Helper
from hpcfut.runtime.isolated_answers import demand_isolated
from hpcfut.runtime.large_arguments import put_large
from hpcfut.runtime.queries import Queries
from hpcfut.runtime.sites import noting
from hpcfut.runtime.sources import Sources, demand_no_reader
from hpcfut.runtime.waiter import Waiter
from hpcfut.wire.packing import Pickled, pack_inline
from hpcfut.wire.pickling import Pickling, payload_of_atoms

#: In place of the number of results.
CONSTRUCTOR: Final = -1
#: So many tasks may stand on one thread's stack, each waiting for the next; further ones get threads of their own.
N_NESTED_MAX = 40


class Runtime:
    """One session of one rank."""

    def __init__(
        self,
        engine: Engine,
        config: Config,
        clock: Clock,
        incarnation: int,
        ref_type: type,
        id_of: Callable[[Any], int],
        make_ref: Callable[[int], Any],
    ) -> None:
        self.engine = engine
        self.config = config
        self.rank = engine.core.context.rank
        self.mailbox = mailbox = engine.mailbox
        self._owned = engine.core.ownership.objects
        self.released = engine.released
        self._nbytes_inline_max = config.nbytes_inline_max
        self.now = clock.now
        self.ids = self._ids = count(first_id(self.rank, incarnation))
        self._template_ids = count((self.rank << 40) + 1)
        #: The distinct objects that the last ``wait`` left to be waited for.
        self.awaited_ids: list[int] = []
        #: Whether Ctrl-C came.
        self._interrupted = False
        #: Whether it did, or a task that runs here is to be interrupted; then each call looks before it returns.
        self._is_alert = False

        def make_counted_ref(object_id: int) -> Any:
            mailbox.append(object_id)
            return make_ref(object_id)

        self.pickling = Pickling(ref_type, id_of, make_counted_ref)
        self.executor = Executor(engine, self.pickling, config)
        engine.busy[0] = None
        self.executor.interruption.on_pending = self._alert
        self.executor.room.raise_interruption = self.raise_interruption
        self._current = self.executor.current
        self.sources = Sources(engine, self.executor, self._ids, config.nbytes_inline_max)
        self.actors = Actors(self)
        self.helper = Helper(engine)
        self.queries = Queries(self)
        #: Runs the callbacks of futures.
        self.callbacks = CallbackThread()
        #: What the API keeps of each event loop in which somebody awaits a ref.
        self.loops: dict[Any, Any] = {}
        if config.notes_sites:
            for thing, name in ((self, "submit"), (self, "put"), (self.sources, "put"), (self.executor.drafts, "make")):
                setattr(thing, name, noting(engine.post, getattr(thing, name), is_named=name == "make"))

    @property
    def roster(self) -> tuple[RankRecord, ...]:
        """All ranks that there are or were."""
        return self.engine.core.membership.roster

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self.engine.end is not None

    @property
    def task_id(self) -> int:
        """The task that runs on this thread, 0 for a driver."""
        return self.executor.current.task_id

    # -- what the API asks for -----------------------------------------------------------------------------------------

    def define(
        self,
        make_template: Callable[[int, bytes, tuple[int, ...], bytes], TaskTemplate],
        function: Any,
        retried: tuple[type[BaseException], ...],
    ) -> int:
        """Register a remote function, which is tried again after the exceptions ``retried``.

        ``make_template`` is given its id, its payload, the refs captured in it, and the payload of ``retried``.
        """
        self.demand_session()
        template_id = next(self._template_ids)
        pickled = self.pickling.dumps(function)
        nested, retry_exceptions = pickled.contained, b""
        if retried:
            pickled_types = self.pickling.dumps(retried)
            nested, retry_exceptions = nested + pickled_types.contained, pack_inline(pickled_types)
        self.engine.post(TemplateDefined(make_template(template_id, pack_inline(pickled), nested, retry_exceptions)))
        return template_id

    def forget(self, template_id: int) -> None:
        """The last handle on a remote function went away; any thread, any time."""
        self.mailbox.append(TemplateDropped(template_id))

    def submit(
        self, template_id: int, n_returns: int, args: tuple[Any, ...], kwargs: dict[str, Any], actor_id: int = 0
    ) -> tuple[int, ...]:
        """Submit a task; returns the ids of its results, each of which the caller holds once.

        ``actor_id``: it is a call of that actor, or, with ``CONSTRUCTOR`` as the number of results, makes it.
        """
        engine = self.engine
        if engine.end is not None:
            self.demand_session()
        arguments: tuple[int, ...] = ()
        nested: tuple[int, ...] = ()
        large: list[int] = []
        payload = payload_of_atoms(args) if args and not kwargs else None
        if payload is None or len(payload) > self._nbytes_inline_max:
            pickled, arguments = self.pickling.dumps_call(args, kwargs)
            if pickled.nbytes > self._nbytes_inline_max:
                args, kwargs, large = put_large(
                    args, kwargs, self.pickling, self._nbytes_inline_max, self._put_pickled, self.released
                )
                pickled, arguments = self.pickling.dumps_call(args, kwargs)
            payload, nested = pack_inline(pickled), pickled.contained
        task_id = next(self._ids)
        return_ids = (task_id,) if n_returns == 1 else (task_id, *islice(self._ids, max(n_returns, 1) - 1))[:n_returns]
        parent = self._current.task_id
        if not actor_id:
            engine.post_soon(TaskSubmitted(task_id, template_id, payload, return_ids, arguments, nested, parent))
        elif n_returns != CONSTRUCTOR:
            engine.post_soon(
                MethodCalled(task_id, actor_id, template_id, payload, return_ids, arguments, nested, parent)
            )
        else:
            return_ids = (actor_id,)
            engine.post_soon(ActorCreated(actor_id, template_id, payload, arguments, nested))
        if large:
            self.released.extend(large)
        if self._is_alert:
            self.demand_no_interruption(return_ids)
        return return_ids

    def _put_pickled(self, pickled: Pickled) -> int:
        object_id = next(self._ids)
        self.engine.post(ObjectPut(object_id, self.executor.store(object_id, pickled)))
        return object_id

    def put(self, value: Any) -> int:
        """Store a value; returns its id, which the caller holds once."""
        self.demand_session()
        object_id = next(self._ids)
        self.engine.post(ObjectPut(object_id, self.executor.keep(object_id, value)))
        self.demand_no_interruption((object_id,))
        return object_id

    def empty(self, shape: Any, dtype: Any, order: Any) -> Any:
        """An array to be filled, over the memory that it will be stored in, if it is to be stored."""
        array = self.executor.drafts.make(next(self._ids), shape, dtype, order)
        self.demand_no_interruption()
        return array

    def at_hand(self, object_id: int, *, is_fetching: bool = False) -> bytes | memoryview | None:
        """The payload of an object that this rank owns, where a wait for it would be over at once.

        ``is_fetching``: a stored one too. A small one is read without the lock: the caller holds a ref, so nobody takes
        the record away, and a payload never changes. What stands in the mailbox must be heard by any wait, and an
        interrupted one raises; then there is nothing at hand.
        """
        record = self._owned.get(object_id)
        if record is None or self._is_alert or self.mailbox or self.engine.end is not None:
            return None
        return self.engine.open_at_hand(object_id) if is_fetching and record.rank != -1 else record.payload

    def wait(
        self,
        object_ids: list[int],
        n_wanted: int,
        timeout_s: float | None,
        is_fetching: bool,
        is_taking: bool,
        is_free: bool = True,
    ) -> Waiter | None:
        """Wait until ``n_wanted`` of these distinct objects are ready; 0 asks which are ready now, all of them.

        Who takes values is given them, if it fetches, and, if it is free for that, may run on its own stack the tasks
        that make them.

        Returns:
            A waiter whose ``object_ids`` are the ready ones, in the order of the request, and whose ``values`` hold for
            each its payload, or a view of it, or its failure. If the time was over first: ``None``, or those ready.
        """
        engine, executor, current = self.engine, self.executor, self._current
        task_id = current.task_id
        deadline, may_run = None, is_taking and is_free
        if timeout_s is not None:
            may_run = False
            deadline = self.now() + timeout_s
        elif current.n_nested >= N_NESTED_MAX:
            may_run = False
            demand_no_reader(current.n_nested)
        waiter = engine.new_waiter()
        was_busy = engine.busy.pop(task_id, 0) is None
        if task_id:
            executor.blocked[task_id] = waiter
            if executor.environments.of_task:
                executor.environments.take_off(task_id)
        started: WaitStarted | None = WaitStarted(
            waiter.waiter_id, object_ids, n_wanted, is_fetching, may_run, task_id, timeout_s is None, is_taking
        )
        if engine.end is not None or self._is_alert:
            waiter.has_news = True  # It was told before this waiter could hear it.
        try:
            while True:
                engine.wait(waiter, deadline, started)
                started = None
                waiter.has_news = False
                run = waiter.run
                if run is not None:
                    waiter.run = None
                    executor.execute(run)
                elif waiter.is_done:
                    if self._is_alert:
                        self.demand_no_interruption()
                    return waiter
                elif self.must_stop(current) or (deadline is not None and self.now() >= deadline):
                    self._abandon(waiter)
                    if not (waiter.is_done and is_taking):
                        self.raise_interruption()
                    return waiter if waiter.is_done else None
        except BaseException:  # A handler of a signal raised, say: the core must not count on this thread any more.
            if not waiter.is_done:
                self._leave(waiter)
            raise
        finally:
            if was_busy:
                engine.busy[task_id] = None
            if task_id:
                executor.blocked.pop(task_id, None)
                if executor.environments.of_task:
                    executor.environments.put_on(task_id)
            del engine.waiters[waiter.waiter_id]

    def must_stop(self, current: Current) -> bool:
        """Whether a wait of this thread must end, whatever it waits for."""
        return (
            self.engine.end is not None
            or (self._interrupted and current.is_main)
            or current.task_id in self.executor.interruption.pending
        )

    def _abandon(self, waiter: Waiter) -> None:
        if self.engine.end is None:
            self._leave(waiter)
            self.engine.hear_now()

    def _leave(self, waiter: Waiter) -> None:
        engine = self.engine
        engine.mailbox.append(WaitAbandoned(waiter.waiter_id))
        run, waiter.run = waiter.run, None
        if run is not None:
            # It was given to this thread in the same moment; another one takes it.
            engine.runs.append(run)
            engine.on_run()

    def demand_no_interruption(self, held: tuple[int, ...] = ()) -> None:
        """Raise what came meanwhile, and drop the refs on the way to the caller, who will not get them.

        Raises:
            KeyboardInterrupt: Ctrl-C came.
            TaskCancelledError: The task of this thread was cancelled.
        """
        if not self._is_alert:
            return
        pending, task_id = self.executor.interruption.pending, self.executor.current.task_id
        if task_id in pending:
            del pending[task_id]
            self.released.extend(held)
            raise TaskCancelledError(f"Task {name_of(task_id)} was cancelled.")
        if self._interrupted and self.executor.current.is_main:
            self._interrupted = False
            self.released.extend(held)
            raise KeyboardInterrupt
        # Taken back before the look, so that what comes just now is not taken back with it, on whichever thread.
        self._is_alert = False
        if self._interrupted or pending:
            self._is_alert = True

    def raise_interruption(self) -> None:
        """Raise why a wait of this thread had to end, if it had to."""
        self.demand_no_interruption()
        self.demand_session()

    def cancel(self, object_id: int, *, is_recursive: bool, is_forced: bool = False) -> None:
        """Cancel the task that makes an object."""
        self.demand_session()
        if is_forced:
            demand_isolated(self.engine, object_id)
        self.engine.post(CancelRequested(object_id, is_recursive, is_forced))

    def cancel_later(self, task_id: int) -> None:
        """Cancel a generator that nobody takes items of any more; any thread, any time."""
        self.mailbox.append(CancelRequested(task_id, is_recursive=False))

    def allow_item(self, task_id: int) -> int:
        """The consumer of a generator took an item, so that one more may be made; returns its id, held once."""
        object_id = next(self._ids)
        self.engine.post_soon(StreamAdvanced(task_id, (object_id,)))
        return object_id

    def end_of(self, task_id: int, item_ids: tuple[int, ...], failure: Failure | None) -> int:
        """An object that is ready when a generator has ended (see the event); returns its id, held once."""
        object_id = next(self._ids)
        nothing = self.executor.store(object_id, self.pickling.dumps(None))
        self.engine.post_soon(StreamEndWanted(task_id, object_id, nothing, item_ids, failure))
        return object_id

    def demand_session(self) -> None:
        """Raise if the session is over."""
        end = self.engine.end
        if end is not None:
            raise SessionEndedError(
                end.failure
                or "The hpcfut session that this belongs to is over: shutdown() was called, or the script ended. Call "
                "init() for a new one; refs and values of the old one cannot be used there."
            )

    def interrupt(self) -> None:
        """Ctrl-C came while the main thread was inside hpcfut; it is raised at the boundary."""
        self._interrupted = self._is_alert = True
        for waiter in list(self.engine.waiters.values()):
            waiter.tell()

    def _alert(self) -> None:
        self._is_alert = True

    def disown(self) -> None:
        """This is a copy in a forked child: nothing here may be used, and nothing of it is told to anybody."""
        self.engine.end = EndJob(1, "", is_final=True)

    # -- the end -----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Be a worker on this thread until the session ends."""
        self.helper.start()
        self.engine.busy.pop(0, None)
        self.executor.serve(lambda: self.engine.end is not None, may_lead=True)

    def end_driver(self, status: int, *, is_final: bool) -> None:
        """The script of this rank, one of several, has ended: be a worker on this thread until those of all have."""
        engine = self.engine
        engine.post_now(DriverEnded(status, is_final))
        engine.busy.pop(0, None)
        self.executor.serve(lambda: engine.end is not None or self._interrupted, may_lead=True)
        self.demand_no_interruption()

    def stop(self, status: int, failure: str, *, is_final: bool) -> None:
        """The driver ends the session on all ranks."""
        self.engine.post_now(StopRequested(status, failure, is_final))
