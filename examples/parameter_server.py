"""A parameter server: one actor has the weights, others compute gradients, each on data of its own.

On one rank, and on four:

    python examples/parameter_server.py
    hpcfut run -n 4 examples/parameter_server.py 8

The script passes references only: neither data nor gradients nor weights come to it before the end.
"""

import sys
from typing import Any

import numpy as np

import hpcfut

N_ROWS, N_WEIGHTS, N_STEPS, RATE = 2_000, 20, 80, 0.5

Array = np.ndarray[Any, np.dtype[np.float64]]


class Shard:
    """A part of the data, and what it says about the weights."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.x = random.normal(size=(N_ROWS, N_WEIGHTS))
        self.y = self.x @ np.arange(N_WEIGHTS) + random.normal(size=N_ROWS)

    def gradient(self, weights: Array) -> Array:
        return self.x.T @ (self.x @ weights - self.y) / N_ROWS

    def equations(self) -> tuple[Array, Array]:
        return self.x.T @ self.x, self.x.T @ self.y


class Server:
    """The weights, and how they are improved."""

    def __init__(self) -> None:
        self.weights = np.zeros(N_WEIGHTS)

    def improve(self, *gradients: Array) -> Array:
        self.weights = self.weights - RATE * np.mean(gradients, axis=0)
        return self.weights


spread = hpcfut.remote(scheduling_strategy="SPREAD")
shards = [spread(Shard).remote(seed) for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 4)]
server, weights = hpcfut.remote(Server).remote(), hpcfut.put(np.zeros(N_WEIGHTS))
for _ in range(N_STEPS):
    weights = server.improve.remote(*[shard.gradient.remote(weights) for shard in shards])

parts = hpcfut.get([shard.equations.remote() for shard in shards])
exact = np.linalg.solve(sum(part[0] for part in parts), sum(part[1] for part in parts))
error = np.abs(hpcfut.get(weights) - exact).max()
print(f"After {N_STEPS} steps the weights are those of least squares: {error < 1e-9}.")
