"""Adaptive integration: tasks that start tasks, only where the function needs them.

    python examples/nested.py
    hpcfut run -n 4 examples/nested.py 1e-12

Where Simpson's rule is not accurate enough, a task gives each half of its interval to a task of its own and waits for
both. A task that waits makes room for others, so this works at any depth, on one rank as on many.
"""

import math
import sys
from typing import NamedTuple

import hpcfut


class Area(NamedTuple):
    value: float
    n_tasks: int
    depth: int


def peak(x: float) -> float:
    """Smooth on the right and steep on the left: nobody knows beforehand where the work is."""
    return 1 / (x + 1e-4)


def simpson(a: float, b: float) -> float:
    return (b - a) / 6 * (peak(a) + 4 * peak((a + b) / 2) + peak(b))


@hpcfut.remote
def integrate(a: float, b: float, tolerance: float) -> Area:
    middle = (a + b) / 2
    whole, halves = simpson(a, b), simpson(a, middle) + simpson(middle, b)
    if abs(halves - whole) < 15 * tolerance:
        return Area(halves + (halves - whole) / 15, n_tasks=1, depth=1)
    left, right = hpcfut.get(
        [
            integrate.remote(a, middle, tolerance / 2),
            integrate.remote(middle, b, tolerance / 2),
        ]
    )
    return Area(left.value + right.value, left.n_tasks + right.n_tasks + 1, max(left.depth, right.depth) + 1)


tolerance = float(sys.argv[1]) if len(sys.argv) > 1 else 1e-9
area = hpcfut.get(integrate.remote(0, 1, tolerance))
exact = math.log(1 + 1e4)
print(f"The integral is {area.value:.12f}, and it should be {exact:.12f}.")
print(f"It took {area.n_tasks} tasks, up to {area.depth} deep, on {len(hpcfut.nodes())} rank(s).")
