"""An object of more than 4 GiB crosses from one host to the other."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

import hpcfut
from tests.mpi.support import on_rank

N, STEP = (4 << 27) + (64 << 17) + 1, 1 << 17
WITHIN_S = 150.0


@hpcfut.remote
def make() -> npt.NDArray[np.float64]:
    """A number every MiB, and one at the end, in memory that is zero elsewhere."""
    array = hpcfut.empty(N, np.float64)
    array[:] = 0
    array[::STEP] = 1 + np.arange(len(array[::STEP]))
    return array


def main() -> None:
    hpcfut.init(object_store_memory=8 * N + (1 << 20))
    array = hpcfut.get(on_rank(make, 1).remote(), timeout=WITHIN_S)
    numbers = array[::STEP]
    assert np.array_equal(numbers, 1 + np.arange(len(numbers)))
    assert np.count_nonzero(array) == len(numbers)
    print(f"{array.nbytes} bytes", file=sys.stdout)


if __name__ == "__main__":
    main()
