"""The engine: it turns the core. Leader, followers, and who is woken when.

Theory of operation

Two locks. ``_lock`` guards the core, the transport and everything that effects touch; it is held for one turn at a
time, by anybody. ``_lead`` is held by the one thread that drives: it polls the transport, turn after turn, while it
waits for something of its own. Every other waiting thread is a follower and sleeps on its bell. A leader that leaves
(its wait is over, or it has a task to run) rings a follower, which then leads.

* A follower registers first and tries ``_lead`` then; a leader releases ``_lead`` first and looks for followers then.
  So one of them sees the other, and no wake-up is lost.
* Whoever has something to tell appends to the mailbox first and tries ``_lock`` then, and looks into the mailbox again
  after releasing it. So nothing stays in the mailbox while nobody holds the lock.
* A sleeping leader sleeps on its bell and without ``_lock``: who posts meanwhile turns the core, and rings it if that
  ended its wait.

A leader that finds nothing stays awake first: it spins if every rank of the host has a core, and yields if not. Then it
sleeps for growing times. It does not yield a core of its own, because on a machine that runs other programs besides it
would get the core back milliseconds later; a short sleep costs less. It sleeps at once while other threads of the rank
run user code, because it would hold the GIL against them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from itertools import count

from hpcfut.core.effects import (
    AnswerQuery,
    EndJob,
    ForgetTemplate,
    FreeSegment,
    InterruptTask,
    ResumeGenerator,
    RunTask,
    SendMessage,
    SendObject,
    StartRead,
    WakeWaiter,
)
from hpcfut.core.events import Event, FrameReceived, RankLost
from hpcfut.core.rank import RankCore
from hpcfut.core.turn import take_turn
from hpcfut.model.config import Config
from hpcfut.model.errors import CodecError, RankLostError
from hpcfut.ports import Clock, Transport, Window
from hpcfut.runtime.mailbox import Mailbox, drain
from hpcfut.runtime.movement import Movement
from hpcfut.runtime.waiter import Waiter
from hpcfut.wire.codec import decode_frame, encode_frame, session_of
from hpcfut.wire.messages import Message

#: While a thread has user code to run, its messages gather for this long.
FLUSH_EVERY_S = 0.0002
#: And it looks this often for frames.
POLL_EVERY_S = 0.00005
#: Submissions that follow each other faster than this share a turn.
GATHER_FOR_S = 0.0001
#: So long a leader that finds nothing stays awake.
AWAKE_FOR_S = 0.001
#: Then it sleeps for this share of the time for which it has found nothing, up to the longest sleep.
SLEEP_SHARE = 0.1
SLEEP_MAX_S = 0.001


class Engine:
    """Turns the core of one rank; any thread may call it."""

    def __init__(
        self,
        core: RankCore,
        transport: Transport,
        window: Window,
        clock: Clock,
        config: Config,
        *,
        session: int,
        may_spin: bool,
    ) -> None:
        self.core = core
        self.window = window
        self.mailbox: Mailbox = Mailbox()
        self.waiters: dict[int, Waiter] = {}
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
        self._transport = transport
        self._now = clock.now
        self._may_spin = may_spin
        self._session = session & 0xFF
        self._n_messages_frame_max = config.n_messages_frame_max
        self._lock = threading.Lock()
        self._lead = threading.Lock()
        self._followers: dict[int, Waiter] = {}
        self._waiter_ids = count(1)
        self._outboxes: dict[int, list[Message]] = {}
        self._flushed_at = 0.0
        self._turned_at = 0.0
        self._polled_at = 0.0
        self._movement = movement = Movement(core.context.rank, transport, window, self._send)
        # Looked up once: this is the task path.
        self._poll: Callable[[], Iterable[tuple[int, bytes | bytearray | memoryview]]] = transport.poll
        self._context = core.context
        self._load = core.scheduler.load
        self._perform: dict[type, Callable[..., None]] = {
            RunTask: self._run_task,
            WakeWaiter: self._wake,
            StartRead: movement.start_read,
            SendObject: movement.send_object,
            FreeSegment: movement.free_segment,
            InterruptTask: lambda effect: self.on_interrupt(effect.task_id),
            ResumeGenerator: lambda effect: self.on_resume(effect.task_id, effect.item_ids),
            ForgetTemplate: lambda effect: self.on_forget(effect.template_id),
            AnswerQuery: self._answer,
            EndJob: self._end,
        }

    def hear_first(self, frames: list[tuple[int, bytes]]) -> None:
        """Take frames of this session that came before it was opened here, before all others."""

        def poll() -> list[tuple[int, bytes]]:
            self._poll = self._transport.poll
            return frames

        self._poll = poll

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

    def hear(self) -> None:
        """See to it that what stands in the mailbox is heard at once."""
        self._settle(self._now())

    def _settle(self, now: float) -> None:
        while self.mailbox and self._lock.acquire(blocking=False):
            try:
                if self._is_closed:
                    self.mailbox.clear()
                    return
                self._turn(now, is_leaving=True)
            finally:
                self._lock.release()

    def post_now(self, event: Event) -> None:
        """Tell the core what happened; when this returns, it has been heard, and what it caused has been sent."""
        self.mailbox.append(event)
        self.hear_now()

    def hear_now(self) -> None:
        """When this returns, all that stood in the mailbox has been heard, and what it caused has been done."""
        with self._lock:
            self._turn(self._now())

    def close(self) -> None:
        """The session is over for this rank: from now on the transport belongs to whoever ends it."""
        with self._lock:
            self._is_closed = True
            self._outboxes.clear()
            self._movement.close()

    def tick(self, period_s: float) -> bool:
        """One turn, if nobody drives and there was none within the period; returns whether. Never runs user code."""
        if self._now() - self._turned_at < period_s or not self._lead.acquire(blocking=False):
            return False
        try:
            with self._lock:
                self._turn(self._now())
        finally:
            self._lead.release()
            self._pass_on()
        return True

    @property
    def is_driven(self) -> bool:
        """Whether some thread drives at the moment."""
        return self._lead.locked()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def new_waiter(self) -> Waiter:
        """A waiter that effects can find; ``forget`` it in the end."""
        waiter = Waiter(next(self._waiter_ids))
        self.waiters[waiter.waiter_id] = waiter
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """The wait is over."""
        del self.waiters[waiter.waiter_id]

    def wait(self, waiter: Waiter, deadline: float | None) -> None:
        """Drive, or follow who drives, until the waiter has news or the deadline has passed.

        What stands in the mailbox is heard in any case.
        """
        if not self._lead.acquire(blocking=False) and not self._follow(waiter, deadline):
            return
        self.leader = waiter
        try:
            self._drive(waiter, deadline)
        finally:
            self.leader = None
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
                continue
            if not idle_since:
                idle_since = now
            if self.busy:
                waiter.sleep(self._until(now, SLEEP_MAX_S / 2, deadline))
                continue
            idle_s = now - idle_since
            # Frames or data that are under way move only while this rank polls.
            if idle_s < AWAKE_FOR_S or self._transport.is_busy:
                if not self._may_spin or idle_s >= AWAKE_FOR_S:
                    os.sched_yield()
                continue
            waiter.sleep(self._until(now, min(SLEEP_SHARE * idle_s, SLEEP_MAX_S), deadline))

    def _until(self, now: float, sleep_s: float, deadline: float | None) -> float:
        """Not longer than until the deadline of the wait or of the core."""
        sleep_s = min(sleep_s, self._context.due_at - now)
        if deadline is not None:
            sleep_s = min(sleep_s, deadline - now)
        return max(sleep_s, 0.0)

    # -- one turn (with the lock) --------------------------------------------------------------------------------------

    def _turn(self, now: float, *, is_leaving: bool = False) -> bool:
        """Take everything in, tell the core, do what it wants; returns whether there was anything.

        A thread that has user code to run next lets its messages gather for a moment, so that they share frames, and
        does not look for frames that often.
        """
        if self._is_closed:
            return False
        self._turned_at = now
        events = drain(self.mailbox) if self.mailbox else []
        if not is_leaving or now - self._polled_at > POLL_EVERY_S:
            self._polled_at = now
            movement = self._movement
            try:
                for source, frame in self._poll():
                    self._decode(source, frame, events)
                if movement.reads or movement.sends:
                    events += movement.take_completed()
            except RankLostError as error:
                events.append(RankLost(error.rank, error.reason))
        if events or now >= self._context.due_at:
            self._tell(events, now)
        if self._outboxes and not ((is_leaving or self.runs) and now - self._flushed_at < FLUSH_EVERY_S):
            self._flush(now)
        return bool(events)

    def _tell(self, events: list[Event], now: float) -> None:
        effects = take_turn(self.core, events, now)
        while effects:
            for effect in effects:
                if type(effect) is SendMessage:
                    self._send(effect.rank, effect.message)
                else:
                    self._perform[type(effect)](effect)
            denied = self._movement.denied
            if not denied:
                return
            self._movement.denied = []
            effects = take_turn(self.core, denied, now)

    def _decode(self, source: int, frame: bytes | bytearray | memoryview, events: list[Event]) -> None:
        if session_of(frame) != self._session:
            self._context.count_stale("frame of another session")
            return
        try:
            load, messages = decode_frame(frame)
        except CodecError as error:
            events.append(RankLost(source, f"it sent something that cannot be understood. {error}"))
            return
        events.append(FrameReceived(source, load, messages))

    def _send(self, rank: int, message: Message) -> None:
        """Put a message into the next frame for the rank."""
        outbox = self._outboxes.get(rank)
        if outbox is None:
            self._outboxes[rank] = [message]
            return
        outbox.append(message)
        if len(outbox) >= self._n_messages_frame_max:
            self._transport.send(rank, encode_frame(self._load(), self._outboxes.pop(rank), self._session))

    def _flush(self, now: float) -> None:
        load = self._load()
        for rank, messages in self._outboxes.items():
            self._transport.send(rank, encode_frame(load, messages, self._session))
        self._outboxes.clear()
        self._flushed_at = now

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
        for waiter in list(self.waiters.values()):
            waiter.tell()
