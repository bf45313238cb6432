"""Large objects that all ranks of two hosts read: as an argument, in a task, and late; twice, for both directions."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import hpcfut
from tests.mpi.support import WAIT_S, on_rank

NBYTES = 24_000_000

make = hpcfut.remote(lambda seed: np.arange(seed, seed + NBYTES // 8))
total = hpcfut.remote(lambda array: int(array.sum()))
total_in = hpcfut.remote(lambda refs: int(hpcfut.get(refs[0], timeout=WAIT_S).sum()))


def total_of(seed: int) -> int:
    return int(np.arange(seed, seed + NBYTES // 8).sum())


def read_everywhere(ref: Any, seed: int) -> None:
    """A task on every rank, rank 0 included, has the object as an argument, and another one gets it."""
    ranks = range(len(hpcfut.nodes()))
    sums = [
        on_rank(function, rank).remote(given) for rank in ranks for function, given in ((total, ref), (total_in, [ref]))
    ]
    assert set(hpcfut.get(sums, timeout=WAIT_S)) == {total_of(seed)}, "A wrong sum."


def main() -> None:
    """One object from the first host, and one from the second."""
    last = len(hpcfut.nodes()) - 1
    for seed, rank in enumerate((0, last)):
        ref = on_rank(make, rank).remote(seed)
        hpcfut.wait([ref], timeout=WAIT_S, fetch_local=False)
        read_everywhere(ref, seed)
        del ref
    print(f"{2 * NBYTES} bytes are one copy each", file=sys.stdout)


if __name__ == "__main__":
    main()
