"""A parameter sweep: what fails for a moment is tried again, what fails for good is told.

On one rank, and on four:

    python examples/sweep.py
    hpcfut run -n 4 examples/sweep.py

Each task finds out whether the logistic map x → r x (1 − x) settles down or not, for one r: by its Lyapunov exponent,
which is positive where the map is chaotic. On the way it asks a licence server, which is often busy.
"""

import math
import random

import hpcfut

N_STEPS = 20_000


def ask_for_licence() -> None:
    if random.random() < 0.3:
        raise ConnectionError("the licence server is busy")


# Tried up to 20 times more, but only if the server was the reason; any other exception ends the task at once.
@hpcfut.remote(max_retries=20, retry_exceptions=[ConnectionError])
def exponent(r: float) -> float:
    ask_for_licence()
    x, total = 0.4, 0.0
    for _ in range(N_STEPS):
        x = r * x * (1 - x)
        if not 0 < x < 1:
            raise ValueError(f"x leaves the interval for r = {r}")
        total += math.log(abs(r * (1 - 2 * x)))
    return total / N_STEPS


parameters = {exponent.remote(r): r for r in (2.9, 3.3, 3.5, 3.56, 3.7, 3.83, 3.9, 4.5)}
found, failed = {}, {}
for ref in hpcfut.as_completed(list(parameters)):
    r = parameters[ref]
    try:
        found[r] = hpcfut.get(ref)
    except ValueError as error:  # The type that the task raised; its text holds the traceback on the other rank.
        failed[r] = str(error).splitlines()[-1]

for r, value in sorted(found.items()):
    print(f"r = {r:<4}  {value:+.3f}  {'chaos' if value > 0 else 'order'}")
for r, reason in failed.items():
    print(f"r = {r:<4}  failed: {reason}")
