"""A disk for spilled objects that is full: who stores more is told, and what was stored is read, to the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mpi.jobs import Mpi
from tests.privileged import run_beside_mount

pytestmark = pytest.mark.mpi

STORE = """
import sys

import numpy as np

import hpcfut


@hpcfut.remote(scheduling_strategy="SPREAD")
def make(seed):
    return np.full(1_000_000, seed, np.uint8)


hpcfut.init(object_store_memory=7_000_000, spill_folder=sys.argv[1])
n_stored, n_refused = 0, 0
refs = [make.remote(seed) for seed in range(24)]
for seed, ref in enumerate(refs):
    try:
        array = hpcfut.get(ref, timeout=100)
        assert array.shape == (1_000_000,) and (array == seed).all(), "A wrong byte."
        n_stored += 1
        del array
    except hpcfut.exceptions.ObjectStoreFullError as error:
        assert f"cannot be spilled to {sys.argv[1]}: No space left on device" in str(error), error
        n_refused += 1
print(n_stored >= 10, n_refused > 0, n_stored + n_refused)
del refs, ref
refs = [make.remote(seed) for seed in range(5)]
print([int(array[-1]) for array in hpcfut.get(refs, timeout=100)])
del refs
# Memory and disk are full, and nothing is in use: what is wanted changes places with something else.
refs = []
while True:
    try:
        refs.append(hpcfut.put(np.full(1_000_000, len(refs), np.uint8)))
    except hpcfut.exceptions.ObjectStoreFullError:
        break
assert len(refs) > 10, refs
for _ in range(2):
    for seed, ref in enumerate(refs):
        array = hpcfut.get(ref, timeout=100)
        assert (array == seed).all(), "A wrong byte."
        del array
"""


def test_who_stores_too_much_is_told_and_nothing_is_lost(mpi: Mpi, tmp_path: Path) -> None:
    """The notes of the job are on the same disk, and its exit status is told nevertheless."""
    script, disk = tmp_path / "script.py", tmp_path / "disk"
    disk.mkdir()
    script.write_text(STORE)
    ranks = [mpi.program("hpcfut"), "run", "-n", "2", str(script), str(disk)]
    done = run_beside_mount(disk, "8m", ranks, {"TMPDIR": str(disk)})
    assert (done.returncode, done.stdout) == (0, "True True 24\n[0, 1, 2, 3, 4]\n"), done
