"""One object for all ranks of some hosts: how often it crosses the link between them, and how long that takes.

    python benchmarks/two_hosts.py --ranks 8 benchmarks/many_readers.py       (root)

Each round rank 0 puts an object, and a task on every rank gets it and sums it up. What crossed the link is what the
network devices of rank 0's host, but for the loopback, have sent and received meanwhile: nothing else may use them.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import append_json_line, describe_spread, hash_of, parse_options, print_table

import hpcfut


@hpcfut.remote
def total_of(refs: list[Any]) -> float:
    """The sum of an array, which each rank gets by itself."""
    return float(hpcfut.get(refs[0]).sum())


def nbytes_of_devices() -> int:
    """Sent and received until now."""
    lines = (line.split(":") for line in Path("/proc/net/dev").read_text().splitlines()[2:])
    counters = (values.split() for name, values in lines if name.strip() != "lo")
    return sum(int(values[0]) + int(values[8]) for values in counters)


def main() -> None:
    """Measure and print."""
    options = parse_options(__doc__ or "", 10)
    nbytes = (4 if options.small else 64) << 20
    nodes = hpcfut.nodes()
    n_hosts = len({node["Host"] for node in nodes})
    on_ranks = [
        total_of.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(node["Rank"])) for node in nodes
    ]
    small = hpcfut.put(np.zeros(1))
    crossed, took_s, sums = list[float](), list[float](), list[list[float]]()
    for number in range(options.rounds):
        hpcfut.get([function.remote([small]) for function in on_ranks])
        array = np.full(nbytes // 8, number, np.float64)
        before, started = nbytes_of_devices(), time.perf_counter()
        ref = hpcfut.put(array)
        sums.append(hpcfut.get([function.remote([ref]) for function in on_ranks]))
        took_s.append(time.perf_counter() - started)
        crossed.append((nbytes_of_devices() - before) / nbytes)
        del ref
    if sums != [[float(number * (nbytes // 8))] * len(nodes) for number in range(options.rounds)]:
        raise RuntimeError(f"These sums are wrong: {sums}.")
    print_table(
        [
            [f"{nbytes >> 20} MiB to {len(nodes)} ranks on {n_hosts} hosts", "median (smallest to largest)"],
            ["bytes over the link, of the object", describe_spread(crossed, ".3f")],
            ["put, all tasks and their sums, ms", describe_spread([1e3 * seconds for seconds in took_s], ".1f")],
        ]
    )
    if n_hosts == 1:
        print("Nothing had to cross: start ranks on several hosts.")
    elif statistics.median(crossed) < n_hosts - 1:
        raise RuntimeError("Less has crossed than must: the devices of this host are not those of the link.")
    print(f"result hash {hash_of([nbytes, sums[0]])}")
    figures = {"readers: bytes over the link, of the object": crossed, "readers: all have it, s": took_s}
    append_json_line(options.output, nbytes=nbytes, figures=figures)


if __name__ == "__main__":
    main()
