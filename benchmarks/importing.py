"""Seconds of `import hpcfut` beyond those of mpi4py and NumPy:  python benchmarks/importing.py

Each figure is that of a fresh process, in which `mpi4py.MPI` and NumPy are loaded already. hpcfut loads much of itself
only when it is used: so the first session of one rank, `init` and one task, is measured as well.
"""

from __future__ import annotations

import subprocess
import sys

from common import append_json_line, describe_spread, hash_of, parse_options, print_table

PROGRAM = """
import time
import mpi4py
mpi4py.rc.initialize = False  # A library, and no job of one rank.
import mpi4py.MPI, numpy
started = time.perf_counter()
import hpcfut
imported = time.perf_counter()
value = hpcfut.get(hpcfut.remote(lambda: 42).remote())
print(imported - started, time.perf_counter() - started, value)
"""


def main() -> None:
    """One process after the other."""
    options = parse_options("What importing hpcfut takes.", n_rounds=15)
    figures: dict[str, list[float]] = {"import hpcfut, s": [], "import hpcfut and the first task on one rank, s": []}
    values = []
    for number in range(options.rounds + 1):
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        values.append(done[2])
        if number or options.small:  # The first one may have to compile.
            for measured, seconds in zip(figures.values(), done, strict=False):
                measured.append(float(seconds))
    print_table(
        [("beyond mpi4py.MPI and NumPy", "median (smallest to largest)")]
        + [(name, describe_spread(seconds, ".3f")) for name, seconds in figures.items()]
    )
    print(f"result hash {hash_of(sorted(set(values)))}")
    append_json_line(options.output, benchmark="importing", figures=figures)


if __name__ == "__main__":
    main()
