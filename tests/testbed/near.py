"""Large objects on every rank of two hosts, and tasks that read them: how much of them had to cross?"""

from __future__ import annotations

import sys

import numpy as np

import hpcfut
from tests.mpi.support import WAIT_S, on_rank

NBYTES, N_EACH = 4_000_000, 6

make = hpcfut.remote(lambda seed: np.full(NBYTES // 8, seed, np.float64))
total = hpcfut.remote(lambda array, seed: float(array.sum()) == seed * len(array))


def main() -> None:
    """Rank 0 only waits; so no other rank of its host has anything to read, unless it is sent there."""
    ranks = range(1, len(hpcfut.nodes()))
    refs = [(on_rank(make, rank).remote(rank), rank) for _ in range(N_EACH) for rank in ranks]
    hpcfut.wait([ref for ref, _ in refs], num_returns=len(refs), timeout=WAIT_S, fetch_local=False)
    for _ in range(2):
        assert all(hpcfut.get([total.remote(*entry) for entry in refs], timeout=WAIT_S)), "A wrong sum."
        assert all(hpcfut.get(total.remote(*entry), timeout=WAIT_S) for entry in refs), "A wrong sum."
    print(f"{4 * len(refs) * NBYTES} bytes were read", file=sys.stdout)


if __name__ == "__main__":
    main()
