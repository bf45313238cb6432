"""Ranks in containers of their own on one host: what MPI gives them together stands in for each other's memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from tests.mpi.jobs import CHECKOUT, OPENMPI_SETTINGS, CompletedJob, Mpi, RunningJob, run_command
from tests.mpi.shared import DRIVER, find_cases
from tests.privileged import demand_root, run_beside_mount

pytestmark = pytest.mark.mpi

SHARED_MEMORY = Path("/dev/shm")
#: After a death.
ENDS_WITHIN_S = 10.0
#: A container with processes of its own, as most are; what it shares with others is /dev/shm. The rank is process 1.
ALIKE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
#: The same, in which the rank has another number than those in other containers.
CONTAINER = (
    *ALIKE,
    "sh",
    "-c",
    'for n in $(seq 0 "$OMPI_COMM_WORLD_RANK$PMI_RANK"); do /bin/true; done; "$@"; exit $?',
    "sh",
)
#: Ranks that see each other's processes, and may not look into them.
USERS = ("unshare", "--user", "--map-root-user")
#: A container whose /dev/shm is its own as well. MPICH must be told, or it waits for the others' without end.
CLOSED = (*ALIKE[:-1], "--mount", "--mount-proc", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh")

LOOK = """
import sys

import numpy as np

import hpcfut
from tests.mpi.support import _core, on_rank


@hpcfut.remote
def look(array, seed):
    core = _core()
    is_right = bool((array == np.arange(seed, seed + array.size).reshape(array.shape)).all())
    return is_right, core.copies.arena.n_segments


@hpcfut.remote
def make(seed, n):
    return np.arange(seed, seed + n)


hpcfut.init(object_store_memory=int(sys.argv[1]))
for rank in range(2):
    ref = on_rank(make, rank).remote(rank, 300_000)
    print(rank, *hpcfut.get(on_rank(look, 1 - rank).remote(ref, rank)))
    # Too large to go through MPI at once, and too small to be stored.
    same = on_rank(hpcfut.remote(lambda value: value), 1 - rank)
    values = [np.random.default_rng(seed).bytes(95_000) for seed in range(20)]
    assert hpcfut.get([same.remote(value) for value in values]) == values, "A wrong byte."
"""


def environ(**more: str) -> dict[str, str]:
    # What `hpcfut run` says to Open MPI of UCX, which else complains.
    return {**OPENMPI_SETTINGS, "OMPI_MCA_osc": "^ucx", "PYTHONPATH": str(CHECKOUT), **more}


def command_of(mpi: Mpi, n_ranks: int, *rest: object, container: Sequence[str] = CONTAINER) -> list[str]:
    demand_root("unshare", "mount")
    ranks = [mpi.program("mpiexec"), "-n", str(n_ranks), *container, mpi.program("python")]
    return [*ranks, *map(str, rest)]


def run_cases(mpi: Mpi, command: Sequence[str], report: Path, env: Mapping[str, str], cases: Sequence[str]) -> None:
    job = run_command(command, progress=report, env=env).check()
    ends = [line for line in map(json.loads, report.read_text().splitlines()) if line["event"] != "started"]
    assert [line for line in ends if line["event"] == "failed"] == [], job.story()
    assert [line["case"] for line in ends] == list(cases), job.story()


def cases_of(*modules: str) -> list[str]:
    return [case for case in find_cases() if case.partition(":")[0] in modules]


def test_programs_run_in_memory_of_mpi(mpi: Mpi, tmp_path: Path) -> None:
    """Not only there, but wherever somebody wants it."""
    report, cases = tmp_path / "report.jsonl", cases_of("store", "zero_copy")
    report.touch()
    command = [mpi.program("hpcfut"), "run", "-n", "5", str(DRIVER), str(report), "5", *cases]
    run_cases(mpi, command, report, {"HPCFUT_ONE_HOST": "mpi"}, cases)


def test_programs_run_in_containers(mpi: Mpi, tmp_path: Path) -> None:
    report, cases = tmp_path / "report.jsonl", cases_of("store", "bad_input")
    report.touch()
    command = command_of(mpi, 3, "-m", "hpcfut", DRIVER, report, 3, *cases)
    run_cases(mpi, command, report, environ(), cases)


def look(mpi: Mpi, folder: Path, nbytes_store: int, container: Sequence[str], **more: str) -> CompletedJob:
    script = folder / "script.py"
    script.write_text(LOOK)
    command = command_of(mpi, 2, "-m", "hpcfut", script, nbytes_store, container=container)
    return run_command(command, env=environ(**more)).check()


@pytest.mark.parametrize(
    ("container", "debug"),
    [(ALIKE, "0"), (CONTAINER, "0"), (CONTAINER, "1"), (USERS, "0")],
    ids=["alike", "container", "container-debug", "users"],
)
def test_objects_are_read_in_place(mpi: Mpi, tmp_path: Path, container: Sequence[str], debug: str) -> None:
    job = look(mpi, tmp_path, 50_000_000, container, HPCFUT_DEBUG=debug)
    # The reader has no copy; unless Open MPI takes a rank with the same process number for itself, and is not let.
    n_copies = int(mpi.name == "openmpi" and container is ALIKE)
    assert job.stdout == f"0 True {n_copies}\n1 True {n_copies}\n", job.story()
    assert not job.stderr, job.story()


def test_without_a_folder_in_common_objects_are_sent(mpi: Mpi, tmp_path: Path) -> None:
    job = look(mpi, tmp_path, 50_000_000, CLOSED, MPIR_CVAR_NOLOCAL="1")
    assert job.stdout == "0 True 1\n1 True 1\n", job.story()


@pytest.mark.parametrize(("nbytes_store", "n_copies"), [(10_000_000, 0), (100_000_000, 1)])
def test_a_small_folder_holds_small_stores(mpi: Mpi, tmp_path: Path, nbytes_store: int, n_copies: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(LOOK)
    command = command_of(mpi, 2, "-m", "hpcfut", script, nbytes_store)
    done = run_beside_mount(SHARED_MEMORY, "64m", command, environ())
    assert (done.returncode, done.stdout) == (0, f"0 True {n_copies}\n1 True {n_copies}\n"), done


FILL = """
import os
import sys

import numpy as np

import hpcfut

hpcfut.init(object_store_memory=20_000_000)
one = hpcfut.put(np.ones(2_000_000, np.uint8))
# Somebody else takes what is left of the folder.
other = open("/dev/shm/other", "wb")
try:
    while True:
        other.write(bytes(1 << 16))
except OSError:
    pass
for nbytes in (9_000_000, 200_000):
    try:
        hpcfut.put(np.ones(nbytes, np.uint8))
    except MemoryError as error:
        print(error)
other.close()
os.unlink("/dev/shm/other")
print(int(hpcfut.get(one).sum()), int(hpcfut.get(hpcfut.put(np.ones(9_000_000, np.uint8))).sum()))
"""


def test_a_folder_that_others_fill_is_no_bus_error(mpi: Mpi, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FILL)
    done = run_beside_mount(SHARED_MEMORY, "90m", command_of(mpi, 2, "-m", "hpcfut", script), environ())
    *refusals, last = done.stdout.splitlines()
    assert (done.returncode, last) == (0, "2000000 9000000"), done
    assert refusals, done
    assert all("the folder of shared memory is full" in refusal for refusal in refusals), done


HOLD = """
import sys
import time
from pathlib import Path

import numpy as np

import hpcfut

hpcfut.init(object_store_memory=50_000_000)
ref = hpcfut.put(np.ones(1_000_000))
Path(sys.argv[1]).touch()
time.sleep(200)
"""


def ranks_below(job: RunningJob) -> list[psutil.Process]:
    """The processes of ranks, without what they have forked, and without what stands between them and the launcher."""
    below = psutil.Process(job.process.pid).children(recursive=True)
    pythons = [process for process in below if process.name().startswith("python")]
    return [process for process in pythons if process.parent() not in pythons]


@pytest.mark.parametrize("victim", ["launcher", "rank", "rank that is process 1"])
def test_nothing_is_left_when_the_job_is_killed(mpi: Mpi, tmp_path: Path, victim: str) -> None:
    script, mark = tmp_path / "script.py", tmp_path / "mark"
    script.write_text(HOLD)

    def kill(job: RunningJob) -> None:
        job.wait_for(mark)
        ranks = ranks_below(job)
        assert len(ranks) == 2, ranks
        (job.process if victim == "launcher" else ranks[1]).kill()

    container = ALIKE if victim == "rank that is process 1" else CONTAINER
    command = command_of(mpi, 2, "-m", "hpcfut", script, mark, container=container)
    job = run_command(command, env=environ(), act=kill)
    assert not job.timed_out, job.story()
    assert job.returncode != 0, job.story()
    assert job.ended_after_s < ENDS_WITHIN_S, job.story()
    # The folder of Open MPI's launcher is removed by a rank that sees that it has died, and none does.
    left = [what for what in job.leftovers if not (victim == "launcher" and "in a folder of the job: " in what)]
    assert not left, job.story()


def test_doctor_says_how_objects_are_read(mpi: Mpi) -> None:
    for container, words in (
        (CONTAINER, "read objects in place in memory that MPI gives them together"),
        (CLOSED, "have no /dev/shm in common that MPI uses, so that objects are sent"),
    ):
        command = command_of(mpi, 2, mpi.program("hpcfut"), "doctor", container=container)
        job = run_command(command, env=environ(**({"MPIR_CVAR_NOLOCAL": "1"} if container is CLOSED else {}))).check()
        assert words in job.stdout, job.story()
        assert "GB/s for 64 MiB on one host" in job.stdout, job.story()
    command = command_of(mpi, 2, mpi.program("hpcfut"), "doctor")
    done = run_beside_mount(SHARED_MEMORY, "64m", command, environ())
    assert "/dev/shm has no room for the objects of all of them" in done.stdout, done
