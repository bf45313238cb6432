"""π by chance: tasks that end in any order, and a progress bar that follows them.

On one rank, and on four, with as many tasks as you like:

    python examples/pi.py
    hpcfut run -n 4 examples/pi.py 200
"""

import sys

import numpy as np
from tqdm import tqdm

import hpcfut

N_POINTS = 200_000


@hpcfut.remote
def count_inside(seed: int) -> int:
    """How many of some random points of the unit square lie in the quarter of the unit disc."""
    x, y = np.random.default_rng(seed).random((2, N_POINTS))
    return int(np.count_nonzero(x * x + y * y < 1))


n_tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 50
refs = [count_inside.remote(seed) for seed in range(n_tasks)]

n_inside = 0
with tqdm(total=n_tasks, unit="task") as bar:
    # Whichever task ends next; a slow one holds up none of the others.
    for n_done, ref in enumerate(hpcfut.as_completed(refs), start=1):
        n_inside += hpcfut.get(ref)
        bar.set_postfix(pi=f"{4 * n_inside / (n_done * N_POINTS):.4f}", refresh=False)
        bar.update()

print(f"π is about {4 * n_inside / (n_tasks * N_POINTS):.4f}, after {n_tasks * N_POINTS:,} points.")
