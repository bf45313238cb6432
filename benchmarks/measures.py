"""What is measured of every system, under the names and in the shapes of Ray's microbenchmark.

A timing calls for a batch of operations and checks what came of them after the clock has stopped. Tasks name the
process that ran them, which must be one and the same, and not the driver's.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TASKS_SYNC = "single client tasks sync"
TASKS_ASYNC = "single client tasks async"
GET_CALLS = "single client get calls"
PUT_CALLS = "single client put calls"
WAIT_1K_REFS = "single client wait 1k refs"
GET_10K_REFS = "single client get object containing 10k refs"
ACTOR_SYNC = "1:1 actor calls sync"
ACTOR_ASYNC = "1:1 actor calls async"
ASYNC_ACTOR_ASYNC = "1:1 async-actor calls async"
N_N_WITH_ARG = "n:n actor calls with arg async"
PING_PONG = "ping-pong of 64 B"

N_WAITED = 1000
N_CONTAINED = 10_000
#: A batch of operations whose number is free takes about so long.
BATCH_S = 0.1
WARM_UP_S = 0.3


def task(number: int) -> tuple[int, int]:
    """What every system runs: the process that runs it, and a result that is checked."""
    return os.getpid(), number + 1


class Actor:
    """What every system has as an actor."""

    def task(self, number: int) -> tuple[int, int]:
        return task(number)


class AsyncActor:
    """The same for an event loop."""

    async def task(self, number: int) -> tuple[int, int]:
        return task(number)


class Check:
    """Knows who drives and, from the first result on, who executes."""

    def __init__(self, driver: int) -> None:
        self._driver = driver
        self._executor: int | None = None
        self._digest = hashlib.blake2b(digest_size=8)

    def tasks(self, results: Sequence[Any], n: int) -> None:
        """All of them came in order, from one process, which is not the driver's."""
        if self._executor is None:
            self._executor = results[0][0]
            if self._executor == self._driver:
                raise RuntimeError("The driver's process ran the task itself.")
        self._compare(map(tuple, results), [(self._executor, number + 1) for number in range(n)])
        self._note(number + 1 for number in range(n))

    def calls(self, results: Sequence[Any], n: int) -> None:
        """The same of calls of an actor, which may be another process."""
        self._executor = None
        self.tasks(results, n)
        self._executor = None

    def values(self, results: Sequence[Any], wanted: Sequence[int]) -> None:
        """They are what they must be."""
        self._compare(results, wanted)
        self._note(wanted)

    def _compare(self, results: Iterable[Any], wanted: Sequence[Any]) -> None:
        found = list(results)
        if found != list(wanted):
            odd = next((f"{a} and not {b}" for a, b in zip(found, wanted, strict=False) if a != b), "their number")
            raise RuntimeError(f"{len(found)} results came where {len(wanted)} must come; the first odd one: {odd}.")

    def _note(self, values: Iterable[int]) -> None:
        self._digest.update(repr(list(values)).encode())

    @property
    def hash(self) -> str:
        """Of all results until now, which depends on nothing but how many batches of which size there were."""
        return self._digest.hexdigest()


@dataclass(frozen=True)
class Measure:
    """One of them."""

    check: Callable[[Check, Sequence[Any], int], None]
    #: Operations in a batch; 0: as many as take about `BATCH_S`.
    n_batch: int = 0
    #: Operations of the small size.
    n_small: int = 20


MEASURES: Mapping[str, Measure] = {
    TASKS_SYNC: Measure(Check.tasks),
    TASKS_ASYNC: Measure(Check.tasks, n_batch=1000, n_small=100),
    PUT_CALLS: Measure(lambda check, results, n: check.values(results, [n])),
    GET_CALLS: Measure(lambda check, results, n: check.values(results, [0] * n)),
    WAIT_1K_REFS: Measure(lambda check, results, n: check.values(results, [n * N_WAITED]), n_batch=1, n_small=1),
    GET_10K_REFS: Measure(lambda check, results, n: check.values(results, [N_CONTAINED] * n), n_batch=1, n_small=1),
    ACTOR_SYNC: Measure(Check.calls),
    ACTOR_ASYNC: Measure(Check.calls, n_batch=1000, n_small=100),
    ASYNC_ACTOR_ASYNC: Measure(Check.calls, n_batch=1000, n_small=100),
    # So many calls of each of two actors by the other.
    N_N_WITH_ARG: Measure(lambda check, results, n: check.values(results, [n // 2] * 2), n_batch=1000, n_small=100),
    PING_PONG: Measure(lambda check, results, n: check.values(results, [n])),
}


def timed(call: Callable[[int], Sequence[Any]], n: int, verify: Callable[[Sequence[Any], int], None]) -> float:
    """Seconds of one batch."""
    started = time.perf_counter()
    results = call(n)
    duration_s = time.perf_counter() - started
    verify(results, n)
    return duration_s


def rate_of(name: str, call: Callable[[int], Sequence[Any]], check: Check, duration_s: float, is_small: bool) -> float:
    """Operations a second: the median of the batches that fit into the time, three at least."""
    measure = MEASURES[name]

    def verify(results: Sequence[Any], n: int) -> None:
        measure.check(check, results, n)

    if is_small:
        return measure.n_small / timed(call, measure.n_small, verify)
    n = measure.n_batch
    warm_s = timed(call, n or measure.n_small, verify)
    while warm_s < WARM_UP_S:
        batch = n or measure.n_small
        last_s = timed(call, batch, verify)
        warm_s += max(last_s, 1e-6)
        if not measure.n_batch:
            # Grows towards the size that takes as long as it should, and stays there.
            n = max(1, min(10 * batch, int(batch * BATCH_S / max(last_s, 1e-6))))
    n = n or measure.n_small
    times = [timed(call, n, verify) for _ in range(3)]
    while sum(times) < duration_s:
        times.append(timed(call, n, verify))
    return n / statistics.median(times)
