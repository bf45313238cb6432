"""The scheduler of one rank: its slots and resources, and which run starts next.

Theory of operation

A rank runs ``n_slots`` tasks at a time, besides those that are blocked in ``get``. A run takes its slot and its
resources when it starts, not when its lease is granted; so leases are cheap, and many owners can hold one. Which of
them are open, ``grants.py`` tells.

When one run takes longer than ``hand_back_after_s``, or only blocked runs keep others from starting for as long, the
runs queued behind are handed back to their owners and all leases are closed, so that the tasks can start elsewhere; if
no slot is free and there are several leases, even with nothing queued: a task that came now might miss its turn on
another rank. The same happens on a driver's rank when its driver stops waiting: such a rank lends itself only
meanwhile, to its own tasks at once, to those of others after ``driver_lends_after_s``.

Ready runs start oldest first. Once a run here is blocked, the newest starts first: depth first, a recursion needs a
number of threads that grows with its depth and not with its breadth. So that a stream of new runs starves nobody, the
oldest of an owner that has no part in the recursion starts now and then. At ``n_blocked_max`` blocked runs nothing new
starts but what a blocked thread runs on its own stack; only if nothing at all has run for ``hand_back_after_s``, one
run more may start, because what is waited for may be behind it.
"""

from __future__ import annotations

from collections import deque

from hpcfut.core.context import Context
from hpcfut.core.grants import EXPECTED_FOR_S, Grant, Grants
from hpcfut.core.membership import Membership
from hpcfut.core.run import Run
from hpcfut.model.errors import InvariantError
from hpcfut.wire.messages import LeaseRequested, LeaseReturned

DRIVER_BUSY_LOAD = 1000


class Scheduler:
    """Slots, resources and the queue of ready runs."""

    def __init__(self, context: Context, membership: Membership, *, is_driver: bool) -> None:
        self._context = context
        self._membership = membership
        self._config = context.config
        self._is_driver = is_driver
        self.n_slots = context.config.n_slots
        self.n_slots_free = self.n_slots
        total = membership.roster[context.rank].resources
        self.free = dict(total)
        #: What actors have that live here.
        self.for_life: dict[str, int] = {}
        self._book = Grants(context, total)
        self.grants = self._book.table
        self._closed = self._book.closed
        self.ready: deque[Run] = deque()
        #: Runs that hold a slot, oldest first.
        self.running: dict[int, Run] = {}
        self.n_blocked = 0
        #: Blocked runs that have a thread of their own; the others stand on the stack of another blocked run.
        self._n_stacks_blocked = 0
        #: How many more than ``n_blocked_max`` there may be, because nothing moved.
        self._n_extra = 0
        #: When the oldest ready run may start before the newest again.
        self._oldest_at = 0.0
        self.n_driver_waits = 0
        self.lend_at: float | None = None
        self.hand_back_at: float | None = None
        self.widen_at: float | None = None
        #: Blocked runs that hold more than cores; and when they are suspected to wait for what needs it.
        self.blocked_holders: dict[int, Run] = {}
        self.suspect_at: float | None = None

    # -- grants ------------------------------------------------------------------------------------------------------

    def on_lease_requested(self, source: int, message: LeaseRequested) -> None:
        """An owner wants a lease."""
        self._book.add(source, message)
        if self.running and len(self.grants) > 1:
            self._watch_running()
        self.open_some()

    def on_lease_returned(self, source: int, message: LeaseReturned) -> None:
        """An owner gives a lease back."""
        self._book.remove(source, message)
        self.open_some()

    def forget_owner(self, owner: int) -> None:
        """An owner is dead, and has no run here that is ready: others have the room that it had."""
        self._book.forget_owner(owner)
        self.open_some()

    def accepts(self, owner: int) -> bool:
        """Whether runs of this owner may be queued here now."""
        return not self.is_full and self.lends_to(owner)

    def lends_to(self, owner: int) -> bool:
        """Whether a driver of this rank, if it has one, waits and so lends the rank to this owner."""
        if not self._is_driver:
            return True
        if not self.n_driver_waits:
            return False
        return owner == self._context.rank or self.lend_at is None

    def open_some(self) -> None:
        """Open closed leases, if the rank has room for their tasks or if it is the turn of their owners."""
        if not self._closed:
            return
        if self.n_slots_free > 0 and not any(map(self.fits, self.ready)):
            self._book.open_for(self.n_slots_free, self._has_room_for)
        else:
            self._book.open_one_more(self._has_turn_for)

    def _has_room_for(self, grant: Grant) -> bool:
        return self.accepts(grant.owner) and self.fits_resources(grant.resources)

    def _has_turn_for(self, grant: Grant) -> bool:
        """Cores are going to be free soon; of other things nobody knows."""
        free = self.free
        has_others = all(name == "CPU" or free.get(name, 0) >= amount for name, amount in grant.resources)
        return has_others and self.accepts(grant.owner)

    @property
    def is_wanted_by_others(self) -> bool:
        """Whether tasks of other owners wait for this rank while it runs those that a thread of its own waits for."""
        own = self._context.rank
        if any(run.owner != own for run in self.ready):
            return True
        return any(grant.owner != own and self._has_turn_for(grant) for grant in self._closed.values())

    @property
    def is_full(self) -> bool:
        """Whether as many runs are blocked as there may be."""
        return self._n_stacks_blocked >= self._config.n_blocked_max + self._n_extra

    def close_all(self) -> None:
        """Close every lease and forget the ready runs, which the caller hands back."""
        self._book.close_all()
        if self.ready and not self.running:
            # No end of a run will open the leases again.
            self._book.expect_at = self._context.now + EXPECTED_FOR_S
            self._context.wake_at(self._book.expect_at)
        self.ready.clear()
        self.hand_back_at = None

    # -- runs --------------------------------------------------------------------------------------------------------

    def admits(self, run: Run) -> bool:
        """Whether a run that was pushed may stay; it was sent before the owner heard that its lease is closed."""
        if not run.lease_id:
            return True
        if not self._book.admits(run):
            return False
        # On a worker with nothing blocked, which is the common case, there is no more to ask.
        return not (self._is_driver or self.n_blocked) or self.accepts(run.owner)

    def is_free_for(self, run: Run) -> bool:
        """Whether the run can start now, and nothing else could or waits for it to be tried first."""
        if self.n_slots_free <= 0 or self.ready or self.n_blocked or self._closed:
            return False
        return self.fits_resources(run.template.resources)

    def add_ready(self, run: Run) -> None:
        """A run has all its arguments."""
        self.ready.append(run)
        if self.running:
            self._watch_running()

    def remove_ready(self, run: Run) -> None:
        """A ready run is cancelled, or starts on the stack of whoever waits for it."""
        self.ready.remove(run)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to start or to open."""
        return bool(self.ready or self._closed or self.n_blocked)

    def take_next(self) -> Run | None:
        """The ready run that starts now, if one can."""
        if not self.ready or self.n_slots_free <= 0 or self.is_full:
            return None
        if not self.n_blocked:
            run = self.ready[0]
            if self.fits(run):
                self.ready.popleft()
                return run
        for run in self._by_turn():
            if self.fits(run):
                self.ready.remove(run)
                return run
        if not self.running:
            # Blocked runs keep what these want; other ranks may have it.
            self._watch_running()
        return None

    def _watch_running(self) -> None:
        if self.hand_back_at is None:
            self.hand_back_at = self._context.now + self._config.hand_back_after_s
            self._context.wake_at(self.hand_back_at)

    def _by_turn(self) -> list[Run]:
        now, ready = self._context.now, list(self.ready)
        if not self.n_blocked:
            return ready
        newest = ready[-1].owner
        others = [run for run in ready if run.owner != newest] if now >= self._oldest_at else []
        ready.reverse()
        if others:
            self._oldest_at = now + self._config.hand_back_after_s
            grants = self.grants
            others = [run for run in others if (grant := grants.get((run.owner, run.lease_id))) and not grant.n_blocked]
        return others + ready

    def fits(self, run: Run) -> bool:
        """Whether the resources of a run are free now."""
        return self.fits_resources(run.template.resources)

    def fits_resources(self, resources: tuple[tuple[str, int], ...]) -> bool:
        """Whether these resources are free now."""
        free = self.free
        for name, amount in resources:  # noqa: SIM110 - all() makes a generator on the task path.
            if free.get(name, 0) < amount:
                return False
        return True

    def start(self, run: Run) -> None:
        """A run takes its slot and its resources."""
        run.started_at = self._context.now
        self.n_slots_free -= 1
        free = self.free
        for name, amount in run.template.resources:
            free[name] -= amount
        self.running[run.task_id] = run
        if self.ready or len(self.grants) > 1:
            self._watch_running()

    def end(self, run: Run) -> None:
        """A run gives everything back."""
        if self.running.pop(run.task_id, None) is None:
            self._count_unblocked(run)
            self._add_resources(run, 1, but_cpu=True)
        else:
            self.n_slots_free += 1
            free = self.free
            for name, amount in run.template.resources:
                free[name] += amount
            if run.lease_id:
                self._book.measure(run)
        if self.n_blocked:
            self._note_standstill()

    def succeed(self, run: Run) -> Run | None:
        """A run ends, and the next takes its slot and its resources over; None where that needs a closer look."""
        ready, resources = self.ready, run.template.resources
        if not ready or self.n_slots_free < 0 or self.n_blocked or self._closed or run.task_id not in self.running:
            return None
        following = ready[0]
        if following.template.resources != resources:
            return None
        free = self.free
        for name, _ in resources:
            if free[name] < 0:  # Runs that went on after they had been blocked have it.
                return None
        ready.popleft()
        del self.running[run.task_id]
        self.running[following.task_id] = following
        following.started_at = self._context.now
        if run.lease_id:
            self._book.measure(run)
        if ready or len(self.grants) > 1:
            self._watch_running()
        return following

    def block(self, run: Run) -> None:
        """A run waits: it gives its slot and its CPU back, and nothing else."""
        del self.running[run.task_id]
        self.n_blocked += 1
        self._n_stacks_blocked += not run.waiter_id
        grant = self._book.count_blocked(run, 1)
        if grant is not None and grant.depth:
            self._book.tell(grant)
        self.n_slots_free += 1
        self._add_resources(run, 1, only_cpu=True)
        if any(name != "CPU" for name, _ in run.template.resources):
            self.blocked_holders[run.task_id] = run
            self.suspect()
        self._note_standstill()

    def suspect(self) -> None:
        """Who waits, and holds what others need, may wait for these: have that looked at in a while."""
        if self.suspect_at is None:
            self.suspect_at = self._context.now + self._config.standstill_after_s
            self._context.wake_at(self.suspect_at)

    def unblock(self, run: Run) -> None:
        """A run goes on, at once: for a moment more runs than slots may be active, and nothing new starts then."""
        self._count_unblocked(run)
        self.n_slots_free -= 1
        self._add_resources(run, -1, only_cpu=True)
        run.started_at = self._context.now
        self.running[run.task_id] = run

    def _count_unblocked(self, run: Run) -> None:
        if self.blocked_holders:
            self.blocked_holders.pop(run.task_id, None)
        self.n_blocked -= 1
        self._n_stacks_blocked -= not run.waiter_id
        if self._n_extra and self._n_stacks_blocked < self._config.n_blocked_max:
            self._n_extra = 0
        self._book.count_blocked(run, -1)

    def _note_standstill(self) -> None:
        if not self.running and self.is_full:
            self.widen_at = self._context.now + self._config.hand_back_after_s
            self._context.wake_at(self.widen_at)

    def _add_resources(self, run: Run, sign: int, *, only_cpu: bool = False, but_cpu: bool = False) -> None:
        for name, amount in run.template.resources:
            if (name == "CPU" and but_cpu) or (name != "CPU" and only_cpu):
                continue
            self.free[name] = self.free.get(name, 0) + sign * amount

    # -- the driver of this rank ---------------------------------------------------------------------------------------

    def driver_waits(self) -> None:
        """A driver thread of this rank starts waiting: the rank may work meanwhile.

        User threads of a worker rank wait here too, and change nothing.
        """
        if not self._is_driver:
            return
        self.n_driver_waits += 1
        if self.n_driver_waits == 1:
            self.lend_at = self._context.now + self._config.driver_lends_after_s
            self._context.wake_at(self.lend_at)
            self.open_some()

    def driver_goes_on(self) -> bool:
        """A driver thread stops waiting; returns whether it was the last one, so that runs are to be handed back."""
        if not self._is_driver:
            return False
        self.n_driver_waits -= 1
        if self.n_driver_waits:
            return False
        self.lend_at = None
        return True

    def load(self) -> int:
        """Runs of this rank, running or ready, as gossiped; a driver that does not wait counts as very busy."""
        load = len(self.ready) + self.n_slots - self.n_slots_free
        return load if self.n_driver_waits or not self._is_driver else load + DRIVER_BUSY_LOAD

    # -- time --------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """The earliest instant at which ``tick`` has something to do."""
        deadline = self.lend_at
        for other in (self.hand_back_at, self._book.expect_at, self.widen_at, self.suspect_at):
            if other is not None and (deadline is None or other < deadline):
                deadline = other
        return deadline

    def tick(self) -> bool:
        """Do what is due; returns whether the runs that have not started are to be handed back."""
        now = self._context.now
        if self.lend_at is not None and self.lend_at <= now:
            self.lend_at = None
            self.open_some()
        if self._book.expect_at is not None and self._book.expect_at <= now:
            self._book.expire()
            self.open_some()
        if self.widen_at is not None and self.widen_at <= now:
            self.widen_at = None
            if not self.running and self.is_full:
                self._n_extra += 1
                self.open_some()
        if self.hand_back_at is not None and self.hand_back_at <= now:
            oldest = next(iter(self.running.values()), None)
            if oldest is None and self.ready:
                return True
            if oldest is None or not (self.ready or (len(self.grants) > 1 and self.n_slots_free <= 0)):
                self.hand_back_at = None
            else:
                # Compared as a sum, like the deadline itself: rounded otherwise, it could be due for ever.
                self.hand_back_at = oldest.started_at + self._config.hand_back_after_s
                return self.hand_back_at <= now
        return False

    def check(self) -> None:
        """Assert what must hold between turns."""
        if self.n_slots_free != self.n_slots - len(self.running):
            raise InvariantError(
                f"{self.n_slots_free} of {self.n_slots} slots are free, and {len(self.running)} runs hold one."
            )
        total = self._membership.roster[self._context.rank].resources
        if not self.running and not self.n_blocked:
            for name, amount in self.free.items():
                if amount != total.get(name, 0) - self.for_life.get(name, 0):
                    raise InvariantError(f"Nothing runs, but {amount} of {total.get(name, 0)} of {name} are free.")
        self._book.check()
