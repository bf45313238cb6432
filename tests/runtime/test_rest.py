"""The threads of a rank that sleep on its doorbell: what they hear, and that none of them misses a ring."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from hpcfut.core.events import ResourcesQueried
from hpcfut.core.rank import RankCore
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.clock import MonotonicClock
from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.edges.host.loopback import LoopbackTransport
from hpcfut.model.config import Config
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.ports import HAS_WORK, SLEEPS, SpillStore
from hpcfut.runtime import rest
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.hearing import Hearing
from hpcfut.runtime.helper import Helper
from hpcfut.runtime.waiter import Waiter

FOREVER_S = 30.0


def no_store() -> SpillStore:
    raise AssertionError("Nothing is spilled here.")


class Mill:
    """A rank of one, whose sleeps are so long that a ring that is missed shows."""

    def __init__(self) -> None:
        roster = [RankRecord(0, 0, "h", "h", 77, {"CPU": RESOURCE_UNIT})]
        self.core = RankCore(0, roster, Config(), is_driver=True, nbytes_store=1000)
        self.bell = HostDoorbell(0, 1)
        transport, window, clock = LoopbackTransport(), HostArena(0, 1000), MonotonicClock()
        self.engine = Engine(
            self.core,
            transport,
            window,
            clock,
            Hearing(self.bell),
            session=0,
            may_spin=False,
            has_own_cores=False,
            open_store=no_store,
        )
        self.helper = Helper(self.engine)

    def until(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + FOREVER_S / 2
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.0005)

    def until_turned(self, at: float) -> None:
        self.until(lambda: self.engine._turned_at >= at)

    def ring_as_a_peer(self) -> None:
        rung_at = time.monotonic()
        self.bell.ring(0)
        self.until_turned(rung_at)

    def until_answered(self, number: int) -> None:
        self.until(lambda: number in self.engine.answers)

    def ask(self, number: int) -> None:
        """Posts what needs no waiter, soon after something else: it may wait for another turn."""
        self.engine.post(ResourcesQueried(0))
        self.engine.post_soon(ResourcesQueried(number))


@pytest.fixture
def mill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mill]:
    monkeypatch.setattr(rest, "SLEEP_MAX_S", FOREVER_S)
    mill = Mill()
    yield mill
    mill.helper.close()
    mill.bell.close()


def test_a_dozing_helper_hears_what_is_posted_soon(mill: Mill) -> None:
    mill.helper.start()
    for number in range(1, 40):
        mill.until(lambda: mill.engine.rest.is_dozing)
        mill.ask(number)
        mill.until_answered(number)


def test_a_dozing_helper_answers_a_ring_of_a_peer(mill: Mill) -> None:
    mill.helper.start()
    for _ in range(40):
        mill.until(lambda: mill.engine.rest.is_dozing and mill.bell.asleep[0])
        mill.ring_as_a_peer()


def test_a_helper_that_is_not_rung_for_tasks_looks_by_itself_and_listens_when_a_slot_is_free(mill: Mill) -> None:
    mill.core.scheduler.n_slots_free = 0
    mill.helper.start()
    for _ in range(3):
        mill.until(lambda: mill.engine.rest.is_dozing and mill.bell.asleep[0] == HAS_WORK)
        mill.until_turned(time.monotonic())
        mill.ring_as_a_peer()
    mill.core.scheduler.n_slots_free = 1
    mill.engine.leave_rest()
    mill.until(lambda: mill.engine.rest.is_dozing and mill.bell.asleep[0] == SLEEPS)


def test_closing_wakes_a_dozing_helper(mill: Mill) -> None:
    mill.helper.start()
    mill.until(lambda: mill.engine.rest.is_dozing)
    started = time.monotonic()
    mill.helper.close()
    assert time.monotonic() - started < FOREVER_S / 2


@contextmanager
def leading(mill: Mill) -> Iterator[None]:
    """A thread that waits as the leader, whatever news it gets, until the block is left."""
    waiter, is_over = mill.engine.new_waiter(), threading.Event()

    def wait() -> None:
        while not is_over.is_set():
            mill.engine.wait(waiter, None)
            waiter.has_news = False

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    mill.until(lambda: mill.engine.leader is waiter and mill.bell.asleep[0])
    yield
    is_over.set()
    waiter.tell()
    thread.join(FOREVER_S / 2)
    assert not thread.is_alive()
    mill.engine.forget(waiter)


def test_a_sleeping_leader_is_told_of_its_news(mill: Mill) -> None:
    for _ in range(20):
        with leading(mill):
            pass


def test_a_leader_that_shares_its_cores_does_not_stay_awake_when_it_has_woken_another_rank(mill: Mill) -> None:
    mill.engine._awake_for_s = FOREVER_S
    mill.bell.rang_at = time.monotonic()
    with leading(mill):
        pass


def test_a_leader_with_cores_of_its_own_stays_awake_for_whom_it_has_woken(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, pauses = mill.engine, list[float]()
    monkeypatch.setattr(engine.rest, "pause", lambda waiter, idle_s, deadline: pauses.append(idle_s))
    engine._awake_for_s, engine._awake_for_woken_s = 0.0, FOREVER_S
    mill.bell.rang_at = time.monotonic()
    waiter = engine.new_waiter()
    thread = threading.Thread(target=engine.wait, args=(waiter, None), daemon=True)
    thread.start()
    mill.until(lambda: engine.leader is waiter)
    for _ in range(3):
        mill.until_turned(time.monotonic())
    waiter.tell()
    thread.join(FOREVER_S / 2)
    engine.forget(waiter)
    assert not thread.is_alive()
    assert not pauses


def test_ranks_that_ring_each_other_often_stay_awake(mill: Mill) -> None:
    resting, at = mill.engine.rest, 100.0
    assert not resting.makes_way()
    for apart_s, makes_way in [(100.0, True), (0.02, True), (0.005, False), (0.005, False), (0.02, True)]:
        at += apart_s
        mill.bell.rang_at = at
        assert (resting.makes_way(), resting.makes_way()) == (makes_way, makes_way)
    resting.end()
    assert not resting.makes_way(), "It has found something since."
    mill.bell.rang_at += 0.02
    assert resting.makes_way()
    resting.leave()
    assert not resting.makes_way(), (
        "What it found was its own news, for which it left, and the next wait is another one."
    )


def test_a_sleeping_leader_hears_what_is_posted_soon(mill: Mill) -> None:
    with leading(mill):
        for number in range(1, 40):
            mill.until(lambda: mill.bell.asleep[0])
            mill.ask(number)
            mill.until_answered(number)


def test_a_sleeping_leader_keeps_a_deadline_that_the_core_gets_meanwhile(mill: Mill) -> None:
    with leading(mill):
        for number in range(1, 10):
            mill.until(lambda: mill.bell.asleep[0])
            due_at = time.monotonic() + 0.01
            with mill.engine._lock:
                mill.core.context.due_at = due_at
            mill.engine.post(ResourcesQueried(number))
            # A turn at the deadline sets the next one, which is far away.
            mill.until_turned(due_at)


def test_a_helper_that_dozes_while_another_leads_and_leaves_is_still_rung(mill: Mill) -> None:
    """The leader slept on the same doorbell, and took the ring that woke both."""
    mill.helper.start()
    for number in range(1, 20):
        mill.until(lambda: mill.engine.rest.is_dozing)
        with leading(mill):
            if number % 2:
                mill.bell.ring(0)
        mill.until(lambda: mill.engine.rest.is_dozing and mill.bell.asleep[0])
        mill.ring_as_a_peer()


def test_a_leader_whose_time_is_over_leaves_the_doorbell_to_the_helper(mill: Mill) -> None:
    mill.helper.start()
    for _ in range(5):
        mill.until(lambda: mill.engine.rest.is_dozing)
        waiter = mill.engine.new_waiter()
        mill.engine.wait(waiter, time.monotonic() + 0.01)
        mill.engine.forget(waiter)
        mill.until(lambda: mill.engine.rest.is_dozing and mill.bell.asleep[0])
        mill.ring_as_a_peer()


def test_what_is_posted_during_the_last_look_is_heard(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    is_posted = False

    def poll() -> list[tuple[int, bytes]]:
        nonlocal is_posted
        if mill.engine.rest.wakes_at and not is_posted:
            is_posted = True
            # The mailbox has been emptied, and this thread has the lock: another one posts.
            poster = threading.Thread(target=mill.engine.post, args=(ResourcesQueried(7),))
            poster.start()
            poster.join()
        return []

    monkeypatch.setattr(mill.engine.frames, "_poll", poll)
    mill.helper.start()
    mill.until_answered(7)


@pytest.mark.parametrize(("was_called", "n_looks"), [(False, 1), (True, 2)])
def test_what_an_event_of_the_network_has_brought_is_looked_for_twice(
    mill: Mill, monkeypatch: pytest.MonkeyPatch, was_called: bool, n_looks: int
) -> None:
    sleeps: list[float] = []

    def sleep(timeout_s: float) -> bool:
        sleeps.append(timeout_s)
        return False

    monkeypatch.setattr(mill.bell, "sleep", sleep)
    mill.bell.reaches_all, mill.bell.called_by = False, (3,) if was_called else ()
    waiter = mill.engine.new_waiter()

    def looks_until_sleep() -> int:
        n_sleeps, n = len(sleeps), 0
        while len(sleeps) == n_sleeps:
            n += 1
            mill.engine.rest.pause(waiter, 1.0, None)
        return n

    assert looks_until_sleep() == rest.N_LOOKS + 1
    assert [looks_until_sleep() for _ in range(3)] == [n_looks] * 3


class UnderWay:
    """All that a resting leader talks to while data are under way, with a clock that only looks move."""

    is_busy = True

    def __init__(self, mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_open = self.is_urgent = True
        self.now = 100.0
        self.naps: list[float] = []
        self._rest = mill.engine.rest
        for name, value in [("_transport", self), ("_movement", self), ("_now", lambda: self.now)]:
            monkeypatch.setattr(self._rest, name, value)

    def is_hurried(self, now: float) -> bool:
        return self.is_open and self.is_urgent

    def sleep(self, timeout_s: float) -> None:
        self.naps.append(timeout_s)

    def look(self, took_s: float, n: int = 1) -> list[float]:
        """The naps after so many looks, each of which took so long."""
        self.naps.clear()
        for _ in range(n):
            self.now += took_s
            self._rest.pause(cast("Waiter", self), 1.0, None)
        return [*self.naps]


SHORT_S, LONG_S = rest.LOOK_IN_VAIN_S / 2, rest.LOOK_IN_VAIN_S * 2


def test_a_leader_naps_when_several_looks_have_brought_no_data(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = UnderWay(mill, monkeypatch)
    assert under_way.look(LONG_S, 3 * rest.N_LOOKS_IN_VAIN) == [], "Data come."
    assert under_way.look(SHORT_S, rest.N_LOOKS_IN_VAIN - 1) == []
    assert under_way.look(SHORT_S, 2) == [pytest.approx(rest.NAP_HURRIED_S)] * 2
    under_way.is_urgent = False
    assert under_way.look(SHORT_S) == [pytest.approx(rest.NAP_S)], "The link is slow."
    assert under_way.look(LONG_S) == []
    assert under_way.look(SHORT_S, rest.N_LOOKS_IN_VAIN - 1) == []


def test_a_leader_that_waits_for_frames_alone_does_not_nap(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = UnderWay(mill, monkeypatch)
    under_way.is_open = False
    assert under_way.look(SHORT_S, 3 * rest.N_LOOKS_IN_VAIN) == []


def test_a_leader_beside_user_code_naps_after_each_look_and_shortly_while_data_come(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = UnderWay(mill, monkeypatch)
    mill.engine.busy[1] = None
    assert under_way.look(LONG_S, 2) == [pytest.approx(rest.NAP_HURRIED_S)] * 2
    under_way.is_open = False
    assert under_way.look(SHORT_S, 2) == [pytest.approx(rest.NAP_S)] * 2
