"""Turns: what happened is gathered and told to the core, and what it wants is done.

A turn is taken with the engine's lock, by whichever thread has it (``engine.py`` says which). Nothing in it runs user
code, unpickles or waits.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from hpcfut.core.effects import (
    OF_ARRIVALS,
    AnswerName,
    AnswerQuery,
    CloseArgument,
    DenyRoom,
    DropActor,
    DropSpilled,
    Effect,
    EndJob,
    ForgetArena,
    ForgetTemplate,
    FreeSegment,
    GiveRoom,
    InterruptTask,
    ReadSource,
    RestoreObject,
    ResumeGenerator,
    RunTask,
    SendMessage,
    SendObject,
    SpillObjects,
    StartRead,
    TellWatcher,
    Value,
    WakeWaiter,
)
from hpcfut.core.events import Event, RankLost, RefsReleased, RunReturned, ViewsClosed
from hpcfut.core.rank import RankCore
from hpcfut.model.errors import FrameRefusedError, RankLostError
from hpcfut.model.failure import Failure
from hpcfut.model.place import Place
from hpcfut.ports import SpillStore, Transport, Window
from hpcfut.runtime.fatal import end_rank
from hpcfut.runtime.frames import Frames
from hpcfut.runtime.mailbox import Mailbox, Released, drain
from hpcfut.runtime.movement import Movement
from hpcfut.runtime.open_arguments import OpenArguments, open_view
from hpcfut.runtime.spilling import Spilling
from hpcfut.runtime.waiter import Waiter
from hpcfut.runtime.watchers import Watchers

#: While a thread has user code to run, its messages gather for this long.
FLUSH_EVERY_S = 0.0002
#: And it looks this often for frames.
POLL_EVERY_S = 0.0001
#: Refs that went away are told to the core this often even if no turn is idle.
RELEASE_WITHIN_S = 0.001


class Turns:
    """The core of one rank, what it is told, and what performs its effects."""

    def __init__(
        self,
        core: RankCore,
        transport: Transport,
        window: Window,
        *,
        session: int,
        open_store: Callable[[], SpillStore],
        post: Callable[[Event], None],
    ) -> None:
        self.core = core
        self.window = window
        self.mailbox: Mailbox = Mailbox()
        #: Refs that user code dropped.
        self.released: Released = Released()
        #: Objects whose bytes a value of user code was built over that is gone.
        self.closed = window.released
        self.waiters: dict[int, Waiter] = {}
        self.watchers = Watchers()
        #: Tasks to run on executor threads.
        self.runs: list[RunTask] = []
        #: The executor threads that have nothing to do, the one that became so last at the end.
        self.idle: dict[int, Waiter] = {}
        #: The waiter of the thread that drives.
        self.leader: Waiter | None = None
        #: The waiter of the thread that asks for its next run.
        self._taker: Waiter | None = None
        #: Set once, when the session is over.
        self.end: EndJob | None = None
        self.answers: dict[int, AnswerQuery | AnswerName] = {}
        #: What executors do about these effects; they are bound in ``executor.py``.
        self.on_run: Callable[[], None] = lambda: None
        self.on_forget: Callable[[int], None] = lambda template_id: None
        self.on_interrupt: Callable[[int, bool], None] = lambda task_id, is_forced: None
        self.on_resume: Callable[[int, int, tuple[int, ...]], None] = lambda task_id, position, item_ids: None
        #: Has an array read from its source; bound in ``sources.py``.
        self.on_read_source: Callable[[ReadSource], None] = lambda effect: None
        #: What is done for ranks that join; bound in ``recruiting.py``.
        self.on_arrival: Callable[[Effect], None] = lambda effect: None
        #: What the homes of actors do about these; bound in ``residents.py``.
        self.on_actor_run: Callable[[RunTask, Waiter | None, Waiter | None], None]
        self.on_drop_actor: Callable[[int], None]
        #: Called once, when the session is over.
        self.on_end: Callable[[], None] = lambda: None
        self._is_closed = False
        #: Whether messages wait for others to share their frames.
        self._is_gathering = False
        self._flushed_at = 0.0
        self._released_at = 0.0
        self._turned_at = self._polled_at = 0.0
        #: Ranks of which the transport knows that they are dead; and how many of them the core has been told of.
        self._deaths = transport.deaths
        self._n_deaths_told = 0
        self._context = core.context
        self.open_arguments = OpenArguments(window)
        self.frames = Frames(core.context, transport, session, core.scheduler.load)
        self.movement = Movement(transport, window, core.context, self.frames.send)
        self.spilling = Spilling(open_store, window, post)
        self._perform = self._performers()

    def _performers(self) -> dict[type, Callable[..., None]]:
        movement, spilling = self.movement, self.spilling
        return {
            RunTask: self._run_task,
            CloseArgument: self.open_arguments.close,
            WakeWaiter: self._wake,
            TellWatcher: self._tell_watcher,
            StartRead: movement.start_read,
            SendObject: movement.send_object,
            FreeSegment: movement.free_segment,
            ForgetArena: lambda effect: self.window.forget(effect.rank),
            SpillObjects: spilling.spill,
            RestoreObject: spilling.restore,
            DropSpilled: spilling.drop,
            ReadSource: lambda effect: self.on_read_source(effect),
            **dict.fromkeys(OF_ARRIVALS, lambda effect: self.on_arrival(effect)),
            GiveRoom: self._give_room,
            DenyRoom: self._deny_room,
            InterruptTask: lambda effect: self.on_interrupt(effect.task_id, effect.is_forced),
            ResumeGenerator: lambda effect: self.on_resume(effect.task_id, effect.position, effect.item_ids),
            ForgetTemplate: lambda effect: self.on_forget(effect.template_id),
            DropActor: lambda effect: self.on_drop_actor(effect.actor_id),
            AnswerQuery: self._answer,
            AnswerName: self._answer,
            EndJob: self._end,
        }

    def _turn(
        self, now: float, *, is_leaving: bool = False, is_complete: bool = False, then: Event | None = None
    ) -> bool:
        """Take everything in, tell the core, do what it wants; returns whether there was anything.

        A thread that has user code to run next lets its messages gather for a moment, so that they share frames. What
        this rank has to say itself comes before the look for frames, which others wait for. A complete turn leaves
        nothing for the next one. ``then`` is told when all that has left.
        """
        if self._is_closed:
            return False
        self._turned_at = now
        context = self._context
        try:
            n_released, n_closed = len(self.released), len(self.closed)
            events = drain(self.mailbox) if self.mailbox else []
            if not (is_leaving or events) or is_complete or now - self._polled_at > POLL_EVERY_S:
                self._polled_at = now
                self._receive(events)
            if n_released and (not events or is_complete or now - self._released_at > RELEASE_WITHIN_S):
                self._released_at = now
                pop = self.released.popleft
                events.append(RefsReleased([pop() for _ in range(n_released)]))
            if n_closed:
                pop = self.closed.popleft
                events.append(ViewsClosed([pop() for _ in range(n_closed)]))
            self._is_gathering = is_leaving and now - self._flushed_at < FLUSH_EVERY_S
            if events or context.put_off or now >= context.due_at:
                self.core.turn(events, now, self._do)
                while is_complete and context.put_off:
                    self.core.turn((), now, self._do)
            elif self.frames.outboxes and not self._is_gathering:
                self._flushed_at = now
                self.frames.flush()
            if then is not None:
                self.core.turn((then,), now, self._do)
        except RankLostError as error:  # Found in sending; what else was to be sent does not matter any more.
            self.mailbox.append(RankLost(error.rank, error.reason))
            return True
        except FrameRefusedError as error:
            self._end_turn(error, now)
            return True
        except Exception:
            # Effects are lost, so whoever caught this and went on would wait for ever.
            end_rank("its engine")
        return bool(events)

    def _end_turn(self, refused: FrameRefusedError, now: float) -> None:
        try:
            self.core.end_turn(refused, now, self._do)
            self.frames.flush()
        except RankLostError as error:
            self.mailbox.append(RankLost(error.rank, error.reason))
        except Exception:
            end_rank("its engine")

    def _end_run(self, event: RunReturned, now: float) -> bool:
        """A turn for a run's end alone; false if the turn must be a whole one, and nothing has been done."""
        context = self._context
        if self._is_closed or context.put_off or now >= context.due_at or now - self._polled_at > POLL_EVERY_S:
            return False
        self._turned_at = now
        self._is_gathering = now - self._flushed_at < FLUSH_EVERY_S
        try:
            self._do(self.core.end_run(event, now))
        except RankLostError as error:
            self.mailbox.append(RankLost(error.rank, error.reason))
        except Exception:
            end_rank("its engine")
        return True

    def _flush(self) -> None:
        try:
            self.frames.flush()
        except RankLostError as error:  # What else was to be sent does not matter any more.
            self.mailbox.append(RankLost(error.rank, error.reason))

    def _receive(self, events: list[Event]) -> None:
        movement = self.movement
        try:
            self.frames.receive(events)
            if len(self._deaths) > self._n_deaths_told:
                self._tell_deaths(events)
            if movement.reads or movement.sends:
                events += movement.take_completed()
        except RankLostError as error:
            events.append(RankLost(error.rank, error.reason))

    def _tell_deaths(self, events: list[Event]) -> None:
        """Tell of deaths that the transport has found; those of an earlier session are told at the first look."""
        events += [RankLost(rank, reason) for rank, reason in islice(self._deaths.items(), self._n_deaths_told, None)]
        self._n_deaths_told = len(self._deaths)

    def _do(self, effects: list[Effect]) -> None:
        frames, perform = self.frames, self._perform
        outboxes = frames.outboxes
        for effect in effects:
            if type(effect) is SendMessage:
                outbox = outboxes.get(effect.rank)
                if outbox is None:
                    outboxes[effect.rank] = [effect.message]
                else:
                    outbox.append(effect.message)
                    if len(outbox) >= frames.n_messages_max:
                        frames.push(effect.rank)
            else:
                perform[type(effect)](effect)
        if outboxes and not self._is_gathering:
            self._flushed_at = self._context.now
            frames.flush()

    # -- effects -----------------------------------------------------------------------------------------------------

    def _run_task(self, effect: RunTask) -> None:
        if effect.places:
            effect.places = self.open_arguments.of(effect.places)
        if effect.actor_id:
            self.on_actor_run(effect, self._taker, self.leader)
            return
        # A thread that waits runs it on its stack; else the thread that is at hand does, if it is idle.
        if effect.waiter_id:
            waiter = self.waiters.get(effect.waiter_id)
        else:
            waiter = self._taker or self.leader
            if waiter is not None and self.idle.pop(waiter.waiter_id, None) is None:
                waiter = None
        if waiter is None:
            self.runs.append(effect)
            self.on_run()
            return
        waiter.run = effect
        if waiter is not self._taker:
            waiter.tell()

    def _wake(self, effect: WakeWaiter) -> None:
        waiter = self.waiters.get(effect.waiter_id)
        # Every view is opened, so that it is closed some time, if only here.
        values = self._with_views(effect.values) if effect.has_places else effect.values
        if waiter is None:
            return  # Its thread was struck by an exception meanwhile.
        waiter.object_ids = effect.object_ids
        waiter.values = values
        waiter.is_done = True
        waiter.tell()

    def _tell_watcher(self, effect: TellWatcher) -> None:
        values = self._with_views(effect.values) if effect.has_places else effect.values
        self.watchers.tell(effect.watch_id, effect.object_ids, values, is_last=effect.is_last)

    def _with_views(self, values: list[Value]) -> list[Any]:
        return [self._open(value) if type(value) is Place else value for value in values]

    def _open(self, place: Place) -> memoryview | Failure:
        view = open_view(self.window, place)
        if type(view) is Failure:
            self.closed.append(place.object_id)
        return view

    def _give_room(self, effect: GiveRoom) -> None:
        waiter = self.waiters.get(effect.waiter_id)
        if waiter is not None:  # Else its thread was struck by an exception meanwhile, and says so.
            waiter.values = [effect.offset]
            waiter.is_done = True
            waiter.tell()

    def _deny_room(self, effect: DenyRoom) -> None:
        waiter = self.waiters.get(effect.waiter_id)
        if waiter is not None:
            waiter.values = [effect.failure]
            waiter.is_done = True
            waiter.tell()

    def _answer(self, effect: AnswerQuery | AnswerName) -> None:
        self.answers[effect.query_id] = effect
        for waiter in list(self.waiters.values()):
            waiter.tell()

    def _end(self, effect: EndJob) -> None:
        self.end = effect
        self.on_end()
        self.watchers.end()
        for waiter in list(self.waiters.values()):
            waiter.tell()
