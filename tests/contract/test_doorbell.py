"""The contract of `ports.Doorbell`, between real processes without MPI."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.edges.host.event_queues import event_queues
from tests.contract.doorbell_ranks import hang_doorbell
from tests.mpi.jobs import CHECKOUT

RANKS = Path(__file__).with_name("doorbell_ranks.py")
FOREVER_S = 30.0


@pytest.fixture
def pair() -> Iterator[tuple[HostDoorbell, HostDoorbell]]:
    """Two ranks in one process."""
    bells = HostDoorbell(0, 3), HostDoorbell(1, 3)
    cards = {rank: bell.card() for rank, bell in enumerate(bells)}
    assert [bell.meet(cards) for bell in bells] == [True, True]
    for bell in bells:
        bell.agree(True, False)
    yield bells
    for bell in bells:
        bell.close()


def takes(bell: HostDoorbell, timeout_s: float = FOREVER_S) -> float:
    started = time.monotonic()
    bell.sleep(timeout_s)
    return time.monotonic() - started


def test_a_rank_that_has_not_met_others_is_rung_by_its_own_threads() -> None:
    bell = HostDoorbell(0, 1)
    assert bell.reaches_all
    bell.lie_down()
    timer = threading.Timer(0.02, bell.ring, (0,))
    timer.start()
    assert bell.sleep(FOREVER_S)
    timer.join()
    bell.get_up()
    bell.lie_down()
    assert not bell.sleep(0.0)
    bell.close()


def test_a_rank_knows_when_it_rang_another_one(pair: tuple[HostDoorbell, HostDoorbell]) -> None:
    one, other = pair
    started = time.monotonic()
    one.ring(0)
    assert one.rang_at == 0
    one.ring(1)
    assert started <= one.rang_at <= time.monotonic()
    assert other.rang_at == 0


def test_ranks_see_who_sleeps(pair: tuple[HostDoorbell, HostDoorbell]) -> None:
    one, other = pair
    assert (one.reaches_all, other.reaches_all) == (False, False)
    one.lie_down()
    assert list(one.asleep[:3]) == list(other.asleep[:3]) == [1, 0, 0]
    other.ring(0)
    # Others need not ring as well.
    assert list(other.asleep[:3]) == [0, 0, 0]
    one.lie_down()
    one.get_up()
    assert list(other.asleep[:3]) == [0, 0, 0]


def test_a_ring_counts_until_it_is_taken(pair: tuple[HostDoorbell, HostDoorbell]) -> None:
    one, other = pair
    other.ring(0)
    other.ring(0)
    one.lie_down()
    assert takes(one) < FOREVER_S / 2
    assert takes(one) < FOREVER_S / 2
    one.get_up()
    one.lie_down()
    assert 0.02 <= takes(one, 0.02) < FOREVER_S / 2
    assert not one.sleep(0.0)


def test_a_byte_that_was_taken_back_ends_the_sleep_as_a_ring_does(pair: tuple[HostDoorbell, HostDoorbell]) -> None:
    # Who took it back may have been killed before it rang.
    one, other = pair
    one.lie_down()
    other.asleep[0] = 0
    assert one.sleep(0.0)


def test_rings_that_nobody_takes_block_nobody(pair: tuple[HostDoorbell, HostDoorbell]) -> None:
    one, other = pair
    for _ in range(100_000):
        other.ring(0)
    while one.sleep(0.0):
        one.get_up()
        one.lie_down()


def test_events_of_the_network_end_a_sleep(pair: tuple[HostDoorbell, HostDoorbell]) -> None:
    bell, other = pair
    near, far = socket.socketpair()
    with near, far, select.epoll() as queue:
        queue.register(near, select.EPOLLIN)
        assert queue.fileno() in event_queues()
        bell.hear([queue.fileno()])
        bell.lie_down()
        assert not bell.sleep(0.0)
        assert not bell.called_by
        timer = threading.Timer(0.02, far.send, (b"frame",))
        timer.start()
        assert takes(bell) < FOREVER_S / 2
        assert bell.called_by == [queue.fileno()]
        timer.join()
        other.ring(0)
        assert bell.sleep(FOREVER_S), "A ring counts, whatever else there is."
        assert not bell.called_by
        bell.hear(())
        bell.lie_down()
        assert not bell.sleep(0.0)
        assert not bell.called_by, "What is not heard any more ends no sleep."
        bell.hear([queue.fileno()])
    assert not bell.sleep(0.0)
    assert takes(bell, 0.05) >= 0.05, "The queue is closed, and is not heard any more."
    assert not bell.heard


def test_a_dead_rank_can_be_rung(tmp_path: Path) -> None:
    """And no signal comes, even where the user has let the one of broken pipes kill."""
    child = os.fork()
    if child == 0:
        hang_doorbell(tmp_path, 1, 2)
        os._exit(0)
    bell = hang_doorbell(tmp_path, 0, 2)
    assert os.waitpid(child, 0)[1] == 0
    old = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        bell.ring(1)
    finally:
        signal.signal(signal.SIGPIPE, old)
    bell.close()


@pytest.mark.parametrize("what", ["pid", "pipe"])
def test_somebody_else_is_not_taken_for_a_neighbour(what: str) -> None:
    """As where ``/proc`` is not that of the neighbour, or out of reach."""
    bell, other = HostDoorbell(0, 2), HostDoorbell(1, 2)
    pid, pipe, page = msgspec.msgpack.decode(other.card())
    wrong = [2**22 + 1, pipe, page] if what == "pid" else [pid, [pipe[0], pipe[1], pipe[2] + 1], page]
    assert not bell.meet({0: bell.card(), 1: msgspec.msgpack.encode(wrong)})
    bell.agree(False, True)
    assert not bell.reaches_all
    # Sleeping goes on by the clock, and own threads ring.
    bell.lie_down()
    assert not bell.sleep(0.001)
    bell.ring(0)
    assert takes(bell) < FOREVER_S / 2
    bell.close()
    other.close()


def test_nothing_is_left_open(pair: tuple[HostDoorbell, HostDoorbell]) -> None:
    def n_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = n_open()
    bell = HostDoorbell(0, 2)
    bell.meet({0: bell.card()})
    bell.agree(True, False)
    bell.close()
    assert n_open() == before


@pytest.mark.parametrize("n_ranks", [2, 3, 5])
def test_no_ring_is_lost_between_processes(n_ranks: int, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(bytes(n_ranks * n_ranks * 4))
    n_passes = 3000
    ranks = [
        subprocess.Popen(
            [sys.executable, str(RANKS), str(rank), str(n_ranks), str(tmp_path), str(n_passes)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(n_ranks)
    ]
    said = []
    for rank in ranks:
        try:
            said.append(rank.communicate(timeout=2 * FOREVER_S)[0])
        finally:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0] * n_ranks, said
    # They slept, or this would prove nothing.
    assert all(int(text.split()[-2]) > 100 for text in said), said
