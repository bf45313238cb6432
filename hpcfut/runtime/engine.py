"""The engine: it turns the core. Leader, followers, and who is woken when.

Theory of operation

Two locks. ``_lock`` guards the core, the transport and everything that effects touch; it is held for one turn at a
time, by anybody. ``_lead`` is held by the one thread that drives: it polls the transport, turn after turn, while it
waits for something of its own. Every other waiting thread is a follower and sleeps on its bell. A leader that leaves
(its wait is over, or it has a task to run) rings a follower, which then leads.

A worker has several threads that run what comes: its main thread, and those of actors. One of them has the *baton*: who
ran something last. It leads while it has nothing to run, so that the next call of the same actor, or the next task,
arrives on the thread that runs it. The others are no followers: they sleep on their bells until they are given a run.
Who is given one takes the baton, and tells who had it, which then sleeps as well. While the holder runs user code the
helper stands in. Spare threads never have it, nor has anybody where a driver has the main thread.

* The baton always names a living thread: one that ends gives it to the main thread. A holder looks whether it still is
  one after it has taken back ``has_news``, and whoever takes the baton tells it after that. So no thread leads for long
  without the baton, and the one that has it leads, or follows a thread that waits for something, or runs user code.

* A follower registers first and tries ``_lead`` then; a leader releases ``_lead`` first and looks for followers then.
  So one of them sees the other, and no wake-up is lost.
* Whoever has something to tell appends to the mailbox first and tries ``_lock`` then, and looks into the mailbox again
  after releasing it. So nothing stays in the mailbox while nobody holds the lock, but for submissions that follow each
  other closely (``post_soon``) and releases of refs: these wait for the next turn, the helper's at the latest.
* A sleeping leader does not hold ``_lock``: who posts meanwhile turns the core, and rings it if that ended its wait.

A leader that finds nothing stays awake for a moment, unless other threads need the GIL for user code. It yields its
core meanwhile only if there are fewer cores than ranks, because others may keep that for milliseconds. If it has woken
another rank (``Rest.makes_way``), it stays awake for longer where no rank can need its core, and else not at all. Then
it sleeps (``rest.py``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from math import inf
from typing import Final

from hpcfut.core.effects import RunTask
from hpcfut.core.events import Event, RunReturned
from hpcfut.core.rank import RankCore
from hpcfut.model.errors import RankLostError
from hpcfut.model.failure import Failure
from hpcfut.ports import Clock, SpillStore, Transport, Window
from hpcfut.runtime.hearing import Hearing
from hpcfut.runtime.reentry import demand_outside
from hpcfut.runtime.rest import Rest
from hpcfut.runtime.turns import Turns
from hpcfut.runtime.waiter import Waiter

#: Submissions that follow each other faster than this share a turn.
GATHER_FOR_S = 0.0001
#: So long a leader that finds nothing stays awake: a round trip; what it was rung for may take as long.
AWAKE_FOR_S = 0.00005
#: And where every rank has a core: a round trip to a rank that must be woken first.
SPIN_FOR_S = 0.00015
#: And for a rank that it has woken after a while, on cores of its own: a round trip while the caches of both are cold.
AWAKE_FOR_WOKEN_S = 0.0006


class Engine(Turns):
    """Turns the core of one rank; any thread may call it."""

    def __init__(
        self,
        core: RankCore,
        transport: Transport,
        window: Window,
        clock: Clock,
        hearing: Hearing,
        *,
        session: int,
        may_spin: bool,
        has_own_cores: bool,
        open_store: Callable[[], SpillStore],
    ) -> None:
        super().__init__(core, transport, window, session=session, open_store=open_store, post=self.post)
        #: Called when the thread that drove leaves to run user code.
        self.on_leave: Callable[[], None] = lambda: None
        #: Tasks, and drivers (as 0), that run user code now; a leader does not spin against them.
        self.busy: dict[int, None] = {}
        self.rest = Rest(hearing, transport, self.frames, core.context, clock, self.busy, self.movement)
        self._transport = transport
        self._now = self.now = clock.now
        self.may_spin = may_spin
        self._awake_for_s = SPIN_FOR_S if may_spin else AWAKE_FOR_S
        self._awake_for_woken_s = AWAKE_FOR_WOKEN_S if has_own_cores else 0.0
        self._lock = threading.Lock()
        self._lead = threading.Lock()
        self._followers: dict[int, Waiter] = {}
        #: Who leads while it has nothing to run, and who does if nobody else wants to; none where a driver is.
        self.baton: Waiter | None = None
        self._main: Waiter | None = None
        self.waiter_ids = count(1)

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
            if self.rest.wakes_at:
                self._wake_for_what_is_left()
        if self.mailbox and self.rest.wakes_at:
            # Whoever has the lock may have emptied the mailbox before, in its last look before it sleeps.
            self.rest.ring()

    def _wake_for_what_is_left(self) -> None:
        """The last turn may have left something for the next one, and whoever would take that sleeps."""
        context, rest = self._context, self.rest
        is_left = self.frames.outboxes or context.put_off or context.due_at < rest.wakes_at < inf
        if is_left or self._transport.is_busy:
            rest.ring()

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
        if self.rest.wakes_at:
            self._wake_for_what_is_left()

    def open_at_hand(self, object_id: int) -> memoryview | None:
        """A view of a stored object that the caller holds a ref to, if a wait for it would be over at once."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            place = None if self._is_closed else self.core.waits.open_at_hand(object_id)
            view = None if place is None else self._open(place)
        finally:
            self._lock.release()
        if self.mailbox:
            self._settle(self._now())
        return None if isinstance(view, Failure) else view

    def take_run(self, waiter: Waiter) -> RunTask | None:
        """What a turn has given to this executor thread, or is about to, as it is not idle any more."""
        with self._lock:
            run, waiter.run = waiter.run, None
        return run

    def next_run(self, event: Event, waiter: Waiter) -> RunTask | None:
        """Tell the core how a run ended; returns what this executor thread runs next, and else notes that it is idle.

        The task path of a rank that has work: nothing is queued for a thread to be found, told and woken. A thread
        that gets no run drives, or else calls ``leave_rest``.
        """
        with self._lock:
            now = self._now()
            waiter.pool[waiter.waiter_id] = self._taker = waiter  # type: ignore[index]
            if type(event) is not RunReturned or self.mailbox or not self._end_run(event, now):
                self.mailbox.append(event)
                self._turn(now, is_leaving=True)
            self._taker = None
            run, waiter.run = waiter.run, None
            if run is None and self.frames.outboxes:
                self._flush()
        if self.mailbox:
            self._settle(self._now())
        elif run is not None and self.rest.wakes_at:
            self._wake_for_what_is_left()
        return run

    def begin_to_lead(self, waiter: Waiter) -> None:
        """The main thread of a worker runs what comes from now on, and has the baton at first."""
        self.baton = self._main = waiter

    def take_baton(self, waiter: Waiter) -> None:
        """The calling thread has been given something to run."""
        holder = self.baton
        if holder is not None and holder is not waiter:
            self.baton = waiter
            holder.tell()

    def leave_baton(self, waiter: Waiter) -> None:
        """The calling thread ends."""
        if self.baton is waiter and self._main is not None:
            self.baton = self._main
            self._main.tell()

    def leave_rest(self) -> None:
        """The calling thread has run a task and does not drive: see to it that whoever sleeps does so instead."""
        if self.rest.is_deaf and self.rest.wakes_at:
            self.rest.ring()
        elif self.rest.wakes_at:
            self._wake_for_what_is_left()

    def send_apart(self, rank: int, frame: bytes) -> None:
        """Send a frame that belongs to no session, unless the session here has been left."""
        with self._lock:
            if not self._is_closed:
                with suppress(RankLostError):  # Who is dead need not be told.
                    self._transport.send(rank, frame)

    def close(self) -> None:
        """The session is over for this rank: from now on the transport belongs to whoever ends it."""
        with self._lock:
            self._is_closed = True
            self.frames.outboxes.clear()
            self.spilling.close()
            self.open_arguments.clear()

    def tick(self) -> bool:
        """One turn, if nobody drives; returns whether. Never runs user code."""
        if not self.try_lead(0.0):
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

    @property
    def is_hurried(self) -> bool:
        """Whether data should be moved without a pause, and no thread waits that would do it."""
        return not self._followers and self.movement.is_hurried(self._now())

    def leave_lead(self) -> None:
        """To be called by who has led."""
        self._lead.release()
        self._pass_on()

    @property
    def turned_at(self) -> float:
        """When it turned last."""
        return self._turned_at

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
            with self._lock:
                self._turn(self._now(), then=event)
                is_left = self.mailbox or self.frames.outboxes or self._context.put_off
            if waiter.is_done and not is_left:
                # The helper may doze, and the turn may have put something on the calendar.
                if self.rest.wakes_at:
                    self._wake_for_what_is_left()
                return
        if not self._lead.acquire(blocking=False) and not self._follow(waiter, deadline):
            return
        self.leader = waiter
        try:
            self._drive(waiter, deadline)
        finally:
            self.leader = None
            self.rest.leave()
            if self.rest.is_dozing and self._context.put_off and self.core.leases.n_queued:
                self.rest.ring()
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
                if self.rest.wakes_at:
                    self._wake_for_what_is_left()
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
            awake_for_s = self._awake_for_woken_s if self.rest.makes_way() else self._awake_for_s
            if idle_s < awake_for_s and not self.busy:
                if not self.may_spin:
                    os.sched_yield()
            elif self.rest.pause(waiter, idle_s, deadline):
                idle_since = 0.0


_INSIDE: Final = (*vars(Turns).values(), *vars(Engine).values(), *vars(Rest).values())
_CODES: Final = frozenset(function.__code__ for function in _INSIDE if hasattr(function, "__code__"))
