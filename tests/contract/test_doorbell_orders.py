"""No frame finds a rank asleep for good: a sleeper and its senders in every order of what they do to each other.

The doorbell is the real one. Each access to what ranks share (bytes of the page, pipe, frames) first hands control
back, and a depth-first search goes through all orders of these accesses; orders in which everybody has seen the same
are counted as one. What the sleeper writes to the page reaches the others late, at a moment of the search's choice,
unless a fence comes first: so do processors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from hpcfut.edges.host import doorbell as module
from hpcfut.edges.host.doorbell import HostDoorbell

SLEEPER = 0
N_NODES_MAX = 100_000


class Abandoned(BaseException):
    """This order is not followed any further."""


class Order:
    """One run: threads of which one at a time moves, in a given order."""

    def __init__(self) -> None:
        self.asleep = 0
        self.late: int | None = None
        self.n_rings = 0
        self.n_frames = 0
        self.seen: dict[int, list[object]] = {}
        self._turns: dict[int, threading.Semaphore] = {}
        self._may_move: dict[int, Callable[[], bool]] = {}
        self._back = threading.Semaphore(0)
        self._is_abandoned = False
        self._threads: list[threading.Thread] = []
        self._me = threading.local()

    def start(self, programs: Sequence[Callable[[], None]]) -> None:
        for number, program in enumerate(programs):
            self.seen[number] = []
            self._turns[number] = threading.Semaphore(0)
            self._threads.append(threading.Thread(target=self._run, args=(number, program), daemon=True))
        for thread in self._threads:
            thread.start()
            self._back.acquire()

    def _run(self, number: int, program: Callable[[], None]) -> None:
        self._me.number = number
        try:
            self.access(lambda: None)
            program()
        except Abandoned:
            return
        finally:
            del self._may_move[number]
            self._back.release()

    def access(self, act: Callable[[], Any], may_move: Callable[[], bool] = lambda: True) -> Any:
        """Wait for this thread's turn, then do it."""
        number = self._me.number
        self._may_move[number] = may_move
        self._back.release()
        self._turns[number].acquire()
        if self._is_abandoned:
            raise Abandoned
        value = act()
        self.seen[number].append(value)
        return value

    def movable(self) -> list[int]:
        """Whose turn it may be; -1 is the processor, which writes what is late."""
        ready = [number for number, may_move in sorted(self._may_move.items()) if may_move()]
        return ready + ([-1] if self.late is not None else [])

    def move(self, number: int) -> None:
        if number == -1:
            self.flush()
            return
        self._turns[number].release()
        self._back.acquire()

    def flush(self) -> None:
        if self.late is not None:
            self.asleep, self.late = self.late, None

    @property
    def is_over(self) -> bool:
        return not self._may_move

    def key(self) -> object:
        shared = (self.asleep, self.late, self.n_rings, self.n_frames)
        return shared, tuple(tuple(seen) for seen in self.seen.values())

    def abandon(self) -> None:
        self._is_abandoned = True
        for number in list(self._may_move):
            self._turns[number].release()
            self._back.acquire()
        for thread in self._threads:
            thread.join()


class Page:
    """The shared page, of which only the sleeper's byte counts."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def __getitem__(self, rank: int) -> int:
        order = self._order

        def read() -> int:
            # A thread sees its own writes at once.
            is_own = order._me.number == SLEEPER and order.late is not None
            return order.late if is_own and order.late is not None else order.asleep

        value: int = order.access(read)
        return value

    def __setitem__(self, rank: int, value: int) -> None:
        order = self._order

        def write() -> None:
            if order._me.number == SLEEPER:
                order.flush()
                order.late = value
            else:
                order.asleep = value

        order.access(write)


def bell_of(order: Order, *, has_fence: bool) -> HostDoorbell:
    bell = HostDoorbell.__new__(HostDoorbell)
    bell._rank, bell._pipe, bell._pipes = SLEEPER, 0, {SLEEPER: 0}
    bell._number, bell._is_shared, bell._is_rung = 0, has_fence, False
    bell.heard, bell.called_by = (), ()
    vars(bell)["asleep"] = Page(order)
    vars(bell)["_call"] = lambda *command: order.access(order.flush)
    return bell


class Pipe:
    """In place of ``os`` and ``select`` in the doorbell's module."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def write(self, descriptor: int, data: bytes) -> None:
        def ring() -> None:
            # As every system call that another process sees the effect of.
            self._order.n_rings = 1

        self._order.access(ring)

    def read(self, descriptor: int, nbytes: int) -> None:
        def take() -> None:
            self._order.n_rings = 0

        self._order.access(take)

    def select(self, reading: tuple[int, ...], *rest: object) -> tuple[list[int], list[int], list[int]]:
        self._order.access(self._order.flush, lambda: bool(self._order.n_rings))
        return list(reading), [], []


def sleeper(order: Order, bell: HostDoorbell, n_frames: int, n_looks: int) -> None:
    n_taken = 0

    def look() -> bool:
        nonlocal n_taken
        n_seen: int = order.access(lambda: order.n_frames)
        has_found, n_taken = n_seen > n_taken, n_seen
        return has_found

    while n_taken < n_frames:
        bell.lie_down()
        if not any(look() for _ in range(n_looks)):
            bell.sleep(1.0)
        bell.get_up()
        look()


def sender(order: Order, bell: HostDoorbell, n_frames: int) -> None:
    def send() -> None:
        order.n_frames += 1

    for _ in range(n_frames):
        order.access(send)
        if bell.asleep[SLEEPER]:
            bell.ring(SLEEPER)


def is_ever_lost(
    monkeypatch: pytest.MonkeyPatch, frames: list[int], *, has_fence: bool = True, n_looks: int = 1
) -> bool:
    """Whether there is an order in which the sleeper sleeps on while a frame is there."""
    known: set[object] = set()
    prefixes: list[list[int]] = [[]]
    while prefixes:
        prefix, order = prefixes.pop(), Order()
        monkeypatch.setattr(module, "os", Pipe(order))
        monkeypatch.setattr(module, "select", Pipe(order))
        bell = bell_of(order, has_fence=has_fence)
        senders = [partial(sender, order, bell, n_frames) for n_frames in frames]
        order.start([partial(sleeper, order, bell, sum(frames), n_looks), *senders])
        for number in prefix:
            order.move(number)
        key, movable, is_over = order.key(), order.movable(), order.is_over
        order.abandon()
        if not movable and not is_over:
            return True
        if key not in known:
            known.add(key)
            prefixes += [[*prefix, number] for number in movable]
        assert len(known) < N_NODES_MAX
    return False


@pytest.mark.parametrize("frames", [[1], [2], [1, 1]], ids=str)
def test_no_frame_finds_a_rank_asleep_for_good(monkeypatch: pytest.MonkeyPatch, frames: list[int]) -> None:
    assert not is_ever_lost(monkeypatch, frames)


def test_a_sleeper_that_does_not_look_again_may_sleep_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_ever_lost(monkeypatch, [1], n_looks=0)


def test_a_sleeper_without_a_fence_may_sleep_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_ever_lost(monkeypatch, [1], has_fence=False)


def test_a_byte_taken_back_after_the_ring_may_be_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def ring(bell: HostDoorbell, rank: int) -> None:
        Pipe.write(vars(module)["os"], 0, b"r")
        bell.asleep[rank] = 0

    monkeypatch.setattr(HostDoorbell, "ring", ring)
    assert is_ever_lost(monkeypatch, [2])
