"""What a user's task may be busy with: each function returns its steps, and how many system calls were cut short."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import numpy as np

SEED = 20261121
#: So small that Python has each of them once: how fast a loop makes and drops others depends on where in memory the
#: code before it has left holes, by up to a tenth, and for as long as the loop runs.
NUMBERS = [number % 100 for number in range(10_000)]
LIBC = ctypes.CDLL(None)


def run_python(until: float) -> tuple[int, int]:
    """Pure Python that never lets go of the interpreter by itself; returns what it counted, and 0."""
    n_steps = total = 0
    while time.monotonic() < until:
        for number in NUMBERS:
            total = number + (total & 3)
        n_steps += len(NUMBERS)
    return n_steps, 0


def run_numpy(until: float) -> tuple[int, int]:
    """Products, sorts and functions of arrays; most of it without the GIL."""
    generator = np.random.default_rng(SEED)
    matrix, values = generator.random((300, 300)), generator.random(200_000)
    n_steps = 0
    while time.monotonic() < until:
        np.sort(values)
        np.sin(values)
        matrix @ matrix  # The time that it takes is all that counts.
        n_steps += 1
    return n_steps, 0


def run_mixture(until: float) -> tuple[int, int]:
    """Python, arrays small and large, pickled text and short sleeps, as real code has them."""
    generator = np.random.default_rng(SEED)
    values = generator.random(50_000)
    n_steps = 0
    while time.monotonic() < until:
        run_python(time.monotonic() + 0.001)
        words = sorted(str(number) for number in values[:500])
        values[: len(words)].sum()
        np.sort(values)
        time.sleep(0.0002)
        n_steps += 1
    return n_steps, 0


def run_c_sleep(until: float) -> tuple[int, int]:
    """A C library that sleeps; returns the number of system calls, and of those that were cut short (EINTR)."""
    n_calls = n_cut = 0
    while time.monotonic() < until:
        n_cut += LIBC.usleep(3000) != 0
        n_cut += LIBC.poll(None, 0, 3) != 0
        n_calls += 2
    return n_calls, n_cut


CODES: dict[str, Callable[[float], tuple[int, int]]] = {
    "pure Python": run_python,
    "NumPy": run_numpy,
    "a mixture": run_mixture,
    "a C library that sleeps": run_c_sleep,
}
