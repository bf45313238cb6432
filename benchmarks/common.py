"""What the benchmarks share: checking results, medians, tables, and lines for later comparison."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import socket
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path


def check_results(results: Iterable[tuple[int, int]], n_tasks: int, rank: int, first: int = 0) -> str:
    """Raises unless task i gave (rank, i + 1) for all tasks in order; returns a hash of them."""
    listed = [tuple(result) for result in results]
    wanted = [(rank, number + 1) for number in range(first, first + n_tasks)]
    if listed != wanted:
        pairs = zip(listed, wanted, strict=False)
        odd = next((f"{got} and not {want}" for got, want in pairs if got != want), "too few")
        raise RuntimeError(f"{len(listed)} results came back for {n_tasks} tasks of rank {rank}; first odd: {odd}.")
    return hash_of(listed)


def hash_of(results: object) -> str:
    """Sixteen digits that stand for results: the same for the same ones."""
    return hashlib.blake2b(repr(results).encode(), digest_size=8).hexdigest()


def parse_options(description: str, n_rounds: int) -> argparse.Namespace:
    """What every benchmark is asked: how many rounds, the small size, and where the values go."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=n_rounds)
    parser.add_argument(
        "--small", action="store_true", help="a check of the results in seconds, whose figures mean nothing"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="append a JSON line to it")
    options = parser.parse_args()
    if options.small:
        options.rounds = 1
    return options


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def describe_spread(values: Sequence[float], form: str = ",.0f") -> str:
    """The median and, in brackets, the smallest and the largest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows in aligned columns; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def append_json_line(path: Path | None, **measured: object) -> None:
    """Appends one JSON object with the measured values and what they were measured on."""
    if path is None:
        return
    record = {
        **describe_when(),
        "host": socket.gethostname(),
        "n_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **measured,
    }
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


def describe_when() -> dict[str, str | None]:
    """The moment and the commit."""
    return {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "commit": find_commit()}


def find_commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
