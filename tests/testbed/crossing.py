"""Large objects cross between two hosts both ways, in two sessions, to a driver and to tasks; by which route?"""

from __future__ import annotations

import sys

import numpy as np

import hpcfut
from hpcfut.api import session
from hpcfut.edges.mpi.one_sided import OneSided
from tests.mpi.support import WAIT_S, on_rank

make = hpcfut.remote(lambda seed, nbytes: np.arange(seed, seed + nbytes // 8))
total = hpcfut.remote(lambda array: int(array.sum()))


def total_of(seed: int, nbytes: int) -> int:
    return int(np.arange(seed, seed + nbytes // 8).sum())


def n_read() -> int:
    """Objects that this rank has read one-sidedly."""
    runtime = session._session.runtime
    assert runtime is not None
    route = runtime.engine._transport._route  # type: ignore[attr-defined]
    return route.n_read if isinstance(route, OneSided) else 0


def main() -> None:
    """Around the size of a chunk, and larger than all chunks that are under way at once."""
    for _ in range(2):
        hpcfut.init(object_store_memory=400_000_000)
        n_before = n_read()
        for seed, nbytes in enumerate((200_000, 16 << 20, (16 << 20) + 8, 70 << 20)):
            theirs = hpcfut.get(on_rank(make, 1).remote(seed, nbytes), timeout=WAIT_S)
            assert int(theirs.sum()) == total_of(seed, nbytes)
            ours = hpcfut.put(np.arange(seed, seed + nbytes // 8))
            sums = [on_rank(total, 1).remote(ours) for _ in range(3)]
            assert set(hpcfut.get(sums, timeout=WAIT_S)) == {total_of(seed, nbytes)}
        there = hpcfut.get(on_rank(hpcfut.remote(n_read), 1).remote(), timeout=WAIT_S)
        print(f"read here {n_read() - n_before}, there {there}", file=sys.stdout)
        hpcfut.shutdown()


if __name__ == "__main__":
    main()
