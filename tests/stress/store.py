"""Random puts, gets, drops and spills on all ranks, with everything checked: see ``test_store.py``.

store.py SECONDS [SEED], on any number of ranks. It prints what it did, or fails with what was wrong.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

import hpcfut
from hpcfut.api import session
from tests.mpi.support import assert_nothing_left, on_rank

Array = npt.NDArray[np.uint8]
Ref = hpcfut.ObjectRef[Any]

NBYTES_STORE = 30_000_000
N_THREADS = 3
N_HELD_MAX = 40
TIMEOUT_S = 60.0


def make(seed: int, nbytes: int) -> Array:
    """An array that anybody can check: every byte follows from its seed."""
    array: Array = np.full(nbytes, seed % 251, np.uint8)
    array[:: max(nbytes // 97, 1)] = seed % 241
    return array


def is_right(array: Array, seed: int, nbytes: int) -> bool:
    """Whether the array is the one that was made."""
    return len(array) == nbytes and bool((array == make(seed, nbytes)).all())


@hpcfut.remote
def make_there(seed: int, nbytes: int) -> Array:
    """As a result."""
    return make(seed, nbytes)


@hpcfut.remote
def build_there(seed: int, nbytes: int) -> Array:
    """As a result that is built in place."""
    array = hpcfut.empty(nbytes, np.uint8)
    array[:] = make(seed, nbytes)
    return array


def fill_there(array: Array, seed: int) -> None:
    """By whoever wants it."""
    array[:] = make(seed, len(array))


@hpcfut.remote
def check_there(array: Array, seed: int, nbytes: int) -> bool:
    """As an argument."""
    return is_right(array, seed, nbytes)


@hpcfut.remote
def check_nested(refs: list[Ref], seed: int, nbytes: int) -> bool:
    """By a ref inside a value."""
    return is_right(hpcfut.get(refs[0]), seed, nbytes)


class Worker:
    """One thread of the driver, with what it holds."""

    def __init__(self, seed: int, n_ranks: int) -> None:
        self.rng = Random(seed)
        self.n_ranks = n_ranks
        self.held: list[tuple[Ref, int, int]] = []
        self.parts: list[tuple[Array, int]] = []
        self.done: Counter[str] = Counter()
        self.error: BaseException | None = None

    def run(self, until: float) -> None:
        """Do something, again and again."""
        try:
            # A busy machine may need longer until the memory of rank 0 is full once.
            while time.monotonic() < until or (not has_spilled() and time.monotonic() < until + TIMEOUT_S):
                self._step()
        except BaseException as error:  # The main thread raises it.
            self.error = error
        self.held.clear()
        self.parts.clear()

    def _step(self) -> None:
        rng = self.rng
        ways = ("put", "make", "build", "source")
        what = rng.choice((*ways, "get", "keep", "check", "nested", "drop", "drop", "let go"))
        if len(self.held) > N_HELD_MAX:
            what = "drop"
        if what in ways:
            seed, nbytes = rng.randrange(10**6), int(10 ** rng.uniform(4.5, 6.6))
            if what == "put":
                ref: Ref = hpcfut.put(make(seed, nbytes))
            elif what == "source":
                ref = hpcfut.lazy_array(fill_there, nbytes, "u1", seed)
            else:
                ref = on_rank(make_there if what == "make" else build_there, self._rank()).remote(seed, nbytes)
            self.held.append((ref, seed, nbytes))
        elif what == "let go":
            self._let_go()
        elif not self.held:
            return
        elif what == "drop":
            self.held.pop(rng.randrange(len(self.held)))
        else:
            self._use(what, *rng.choice(self.held))
        self.done[what] += 1

    def _use(self, what: str, ref: Ref, seed: int, nbytes: int) -> None:
        if what == "check":
            assert hpcfut.get(on_rank(check_there, self._rank()).remote(ref, seed, nbytes), timeout=TIMEOUT_S)
        elif what == "nested":
            assert hpcfut.get(on_rank(check_nested, self._rank()).remote([ref], seed, nbytes), timeout=TIMEOUT_S)
        else:
            array = hpcfut.get(ref, timeout=TIMEOUT_S)
            assert is_right(array, seed, nbytes), f"Object of seed {seed} and {nbytes} bytes is wrong."
            if what == "keep" and len(self.parts) < 3:
                self.parts.append((array[-1000:][1:-1:2], seed))

    def _let_go(self) -> None:
        while self.parts:
            part, seed = self.parts.pop()
            assert set(part.tolist()) <= {seed % 251, seed % 241}

    def _rank(self) -> int:
        return self.rng.randrange(self.n_ranks)


def has_spilled() -> bool:
    """Whether files were needed on this rank."""
    assert session._session.runtime is not None
    return session._session.runtime.engine.spilling.n_threads > 0


def main(seconds: float, seed: int = 1) -> None:
    """Run for so many seconds."""
    hpcfut.init(object_store_memory=NBYTES_STORE)
    workers = [Worker(seed * 100 + number, len(hpcfut.nodes())) for number in range(N_THREADS)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=worker.run, args=(until,)) for worker in workers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        hpcfut.wait([hpcfut.put(0)], timeout=0.1)
        time.sleep(0.01)  # The other threads do the work.
    for worker in workers:
        if worker.error is not None:
            raise worker.error
    is_spilled = has_spilled()
    assert_nothing_left()
    print(dict(sum((worker.done for worker in workers), Counter())), "with files" if is_spilled else "in memory")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
