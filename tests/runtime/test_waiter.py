"""A waiter that is rung before, or while, it sleeps does not sleep on."""

import threading
import time

from hpcfut.runtime.waiter import Waiter

FOREVER_S = 20.0


def test_a_ring_before_the_sleep_counts() -> None:
    waiter = Waiter(1)
    waiter.ring()
    waiter.ring()
    started = time.monotonic()
    waiter.sleep(FOREVER_S)
    assert time.monotonic() - started < FOREVER_S / 2


def test_a_ring_during_the_sleep_wakes() -> None:
    waiter = Waiter(1)
    waiter.ring()
    waiter.sleep(FOREVER_S)  # Makes the bell.
    woken = threading.Event()

    def sleep() -> None:
        waiter.sleep(FOREVER_S)
        woken.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    while not woken.is_set():
        waiter.ring()
        woken.wait(0.001)
    thread.join(FOREVER_S)
    assert not thread.is_alive()


def test_a_sleep_ends_by_itself() -> None:
    waiter = Waiter(1)
    waiter.sleep(0.001)
    waiter.sleep(0.001)
