"""A container with a /dev/shm of 64 MB: MPI finds room in it, and objects need none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mpi.jobs import Mpi
from tests.mpi.shared import DRIVER, find_cases
from tests.privileged import run_beside_mount

pytestmark = pytest.mark.mpi

SHARED_MEMORY = Path("/dev/shm")
N_RANKS = 5
LARGE = """
import numpy as np
import hpcfut

@hpcfut.remote(scheduling_strategy="SPREAD")
def make(nbytes):
    return np.ones(nbytes, np.uint8)

@hpcfut.remote(scheduling_strategy="SPREAD")
def total(array):
    return int(array.sum())

nbytes = 100 << 20
ref = make.remote(nbytes)
print(hpcfut.get(ref).nbytes == nbytes, hpcfut.get([total.remote(ref) for _ in range(8)]) == [nbytes] * 8)
"""


def test_programs_run(mpi: Mpi, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    cases = [case for case in find_cases() if case.partition(":")[0] in ("refs", "values")]
    ranks = [mpi.program("hpcfut"), "run", "-n", str(N_RANKS), str(DRIVER), str(report), str(N_RANKS), *cases]
    done = run_beside_mount(SHARED_MEMORY, "64m", ranks)
    assert done.returncode == 0, done
    ends = [line for line in map(json.loads, report.read_text().splitlines()) if line["event"] != "started"]
    assert [line for line in ends if line["event"] == "failed"] == []
    assert [line["case"] for line in ends] == cases


def test_an_object_that_is_larger(mpi: Mpi, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LARGE)
    ranks = [mpi.program("hpcfut"), "run", "-n", str(N_RANKS), str(script)]
    done = run_beside_mount(SHARED_MEMORY, "64m", ranks)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done
