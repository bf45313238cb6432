"""Large objects between two ranks that share no memory, at awkward moments: prints what became of them."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress

import numpy as np

import hpcfut
from hpcfut.api import session
from tests.mpi.support import WAIT_S, on_rank

NBYTES, NBYTES_STORE = 400_000_000, 2_000_000_000

make = hpcfut.remote(lambda seed, nbytes: np.arange(seed, seed + nbytes // 8))
total = hpcfut.remote(lambda array: int(array.sum()))


def total_of(seed: int, nbytes: int) -> int:
    return int(np.arange(seed, seed + nbytes // 8).sum())


def n_reads() -> int:
    """Reads from the other rank that are under way here."""
    runtime = session._session.runtime
    assert runtime is not None
    return len(runtime.engine.movement.reads)


def made_there(seed: int) -> hpcfut.ObjectRef[np.ndarray]:
    """An object of rank 1."""
    ref = on_rank(make, 1).remote(seed, NBYTES)
    hpcfut.wait([ref], timeout=WAIT_S, fetch_local=False)
    return ref


def begin_to_read(ref: hpcfut.ObjectRef[np.ndarray]) -> None:
    """This thread begins to read it, and does not wait."""
    with suppress(hpcfut.exceptions.GetTimeoutError):
        hpcfut.get(ref, timeout=0.005)
    assert n_reads() == 1, "The object came too fast for this test."


def read_without_the_main_thread() -> None:
    """The thread that has begun a read runs user code meanwhile."""
    ref = made_there(1)
    begin_to_read(ref)
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.append(int(hpcfut.get(ref, timeout=WAIT_S).sum())))
    reader.start()
    reader.join(WAIT_S)
    assert found == [total_of(1, NBYTES)], found


def end_amid_reads() -> float:
    """The session ends while both ranks read from each other; returns what the end takes, in seconds."""
    ours = hpcfut.put(np.zeros(NBYTES, np.uint8))
    theirs = made_there(2)
    task = on_rank(total, 1).remote(ours)
    begin_to_read(theirs)
    started = time.monotonic()
    hpcfut.shutdown()
    took_s = time.monotonic() - started
    del ours, task, theirs
    return took_s


def main() -> None:
    for _ in range(2):
        hpcfut.init(object_store_memory=NBYTES_STORE)
        read_without_the_main_thread()
        print(f"ended within {end_amid_reads():.2f} s", file=sys.stdout)
    hpcfut.init(object_store_memory=NBYTES_STORE)
    ours = hpcfut.put(np.arange(7, 7 + NBYTES // 8))
    assert hpcfut.get(on_rank(total, 1).remote(ours), timeout=WAIT_S) == total_of(7, NBYTES)
    begin_to_read(made_there(3))  # The script ends here.


if __name__ == "__main__":
    main()
