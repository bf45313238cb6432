"""Calls that move no data, under the names of Ray's microbenchmark: hpcfut run -n 2 benchmarks/latency.py."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from common import append_json_line, describe_spread, print_table

import hpcfut

N_WAITED = 1000


@hpcfut.remote
def small_value() -> bytes:
    return b"ok"


def get_calls(n_calls: int) -> None:
    ref = hpcfut.put(b"ok")
    for _ in range(n_calls):
        assert hpcfut.get(ref) == b"ok"


def put_calls(n_calls: int) -> None:
    for _ in range(n_calls):
        hpcfut.put(b"ok")


def wait_1k_refs(n_calls: int) -> None:
    """As Ray does it: one call submits 1,000 tasks and waits for one more of them at a time."""
    for _ in range(n_calls):
        waiting = [small_value.remote() for _ in range(N_WAITED)]
        while waiting:
            _, waiting = hpcfut.wait(waiting)


# What is called, how often in one timing, and how often in the small size.
CALLS: dict[str, tuple[Callable[[int], None], int, int]] = {
    "single client get calls": (get_calls, 10_000, 100),
    "single client put calls": (put_calls, 10_000, 100),
    "single client wait 1k refs": (wait_1k_refs, 1, 1),
}


def main() -> None:
    """Measures all of them."""
    parser = argparse.ArgumentParser(description="Calls that move no data.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a check in seconds")
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line to it")
    options = parser.parse_args()
    n_ranks = len(hpcfut.nodes())
    rates: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(1 if options.small else options.rounds):
        for name, (call, n_calls, n_calls_small) in CALLS.items():
            n = n_calls_small if options.small else n_calls
            started = time.perf_counter()
            call(n)
            rates[name].append(n / (time.perf_counter() - started))
    print_table(
        [(f"{n_ranks} rank(s)", "calls/s: median (smallest to largest)")]
        + [(name, describe_spread(values, ",.2f")) for name, values in rates.items()]
    )
    append_json_line(options.output, benchmark="latency", n_ranks=n_ranks, rates=rates)


if __name__ == "__main__":
    main()
