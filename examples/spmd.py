"""SPMD: an MPI program on every rank, and futures for what need not keep it waiting.

On one rank, and on four; every rank runs the script:

    python examples/spmd.py
    hpcfut run -n 4 --spmd examples/spmd.py

Heat spreads over a plate, of which each rank has some rows. Neighbours exchange their outer rows by MPI. Now and then a
task looks at a copy of the rows, on whichever rank has room, while the plate goes on.
"""

import numpy as np
from mpi4py import MPI

import hpcfut

N_ROWS, N_COLUMNS, N_STEPS = 240, 200, 400

comm = MPI.COMM_WORLD
up = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL
down = comm.rank + 1 if comm.rank + 1 < comm.size else MPI.PROC_NULL


@hpcfut.remote
def warmth(rows: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> float:
    """Anything that takes long: a spectrum, a picture, a file."""
    return float(rows.sum())


# One row more on each side, for the neighbours' or, at both ends, for the edge of the plate: hot above, cold below.
plate = np.zeros((N_ROWS // comm.size + 2, N_COLUMNS))
if comm.rank == 0:
    plate[0] = 1.0

looks = []
for step in range(N_STEPS):
    comm.Sendrecv(plate[1], up, recvbuf=plate[-1], source=down)
    comm.Sendrecv(plate[-2], down, recvbuf=plate[0], source=up)
    plate[1:-1, 1:-1] = (plate[:-2, 1:-1] + plate[2:, 1:-1] + plate[1:-1, :-2] + plate[1:-1, 2:]) / 4
    if step % 100 == 99:
        looks.append(warmth.remote(plate[1:-1]))  # The argument is a snapshot.

own = np.array(hpcfut.get(looks))
total = np.zeros_like(own)
comm.Allreduce(own, total)
if comm.rank == 0:
    for number, value in enumerate(total, start=1):
        print(f"After {100 * number} steps the plate has taken up {value:.1f}.")
