"""The scheduler of one rank: it grants leases on the rank itself, and decides which run starts next.

Theory of operation

A rank runs ``n_slots`` tasks at a time, besides those that are blocked in ``get``. A run takes its slot and its
resources when it starts, not when its lease is granted; so leases are cheap, many owners can hold one, and the depth of
a lease is plain flow control: as many tasks as the rank does in ``lease_horizon_s``, shared by the open leases.

A lease is closed (depth 0) until the rank has a free slot, what its tasks ask for, and nothing ready; then closed
leases are opened in the order in which they were closed, two for each free slot. An owner that does not answer soon,
because it has nothing left to do, is not waited for (``expected``).

When one run takes longer than ``hand_back_after_s``, or only blocked runs keep others from starting for as long, the
runs queued behind are handed back to their owners and all leases are closed, so that the tasks can start elsewhere. The
same happens on a driver's rank when its driver stops waiting: such a rank lends itself only meanwhile, to its own tasks
at once, to those of others after ``driver_lends_after_s``.

Ready runs start oldest first, so that owners share the rank by their depths. Once a run here is blocked, the newest
starts first: depth first, a recursion needs a number of threads that grows with its depth and not with its breadth. At
``n_blocked_max`` blocked runs nothing new starts but what a blocked thread runs on its own stack; only if nothing at
all has run for ``hand_back_after_s``, one run more may start, because what is waited for may be behind it.
"""

from __future__ import annotations

from collections import deque

import msgspec

from hpcfut.core.context import Context
from hpcfut.core.membership import Membership
from hpcfut.core.run import Run
from hpcfut.model.errors import InvariantError
from hpcfut.wire.messages import LeaseGranted, LeaseRequested, LeaseReturned

DRIVER_BUSY_LOAD = 1000
EXPECTED_FOR_S = 0.005

GrantKey = tuple[int, int]


class Grant(msgspec.Struct, gc=False, eq=False):
    """A lease on this rank, held by another rank or by this one."""

    owner: int
    lease_id: int
    #: What each of its tasks asks for.
    resources: tuple[tuple[str, int], ...] = ()
    depth: int = 0
    #: Its runs that are blocked; the owner may have as many more tasks here.
    n_blocked: int = 0
    #: Mean time of its runs, weighted towards the latest; negative before the first.
    service_s: float = -1.0
    #: The mean time by which its depth was set last; the depth follows when the mean has changed by half.
    told_s: float = 0.0


class Scheduler:
    """Slots, resources, grants and the queue of ready runs."""

    def __init__(self, context: Context, membership: Membership, *, is_driver: bool) -> None:
        self._context = context
        self._membership = membership
        self._config = context.config
        self._is_driver = is_driver
        self.n_slots = context.config.n_slots
        self.n_slots_free = self.n_slots
        self.free = dict(membership.roster[context.rank].resources)
        self.grants: dict[GrantKey, Grant] = {}
        self._closed: dict[GrantKey, Grant] = {}
        self._expected: dict[GrantKey, float] = {}
        self.ready: deque[Run] = deque()
        #: Runs that hold a slot, oldest first.
        self.running: dict[int, Run] = {}
        self.n_blocked = 0
        #: Blocked runs that have a thread of their own; the others stand on the stack of another blocked run.
        self._n_stacks_blocked = 0
        #: How many more than ``n_blocked_max`` there may be, because nothing moved.
        self._n_extra = 0
        self.n_driver_waits = 0
        self.lend_at: float | None = None
        self.hand_back_at: float | None = None
        self.expect_at: float | None = None
        self.widen_at: float | None = None

    # -- grants ------------------------------------------------------------------------------------------------------

    def on_lease_requested(self, source: int, message: LeaseRequested) -> None:
        """An owner wants a lease."""
        key = (source, message.lease_id)
        self.grants[key] = self._closed[key] = Grant(source, message.lease_id, message.resources)
        self.open_some()

    def on_lease_returned(self, source: int, message: LeaseReturned) -> None:
        """An owner gives a lease back."""
        key = (source, message.lease_id)
        del self.grants[key]
        self._closed.pop(key, None)
        self._expected.pop(key, None)
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
        """Open closed leases, if the rank has room for their tasks."""
        if not self._closed or self.n_slots_free <= 0 or any(map(self.fits, self.ready)):
            return
        budget = 2 * self.n_slots_free - len(self._expected)
        for key, grant in list(self._closed.items()):
            if budget <= 0:
                break
            if not (self.accepts(grant.owner) and self.fits_resources(grant.resources)):
                continue
            budget -= 1
            del self._closed[key]
            self._expected[key] = self._context.now + EXPECTED_FOR_S
            if self.expect_at is None:
                self.expect_at = self._context.now + EXPECTED_FOR_S
                self._context.wake_at(self.expect_at)
            grant.depth = self._depth_of(grant)
            grant.told_s = max(grant.service_s, 0.0)
            self._tell(grant)

    def _depth_of(self, grant: Grant) -> int:
        if grant.service_s < 0:
            return 1
        n_open = len(self.grants) - len(self._closed) or 1
        depth = int(self._config.lease_horizon_s / (n_open * max(grant.service_s, 1e-6)))
        return min(max(depth, 1), self._config.lease_depth_max)

    def _measure(self, run: Run) -> None:
        grant = self.grants.get((run.owner, run.lease_id))
        if grant is None:
            return
        took_s = self._context.now - run.started_at
        service_s = took_s if grant.service_s < 0 else 0.75 * grant.service_s + 0.25 * took_s
        grant.service_s = service_s
        if not grant.depth or grant.told_s < 2 * service_s < 4 * grant.told_s:
            return
        grant.told_s = service_s
        depth = self._depth_of(grant)
        if depth >= 2 * grant.depth or 2 * depth <= grant.depth:
            grant.depth = depth
            self._tell(grant)

    def _tell(self, grant: Grant) -> None:
        """Blocked runs do not count: the tasks that they wait for may be tasks of the same lease."""
        self._context.send(grant.owner, LeaseGranted(grant.lease_id, grant.depth + grant.n_blocked))

    @property
    def is_full(self) -> bool:
        """Whether as many runs are blocked as there may be."""
        return self._n_stacks_blocked >= self._config.n_blocked_max + self._n_extra

    def close_all(self) -> None:
        """Close every lease and forget the ready runs, which the caller hands back."""
        for key, grant in self.grants.items():
            if grant.depth:
                grant.depth = 0
                self._context.send(grant.owner, LeaseGranted(grant.lease_id, 0))
                self._closed[key] = grant
        self._expected.clear()
        self.expect_at = None
        if self.ready and not self.running:
            # No end of a run will open the leases again.
            self.expect_at = self._context.now + EXPECTED_FOR_S
        self.ready.clear()
        self.hand_back_at = None

    # -- runs --------------------------------------------------------------------------------------------------------

    def admits(self, run: Run) -> bool:
        """Whether a run that was pushed may stay; it was sent before the owner heard that its lease is closed."""
        if not run.lease_id:
            return True
        key = (run.owner, run.lease_id)
        if self._expected:
            self._expected.pop(key, None)
        grant = self.grants.get(key)
        if grant is None or not grant.depth:
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
        if self.hand_back_at is None and self.running:
            self.hand_back_at = self._context.now + self._config.hand_back_after_s
            self._context.wake_at(self.hand_back_at)

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
        for run in reversed(self.ready) if self.n_blocked else list(self.ready):
            if self.fits(run):
                self.ready.remove(run)
                return run
        if not self.running and self.hand_back_at is None:
            # Blocked runs keep what these want; other ranks may have it.
            self.hand_back_at = self._context.now + self._config.hand_back_after_s
            self._context.wake_at(self.hand_back_at)
        return None

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
        if self.ready and self.hand_back_at is None:
            self.hand_back_at = self._context.now + self._config.hand_back_after_s
            self._context.wake_at(self.hand_back_at)

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
                self._measure(run)
        if self.n_blocked:
            self._note_standstill()

    def block(self, run: Run) -> None:
        """A run waits: it gives its slot and its CPU back, and nothing else."""
        del self.running[run.task_id]
        self.n_blocked += 1
        self._n_stacks_blocked += not run.waiter_id
        grant = self.grants.get((run.owner, run.lease_id))
        if grant is not None:
            grant.n_blocked += 1
            if grant.depth:
                self._tell(grant)
        self.n_slots_free += 1
        self._add_resources(run, 1, only_cpu=True)
        self._note_standstill()

    def unblock(self, run: Run) -> None:
        """A run goes on, at once: for a moment more runs than slots may be active, and nothing new starts then."""
        self._count_unblocked(run)
        self.n_slots_free -= 1
        self._add_resources(run, -1, only_cpu=True)
        run.started_at = self._context.now
        self.running[run.task_id] = run

    def _count_unblocked(self, run: Run) -> None:
        self.n_blocked -= 1
        self._n_stacks_blocked -= not run.waiter_id
        if self._n_extra and self._n_stacks_blocked < self._config.n_blocked_max:
            self._n_extra = 0
        grant = self.grants.get((run.owner, run.lease_id))
        if grant is not None:
            grant.n_blocked -= 1

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
        for other in (self.hand_back_at, self.expect_at, self.widen_at):
            if other is not None and (deadline is None or other < deadline):
                deadline = other
        return deadline

    def tick(self) -> bool:
        """Do what is due; returns whether the runs that have not started are to be handed back."""
        now = self._context.now
        if self.lend_at is not None and self.lend_at <= now:
            self.lend_at = None
            self.open_some()
        if self.expect_at is not None and self.expect_at <= now:
            self._expected = {key: at for key, at in self._expected.items() if at > now}
            self.expect_at = min(self._expected.values(), default=None)
            self.open_some()
        if self.widen_at is not None and self.widen_at <= now:
            self.widen_at = None
            if not self.running and self.is_full:
                self._n_extra += 1
                self.open_some()
        if self.hand_back_at is not None and self.hand_back_at <= now:
            oldest = next(iter(self.running.values()), None)
            if not self.ready:
                self.hand_back_at = None
            elif oldest is None:
                return True
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
                if amount != total.get(name, 0):
                    raise InvariantError(f"Nothing runs, but {amount} of {total.get(name, 0)} of {name} are free.")
        for key, grant in self.grants.items():
            if (key in self._closed) != (not grant.depth):
                raise InvariantError(f"Grant {key} with depth {grant.depth} is in the wrong list.")
