"""An object of more than 4 GiB on one host: beyond what 32 bits count, and not copied; see also ``tests/testbed``."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest

from tests.mpi.jobs import Mpi, run_job

pytestmark = pytest.mark.mpi

MIB, GIB = 1 << 20, 1 << 30
HUGE = """
import numpy as np

import hpcfut
from tests.mpi.support import _core, on_rank

N, STEP, WITHIN_S = (4 << 27) + (64 << 17) + 1, 1 << 17, 150.0


@hpcfut.remote
def look(parts):
    array = parts["numbers"][0]
    numbers = array[::STEP]
    is_right = np.array_equal(numbers, 1 + np.arange(len(numbers))) and np.count_nonzero(array) == len(numbers)
    return bool(is_right), array.nbytes, array.flags.writeable, parts["after"], _core().copies.arena.n_segments


# Pages of zeros that are only read take no memory.
array = np.zeros(N)
array[::STEP] = 1 + np.arange(len(array[::STEP]))
hpcfut.init(object_store_memory=8 * N + (1 << 20))
ref = hpcfut.put({"numbers": [array], "after": "text"})
del array
print(*hpcfut.get(on_rank(look, 1).remote(ref), timeout=WITHIN_S))
print(hpcfut.get(ref)["numbers"][0][-1])
"""


# Where no memory comes from MPI, it has no part in this.
@pytest.mark.parametrize(("mpi", "one_host"), [("openmpi", ""), ("openmpi", "mpi"), ("mpich", "mpi")], indirect=["mpi"])
def test_an_object_of_more_than_4_gib(mpi: Mpi, tmp_path: Path, one_host: str) -> None:
    if psutil.virtual_memory().available < 13 * GIB:
        pytest.skip("An object of 4 GiB is tested where 13 GiB of memory are free.")
    if one_host and shutil.disk_usage("/dev/shm").free < 9 * GIB:
        pytest.skip("Two stores for an object of 4 GiB need 9 GiB in /dev/shm where MPI gives the memory.")
    script = tmp_path / "script.py"
    script.write_text(HUGE)
    env = {"HPCFUT_ONE_HOST": one_host} if one_host else {}
    job = run_job(mpi, 2, script, timeout_s=200, env=env).check()
    assert job.stdout == f"True {4 * GIB + 64 * MIB + 8} False text 0\n4161.0\n", job.story()
