"""What the benchmarks share: checking results, medians, tables, and lines for later comparison."""

from __future__ import annotations

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


def check_results(results: Iterable[tuple[int, int]], n_tasks: int, rank: int) -> str:
    """Raises unless task i gave (rank, i + 1) for all tasks in order; returns a hash of them."""
    listed = [tuple(result) for result in results]
    wanted = [(rank, number + 1) for number in range(n_tasks)]
    if listed != wanted:
        pairs = zip(listed, wanted, strict=False)
        odd = next((f"{got} and not {want}" for got, want in pairs if got != want), "too few")
        raise RuntimeError(f"{len(listed)} results came back for {n_tasks} tasks of rank {rank}; first odd: {odd}.")
    return hashlib.blake2b(repr(listed).encode(), digest_size=8).hexdigest()


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
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": find_commit(),
        "host": socket.gethostname(),
        "n_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **measured,
    }
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


def find_commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
