"""What a process has of its machine, from made-up machines."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hpcfut.edges.host.machine import (
    THREAD_VARIABLES,
    Cores,
    Place,
    cores_of,
    host_key,
    limit_threads,
    make_scratch,
    own_place,
    ranks_on_host_of,
    scratch_parent,
    sharing_of,
)
from tests.mpi.jobs import CHECKOUT


def places(*cpus: list[int], host: str = "a") -> list[Place]:
    return [Place(host, host, mask, host) for mask in cpus]


def test_own_place_is_this_process() -> None:
    place = own_place()
    assert place.cpus == sorted(os.sched_getaffinity(0))
    assert place.host_key == host_key()
    assert len(place.host_key.split()) == 3


@pytest.mark.parametrize(
    ("masks", "cores"),
    [
        ([[0, 1, 2, 3]], [4]),
        # Bound: each has its own.
        ([[0, 1], [2, 3]], [2, 2]),
        # Not bound: the same ones are shared out.
        ([[0, 1, 2, 3], [0, 1, 2, 3]], [2, 2]),
        ([[0, 1, 2, 3]] * 3, [1, 1, 1]),
        # More ranks than cores: at least one.
        ([[0, 1]] * 5, [1] * 5),
        # Some of both.
        ([[0, 1, 2, 3], [2, 3]], [3, 1]),
    ],
)
def test_cores_are_shared_out(masks: list[list[int]], cores: list[int]) -> None:
    everywhere = places(*masks)
    assert [cores_of(everywhere, rank) for rank in range(len(masks))] == cores


def test_cores_of_other_hosts_do_not_count() -> None:
    both = places([0, 1], [0, 1], host="a") + places([0, 1], host="b")
    assert [cores_of(both, rank) for rank in range(3)] == [1, 1, 2]
    assert ranks_on_host_of(both, 1) == [0, 1]
    assert ranks_on_host_of(both, 2) == [2]


def test_threads_are_limited_where_the_user_has_not_spoken() -> None:
    environ = {"MKL_NUM_THREADS": "7"}
    limit_threads(3, environ)
    assert environ == {**dict.fromkeys(THREAD_VARIABLES, "3"), "MKL_NUM_THREADS": "7"}


@pytest.mark.parametrize(
    "name", ["machine", "memory", "spill_folder", "launch_environment", "job_files", "parent", "loopback", "clock"]
)
def test_numpy_and_mpi_are_not_loaded(name: str) -> None:
    code = f"import sys, hpcfut.edges.host.{name}; sys.exit('numpy' in sys.modules or 'mpi4py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, timeout=60, check=False)
    assert done.returncode == 0, f"{name} loads NumPy or mpi4py"


def test_scratch_is_for_one_user_and_one_job(tmp_path: Path) -> None:
    one, two = make_scratch(tmp_path), make_scratch(tmp_path)
    assert one != two
    assert stat.S_IMODE(one.stat().st_mode) == 0o700
    assert one.name.startswith("hpcfut-")


def test_scratch_is_where_the_job_says(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    assert scratch_parent({"SLURM_TMPDIR": str(ours), "TMPDIR": str(theirs)}) == ours
    assert scratch_parent({"SLURM_TMPDIR": str(tmp_path / "none"), "TMPDIR": str(theirs)}) == theirs
    assert scratch_parent({}).is_dir()


@pytest.mark.parametrize(
    ("masks", "enough", "own"),
    [
        ([[0, 1]], [True], [True]),
        # Bound to a core each.
        ([[0], [1]], [False, False], [True, True]),
        ([[0, 1], [2, 3]], [True, True], [True, True]),
        # Not bound.
        ([[0, 1], [0, 1]], [True, True], [False, False]),
        ([[0, 1]] * 3, [False] * 3, [False] * 3),
        # Two share some.
        ([[0, 1, 2], [2], [3]], [True, False, False], [False, False, True]),
    ],
)
def test_who_may_use_whose_cores(masks: list[list[int]], enough: list[bool], own: list[bool]) -> None:
    # Those of another machine are others, whatever their numbers.
    everywhere = [*places(*masks), *places([0, 1, 2, 3], host="b")]
    expected = [Cores(*each) for each in zip(enough, own, strict=True)]
    assert [sharing_of(everywhere, rank) for rank in range(len(masks))] == expected
