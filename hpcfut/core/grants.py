"""Grants: the leases on this rank, as the rank sees them that grants them. Which of them are open, and how deep.

Theory of operation

A lease is closed (depth 0) until the rank has a free slot, what its tasks ask for, and nothing ready; then closed
leases are opened, first those of the owner that was served longest ago, two for each free slot. An owner that does not
answer soon, because it has nothing left to do, is not waited for (``expected``), and comes after those that have
(``is_wanted``). After a task that took long only one of these is opened for each free slot: whichever of two tasks came
second would wait for as long, or be handed back and lose its turn, perhaps every time.

The depth is plain flow control: the open leases share the tasks that the rank does in ``lease_horizon_s``, and have at
least as many as it runs at a time. So ready runs are few and start oldest first, and owners share the rank by their
depths. An owner of many short tasks never leaves a slot free, though, so while they are short one closed lease more is
opened in each horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from hpcfut.core.context import Context
from hpcfut.core.run import Run
from hpcfut.model.errors import InvariantError
from hpcfut.wire.messages import LeaseGranted, LeaseRequested, LeaseReturned

EXPECTED_FOR_S = 0.005

GrantKey = tuple[int, int]


class Grant(msgspec.Struct, gc=False, eq=False):
    """A lease on this rank, held by another rank or by this one."""

    owner: int
    lease_id: int
    #: What each of its tasks asks for.
    resources: tuple[tuple[str, int], ...] = ()
    #: How many of its tasks this rank can run at a time.
    n_at_once: int = 1
    depth: int = 0
    #: Whether its owner made use of it when it was opened last.
    is_wanted: bool = True
    opened_at: float = -1.0
    #: Its runs that are blocked; the owner may have as many more tasks here.
    n_blocked: int = 0
    #: Mean time of its runs, weighted towards the latest; negative before the first.
    service_s: float = -1.0
    #: The mean time by which its depth was set last; the depth follows when the mean has changed by half.
    told_s: float = 0.0


class Grants:
    """The table of grants."""

    def __init__(self, context: Context, total: Mapping[str, int]) -> None:
        """Make an empty table; ``total`` is what this rank has of all resources."""
        self._context = context
        self._config = context.config
        self._total = total
        self.table: dict[GrantKey, Grant] = {}
        self.closed: dict[GrantKey, Grant] = {}
        self.expected: dict[GrantKey, float] = {}
        self.expect_at: float | None = None
        #: When the latest run of each owner ended.
        self._served_at: dict[int, float] = {}
        #: How long the latest run took; nobody knows before the first.
        self._took_s = context.config.hand_back_after_s
        self._opened_at = -1.0
        #: How many leases were open when all depths were set last.
        self._n_sharing = 0

    def add(self, source: int, message: LeaseRequested) -> None:
        """An owner wants a lease."""
        key = (source, message.lease_id)
        resources = message.resources
        n_at_once = min((self._total.get(name, 0) // amount for name, amount in resources if amount), default=1 << 30)
        n_at_once = max(min(n_at_once, self._config.n_slots), 1)
        self.table[key] = self.closed[key] = Grant(source, message.lease_id, resources, n_at_once)

    def remove(self, source: int, message: LeaseReturned) -> None:
        """An owner gives a lease back."""
        self._forget((source, message.lease_id))
        self._share_anew()

    def forget_owner(self, owner: int) -> None:
        """An owner is dead."""
        for key in [key for key in self.table if key[0] == owner]:
            self._forget(key)
        self._share_anew()

    def _forget(self, key: GrantKey) -> None:
        del self.table[key]
        self.closed.pop(key, None)
        self.expected.pop(key, None)

    def open_for(self, n_slots_free: int, may_open: Callable[[Grant], bool]) -> None:
        """Open closed leases for slots that are free."""
        is_long = self._took_s > self._config.hand_back_after_s
        budget = (1 if is_long else 2) * n_slots_free - len(self.expected)
        if budget <= 0:
            return
        keys = [key for key in self._in_turn() if may_open(self.closed[key])]
        n_wanted = sum(self.closed[key].is_wanted for key in keys)
        now = self._context.now
        # Somebody who has not made use of the last turn may have something by now; but nobody waits for him.
        beside = keys[n_wanted : n_wanted + 1] if n_wanted >= budget else []
        for key in keys[:budget]:
            self._open(key)
            self.expected[key] = now + EXPECTED_FOR_S
        if self.expected and self.expect_at is None:
            self.expect_at = now + EXPECTED_FOR_S
            self._context.wake_at(self.expect_at)
        for key in beside:
            self._open(key)

    def open_one_more(self, may_open: Callable[[Grant], bool]) -> None:
        """No slot is free; open a closed lease if it is time, and if its tasks will not have to wait for long."""
        now, config = self._context.now, self._config
        if self._took_s > config.hand_back_after_s / 2 or now < self._opened_at + config.lease_horizon_s:
            return
        for key in self._in_turn():
            if may_open(self.closed[key]):
                self._open(key)
                return

    def _in_turn(self) -> list[GrantKey]:
        closed, served_at = self.closed, self._served_at
        if len(closed) == 1:
            return list(closed)

        def turn(key: GrantKey) -> tuple[bool, float]:
            grant = closed[key]
            return not grant.is_wanted, served_at.get(key[0], -1.0) if grant.is_wanted else grant.opened_at

        return sorted(closed, key=turn)

    def _open(self, key: GrantKey) -> None:
        grant = self.closed.pop(key)
        self._opened_at = grant.opened_at = self._context.now
        grant.depth = self._depth_of(grant)
        grant.told_s = max(grant.service_s, 0.0)
        self.tell(grant)
        self._share_anew()

    def _depth_of(self, grant: Grant) -> int:
        n_open = len(self.table) - len(self.closed) or 1
        at_least = max(grant.n_at_once // n_open, 1)
        if grant.service_s < 0:
            return at_least
        depth = int(self._config.lease_horizon_s * grant.n_at_once / (n_open * max(grant.service_s, 1e-6)))
        return min(max(depth, at_least), self._config.lease_depth_max)

    def measure(self, run: Run) -> None:
        """A run has ended, which took its time."""
        now = self._context.now
        took_s = self._took_s = now - run.started_at
        self._served_at[run.owner] = now
        grant = self.table.get((run.owner, run.lease_id))
        if grant is None:
            return
        service_s = took_s if grant.service_s < 0 else 0.75 * grant.service_s + 0.25 * took_s
        grant.service_s = service_s
        if grant.depth and not grant.told_s < 2 * service_s < 4 * grant.told_s:
            self._deepen(grant)

    def _deepen(self, grant: Grant) -> None:
        grant.told_s = grant.service_s
        depth = self._depth_of(grant)
        if depth >= 2 * grant.depth or 2 * depth <= grant.depth:
            grant.depth = depth
            self.tell(grant)

    def _share_anew(self) -> None:
        """Set all depths anew, when the number of open leases has doubled, or halved."""
        n_open = len(self.table) - len(self.closed)
        if 2 * self._n_sharing <= n_open or 2 * n_open <= self._n_sharing:
            self._n_sharing = n_open
            for grant in self.table.values():
                if grant.depth and grant.service_s >= 0:
                    self._deepen(grant)

    def tell(self, grant: Grant) -> None:
        """Blocked runs do not count: the tasks that they wait for may be tasks of the same lease."""
        self._context.send(grant.owner, LeaseGranted(grant.lease_id, grant.depth + grant.n_blocked, grant.n_blocked))

    def close_all(self) -> None:
        """This rank has no room for long."""
        for key, grant in self.table.items():
            if grant.depth:
                grant.depth = 0
                self._context.send(grant.owner, LeaseGranted(grant.lease_id, 0))
                self.closed[key] = grant
        self.expected.clear()
        self.expect_at = None

    def admits(self, run: Run) -> bool:
        """Whether the lease of a run that was pushed is open."""
        key = (run.owner, run.lease_id)
        if self.expected:
            self.expected.pop(key, None)
        grant = self.table.get(key)
        if grant is None:
            return False
        grant.is_wanted = True
        return grant.depth > 0

    def count_blocked(self, run: Run, n: int) -> Grant | None:
        """A run is blocked (1), or no more (-1); gives its grant."""
        grant = self.table.get((run.owner, run.lease_id))
        if grant is not None:
            grant.n_blocked += n
        return grant

    def expire(self) -> None:
        """Do not wait any more for owners that had their time to send something."""
        now = self._context.now
        for key in [key for key, at in self.expected.items() if at <= now]:
            del self.expected[key]
            self.table[key].is_wanted = False
        self.expect_at = min(self.expected.values(), default=None)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for key, grant in self.table.items():
            if (key in self.closed) != (not grant.depth):
                raise InvariantError(f"Grant {key} with depth {grant.depth} is in the wrong list.")
        for key in (*self.closed, *self.expected):
            if key not in self.table:
                raise InvariantError(f"Grant {key} has gone, and is in a list.")
