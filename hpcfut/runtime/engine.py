"""The engine: it turns the core. Leader, followers, and who is woken when.

Theory of operation

Two locks. ``_lock`` guards the core, the transport and everything that effects touch; it is held for one turn at a
time, by anybody. ``_lead`` is held by the one thread that drives: it polls the transport, turn after turn, while it
waits for something of its own. Every other waiting thread is a follower and sleeps on its bell. A leader that leaves
(its wait is over, or it has a task to run) rings a follower, which then leads.

* A follower registers first and tries ``_lead`` then; a leader releases ``_lead`` first and looks for followers then.
  So one of them sees the other, and no wake-up is lost.
* Whoever has something to tell appends to the mailbox first and tries ``_lock`` then, and looks into the mailbox again
  after releasing it. So nothing stays in the mailbox while nobody holds the lock, but for submissions that follow each
  other closely (``post_soon``) and releases of refs: these wait for the next turn, the helper's at the latest.
* A sleeping leader does not hold ``_lock``: who posts meanwhile turns the core, and rings it if that ended its wait.

A leader that finds nothing stays awake for a moment, unless other threads need the GIL for user code. It yields its
core meanwhile only if ranks share cores, because others may keep that for milliseconds. Then it sleeps (``rest.py``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import count
from typing import Final

from hpcfut.core.effects import (
    AnswerQuery,
    Effect,
    EndJob,
    ForgetTemplate,
    FreeSegment,
    InterruptTask,
    ResumeGenerator,
    RunTask,
    SendMessage,
    SendObject,
    StartRead,
    TellWatcher,
    WakeWaiter,
)
from hpcfut.core.events import Event, RankLost, RefsReleased
from hpcfut.core.rank import RankCore
from hpcfut.core.turn import take_turn
from hpcfut.model.errors import RankLostError
from hpcfut.ports import Clock, Doorbell, Transport, Window
from hpcfut.runtime.fatal import end_rank
from hpcfut.runtime.frames import Frames
from hpcfut.runtime.mailbox import Mailbox, drain
from hpcfut.runtime.movement import Movement
from hpcfut.runtime.reentry import demand_outside
from hpcfut.runtime.rest import Rest
from hpcfut.runtime.waiter import Waiter
from hpcfut.runtime.watchers import Watchers

#: While a thread has user code to run, its messages gather for this long.
FLUSH_EVERY_S = 0.0002
#: And it looks this often for frames.
POLL_EVERY_S = 0.00005
#: Submissions that follow each other faster than this share a turn.
GATHER_FOR_S = 0.0001
#: Refs that went away are told to the core this often even if no turn is idle.
RELEASE_WITHIN_S = 0.001
#: So long a leader that finds nothing stays awake: a round trip; what it was rung for may take as long.
AWAKE_FOR_S = 0.00005


class Engine:
    """Turns the core of one rank; any thread may call it."""

    def __init__(
        self,
        core: RankCore,
        transport: Transport,
        window: Window,
        clock: Clock,
        doorbell: Doorbell,
        *,
        session: int,
        may_spin: bool,
    ) -> None:
        self.core = core
        self.window = window
        self.mailbox: Mailbox = Mailbox()
        self.waiters: dict[int, Waiter] = {}
        self.watchers = Watchers()
        #: Tasks to run on executor threads.
        self.runs: list[RunTask] = []
        #: Set once, when the session is over.
        self.end: EndJob | None = None
        self.answers: dict[int, AnswerQuery] = {}
        #: What executors do about these effects; they are bound in ``bootstrap.py``.
        self.on_run: Callable[[], None] = lambda: None
        self.on_forget: Callable[[int], None] = lambda template_id: None
        self.on_interrupt: Callable[[int], None] = lambda task_id: None
        self.on_resume: Callable[[int, tuple[int, ...]], None] = lambda task_id, item_ids: None
        #: Called when the thread that drove leaves to run user code.
        self.on_leave: Callable[[], None] = lambda: None
        #: Called once, when the session is over.
        self.on_end: Callable[[], None] = lambda: None
        self._is_closed = False
        #: Tasks, and drivers (as 0), that run user code now; a leader does not spin against them.
        self.busy: dict[int, None] = {}
        #: The waiter of the thread that drives.
        self.leader: Waiter | None = None
        self.rest = Rest(doorbell, transport, core.context, clock, self.busy)
        self._transport = transport
        self._now = clock.now
        self.may_spin = may_spin
        self._lock = threading.Lock()
        self._lead = threading.Lock()
        self._followers: dict[int, Waiter] = {}
        self.waiter_ids = count(1)
        self._flushed_at = 0.0
        #: Refs that went away and wait for a turn with nothing else to do.
        self._released: list[int] = []
        self._released_at = 0.0
        self._turned_at = 0.0
        self._polled_at = 0.0
        self._context = core.context
        self.frames = Frames(core.context, transport, session, core.scheduler.load)
        self.movement = movement = Movement(core.context.rank, transport, window, self.frames.send)
        self._perform: dict[type, Callable[..., None]] = {
            RunTask: self._run_task,
            WakeWaiter: self._wake,
            TellWatcher: self.watchers.tell,
            StartRead: movement.start_read,
            SendObject: movement.send_object,
            FreeSegment: movement.free_segment,
            InterruptTask: lambda effect: self.on_interrupt(effect.task_id),
            ResumeGenerator: lambda effect: self.on_resume(effect.task_id, effect.item_ids),
            ForgetTemplate: lambda effect: self.on_forget(effect.template_id),
            AnswerQuery: self._answer,
            EndJob: self._end,
        }

    # -- telling the core ----------------------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Tell the core what happened; returns as soon as somebody is sure to hear it at once."""
        self.mailbox.append(event)
        self._settle(self._now())

    def post_soon(self, event: Event) -> None:
        """Tell the core what happened; it is heard within a helper's period, and many such events cost one turn."""
        self.mailbox.append(event)
        now = self._now()
        if now - self._turned_at > GATHER_FOR_S:
            self._settle(now)
        elif self.rest.wakes_at:
            self.rest.ring()

    def hear(self) -> None:
        """See to it that what stands in the mailbox is heard at once."""
        self._settle(self._now())

    def _settle(self, now: float, *, is_leaving: bool = True) -> None:
        while self.mailbox and self._lock.acquire(blocking=False):
            try:
                if self._is_closed:
                    self.mailbox.clear()
                    return
                self._turn(now, is_leaving=is_leaving)
            finally:
                self._lock.release()
            if self._context.due_at < self.rest.wakes_at:
                self.rest.ring()

    def post_now(self, event: Event) -> None:
        """Tell the core what happened; when this returns, it has been heard, and what it caused has been sent."""
        self.mailbox.append(event)
        self.hear_now()

    def hear_now(self) -> None:
        """When this returns, all that stood in the mailbox has been heard, and what it caused has been done."""
        if self._lock.locked():
            demand_outside(_CODES)
        with self._lock:
            self._turn(self._now(), is_complete=True)
        self._settle(self._now())

    def close(self) -> None:
        """The session is over for this rank: from now on the transport belongs to whoever ends it."""
        with self._lock:
            self._is_closed = True
            self.frames.outboxes.clear()
            self.movement.close()

    def tick(self, period_s: float) -> bool:
        """One turn, if nobody drives and there was none within the period; returns whether. Never runs user code."""
        if not self.try_lead(period_s):
            return False
        try:
            self.look()
        finally:
            self.leave_lead()
        return True

    def try_lead(self, period_s: float) -> bool:
        """Take the lead, if nobody drives and there was no turn within the period; returns whether."""
        return self._now() - self._turned_at >= period_s and self._lead.acquire(blocking=False)

    def look(self) -> bool:
        """One turn; returns whether there was anything."""
        with self._lock:
            return self._turn(self._now())

    def leave_lead(self) -> None:
        """To be called by who has led."""
        self._lead.release()
        self._pass_on()

    @property
    def is_driven(self) -> bool:
        """Whether some thread drives at the moment."""
        return self._lead.locked()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def new_waiter(self) -> Waiter:
        """A waiter that effects can find; ``forget`` it in the end."""
        waiter = Waiter(next(self.waiter_ids))
        self.waiters[waiter.waiter_id] = waiter
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """The wait is over."""
        del self.waiters[waiter.waiter_id]

    def wait(self, waiter: Waiter, deadline: float | None, event: Event | None = None) -> None:
        """Drive, or follow who drives, until the waiter has news or the deadline has passed.

        What stands in the mailbox is heard in any case. ``event``, which begins the wait, is told after that, so that
        tasks that were submitted just before are under way meanwhile.
        """
        if self._lock.locked() or self._lead.locked():
            demand_outside(_CODES)
        if event is not None:
            if self.mailbox:
                self._settle(self._now(), is_leaving=False)
            self.mailbox.append(event)
        if not self._lead.acquire(blocking=False) and not self._follow(waiter, deadline):
            return
        self.leader = waiter
        try:
            self._drive(waiter, deadline)
        finally:
            self.leader = None
            self.rest.end()
            self._lead.release()
            if self._followers:
                self._pass_on()
            self.on_leave()

    def _follow(self, waiter: Waiter, deadline: float | None) -> bool:
        """Wait while others drive; true if this thread is to drive now, and holds ``_lead``."""
        followers = self._followers
        followers[waiter.waiter_id] = waiter
        try:
            while True:
                if self._lead.acquire(blocking=False):
                    return True
                self._settle(self._now())
                timeout_s = -1.0
                if deadline is not None:
                    timeout_s = deadline - self._now()
                if waiter.has_news or (deadline is not None and timeout_s <= 0):
                    break
                waiter.sleep(timeout_s)
        finally:
            del followers[waiter.waiter_id]
        self._pass_on()
        self.on_leave()
        return False

    def _pass_on(self) -> None:
        """Ring one follower, if nobody drives: it will find that out by itself."""
        if self._followers and not self._lead.locked():
            for waiter in list(self._followers.values()):
                waiter.ring()
                return

    def _drive(self, waiter: Waiter, deadline: float | None) -> None:
        idle_since = 0.0
        lock, now_of, turn = self._lock, self._now, self._turn
        while True:
            now = now_of()
            with lock:
                was_busy = turn(now)
            if waiter.has_news or (deadline is not None and now >= deadline):
                return
            if was_busy:
                idle_since = 0.0
                self.rest.end()
                continue
            if not idle_since:
                idle_since = now
            idle_s = now - idle_since
            if idle_s < AWAKE_FOR_S and not self.busy:
                if not self.may_spin:
                    os.sched_yield()
            elif self.rest.pause(waiter, idle_s, deadline):
                idle_since = 0.0

    # -- one turn (with the lock) --------------------------------------------------------------------------------------

    def _turn(self, now: float, *, is_leaving: bool = False, is_complete: bool = False) -> bool:
        """Take everything in, tell the core, do what it wants; returns whether there was anything.

        A thread that has user code to run next lets its messages gather for a moment, so that they share frames. What
        this rank has to say itself comes before the look for frames, which others wait for. A complete turn leaves
        nothing for the next one.
        """
        if self._is_closed:
            return False
        self._turned_at = now
        try:
            events = drain(self.mailbox, self._released) if self.mailbox else []
            if not (is_leaving or events) or is_complete or now - self._polled_at > POLL_EVERY_S:
                self._polled_at = now
                self._receive(events)
            if self._released and (not events or is_complete or now - self._released_at > RELEASE_WITHIN_S):
                self._released_at = now
                events.append(RefsReleased(self._released))
                self._released = []
            if events or now >= self._context.due_at:
                self._tell(events, now)
            may_gather = (is_leaving or self.runs) and not is_complete and now - self._flushed_at < FLUSH_EVERY_S
            if self.frames.outboxes and not may_gather:
                self._flushed_at = now
                self.frames.flush()
        except RankLostError as error:  # Found in sending; what else was to be sent does not matter any more.
            self.mailbox.append(RankLost(error.rank, error.reason))
            return True
        except Exception:
            # Effects are lost, so whoever caught this and went on would wait for ever.
            end_rank("its engine")
        return bool(events)

    def _receive(self, events: list[Event]) -> None:
        movement = self.movement
        try:
            self.frames.receive(events)
            if movement.reads or movement.sends:
                events += movement.take_completed()
        except RankLostError as error:
            events.append(RankLost(error.rank, error.reason))

    def _tell(self, events: list[Event], now: float) -> None:
        effects = take_turn(self.core, events, now)
        while effects:
            self._do(effects)
            denied = self.movement.denied
            if not denied:
                return
            self.movement.denied = []
            effects = take_turn(self.core, denied, now)

    def _do(self, effects: list[Effect]) -> None:
        send = self.frames.send
        for effect in effects:
            if type(effect) is SendMessage:
                send(effect.rank, effect.message)
            else:
                self._perform[type(effect)](effect)

    # -- effects -----------------------------------------------------------------------------------------------------

    def _run_task(self, effect: RunTask) -> None:
        waiter = self.waiters.get(effect.waiter_id)
        if waiter is None:
            self.runs.append(effect)
            self.on_run()
        else:
            waiter.run = effect
            waiter.tell()

    def _wake(self, effect: WakeWaiter) -> None:
        waiter = self.waiters[effect.waiter_id]
        waiter.object_ids = effect.object_ids
        waiter.values = effect.values
        waiter.is_done = True
        waiter.tell()

    def _answer(self, effect: AnswerQuery) -> None:
        self.answers[effect.query_id] = effect
        for waiter in list(self.waiters.values()):
            waiter.tell()

    def _end(self, effect: EndJob) -> None:
        self.end = effect
        self.on_end()
        self.watchers.end()
        for waiter in list(self.waiters.values()):
            waiter.tell()


_CODES: Final = frozenset(function.__code__ for function in vars(Engine).values() if hasattr(function, "__code__"))
