"""Statistics of a table in an HDF5 file that is larger than the memory that is meant for it.

On one rank, and on four:

    python examples/columns.py
    hpcfut run -n 4 examples/columns.py 8000000

Tasks make the table, and one rank writes it, block by block. Then tasks read it block by block, each its own: no rank
ever has more than a few blocks.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import hpcfut
from hpcfut.io import read_hdf5, write_hdf5

N_COLUMNS = 8
N_ROWS_BLOCK = 25_000  # 1.6 MB

Table = np.ndarray[Any, np.dtype[np.float64]]


@hpcfut.remote
def measure(start: int, stop: int) -> Table:
    """Column k is normal around k, with a deviation of k."""
    columns = np.arange(N_COLUMNS)
    return columns + columns * np.random.default_rng(start).normal(size=(stop - start, N_COLUMNS))


@hpcfut.remote
def moments(block: Table) -> Table:
    """Sum and sum of squares of each column."""
    return np.array([block.sum(axis=0), (block * block).sum(axis=0)])


n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
hpcfut.init(object_store_memory=10_000_000)
with tempfile.TemporaryDirectory() as folder:
    path, shape, block = Path(folder) / "table.h5", (n_rows, N_COLUMNS), (N_ROWS_BLOCK, N_COLUMNS)
    starts = range(0, n_rows, N_ROWS_BLOCK)
    # A generator: blocks are made only as fast as they are written.
    made = (measure.remote(start, min(start + N_ROWS_BLOCK, n_rows)) for start in starts)
    write_hdf5(path, "measured/table", made, shape=shape, chunks=block)

    blocks = read_hdf5(path, "measured/table", chunks=block)  # References; nothing is read here.
    sums = sum(hpcfut.get(ref) for ref in [moments.remote(block) for block in blocks])
mean, mean_square = sums / n_rows
for column, (average, deviation) in enumerate(zip(mean, np.sqrt(mean_square - mean**2), strict=True)):
    print(f"column {column}: mean {average:6.2f}, deviation {deviation:5.2f}")
