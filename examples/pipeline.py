"""A streaming pipeline: a generator task whose items are used while it makes the next ones.

On one rank, and on four:

    python examples/pipeline.py
    hpcfut run -n 4 examples/pipeline.py 400

The generator is never more than eight chunks ahead of the loop that takes them, and a chunk is freed once it is folded.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import hpcfut

N_SAMPLES = 50_000
PERIOD = 1_000

Signal = np.ndarray[Any, np.dtype[np.float64]]


@hpcfut.remote(generator_backpressure_num_objects=8)
def record(n_chunks: int) -> Iterator[Signal]:
    """A faint sine under noise, chunk by chunk. Each chunk becomes an object of its own as soon as it is there."""
    noise = np.random.default_rng(0)
    sine = np.sin(2 * np.pi * np.arange(N_SAMPLES) / PERIOD)
    for _ in range(n_chunks):
        yield 0.1 * sine + noise.normal(size=N_SAMPLES)


@hpcfut.remote
def fold(chunk: Signal) -> Signal:
    """The mean period of a chunk."""
    mean: Signal = chunk.reshape(-1, PERIOD).mean(axis=0)
    return mean


@hpcfut.remote
def add(total: Signal, part: Signal) -> Signal:
    return total + part


n_chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 60
total = hpcfut.put(np.zeros(PERIOD))
for chunk in record.remote(n_chunks):
    # `chunk` is a reference, and so are the results: no sample ever comes to this script.
    total = add.remote(total, fold.remote(chunk))

folded = hpcfut.get(total) / n_chunks
amplitude = 2 * abs(np.fft.rfft(folded)[1]) / PERIOD
print(f"In {n_chunks * N_SAMPLES:,} samples there is a sine of amplitude {amplitude:.3f}.")
