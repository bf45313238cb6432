"""Starts stub ranks as `hpcfut run` starts ranks. Usage: start_stub.py N_RANKS WHAT [CPUS_PER_RANK]."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hpcfut.cli.command import RunOptions
from hpcfut.cli.run import run_job


def main(n_ranks: str, what: str, cpus_per_rank: str = "0") -> int:
    if folder := os.environ.get("HPCFUT_STUB_FOLDER"):
        Path(folder, "pid").write_text(str(os.getpid()))
    options = RunOptions(
        n_ranks=int(n_ranks),
        cpus_per_rank=int(cpus_per_rank),
        resources='{"disk": 2}',
        n_slots=3,
        fault_tolerance="on" if what == "rank-0-leaves-alone" else "off",
    )
    return run_job(options, [sys.executable, str(Path(__file__).with_name("stub_ranks.py")), what])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
