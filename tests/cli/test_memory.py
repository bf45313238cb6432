"""The memory that a job has: from made-up machines, and in a real control group."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcfut.edges.host.memory import JobMemory, memory_of_job
from hpcfut.model.roster import RankRecord, lack_of_memory
from hpcfut.model.template import RESOURCE_UNIT
from tests.mpi.jobs import CHECKOUT, Mpi, environments

MIB, GIB = 1 << 20, 1 << 30
KIB_16_GIB = 16 * GIB // 1024

V2 = {"proc/self/cgroup": "0::/jobs/7\n"}
V1 = {"proc/self/cgroup": "5:cpu:/\n3:memory:/slurm/job_7/step_0\n"}
HYBRID = {"proc/self/cgroup": "4:memory:/a\n1:name=systemd:/\n0::/b\n"}
#: Docker without a namespace for control groups: the path is that of the host.
CONTAINER = {"proc/self/cgroup": "6:memory:/docker/0123abcd\n0::/docker/0123abcd\n"}
TOP1, TOP2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"


def make_machine(root: Path, files: dict[str, str]) -> Path:
    meminfo = f"MemTotal:  {KIB_16_GIB} kB\nMemFree: 1 kB\nMemAvailable: {KIB_16_GIB} kB\nSwapFree: 99999999 kB\n"
    for name, text in {"proc/meminfo": meminfo, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "environ", "n_gib"),
    [
        ({}, {}, 16),
        ({**V2, f"{TOP2}/jobs/7/memory.max": "max\n"}, {}, 16),
        ({**V2, f"{TOP2}/jobs/7/memory.max": f"{3 * GIB}\n"}, {}, 3),
        # The limit of a group above holds as well.
        ({**V2, f"{TOP2}/jobs/memory.max": f"{2 * GIB}\n", f"{TOP2}/jobs/7/memory.max": "max\n"}, {}, 2),
        # A group crawls above this one.
        ({**V2, f"{TOP2}/jobs/7/memory.max": f"{3 * GIB}", f"{TOP2}/jobs/7/memory.high": f"{2 * GIB}"}, {}, 2),
        ({**V2, f"{TOP2}/jobs/7/memory.max": f"{3 * GIB}", f"{TOP2}/jobs/7/memory.high": "max"}, {}, 3),
        # A container sees its own group at the top.
        ({**V2, f"{TOP2}/memory.max": f"{4 * GIB}\n"}, {}, 4),
        ({**CONTAINER, f"{TOP2}/memory.max": f"{4 * GIB}\n"}, {}, 4),
        ({**CONTAINER, f"{TOP1}/memory.limit_in_bytes": f"{4 * GIB}\n"}, {}, 4),
        ({**V1, f"{TOP1}/slurm/job_7/memory.limit_in_bytes": f"{5 * GIB}\n"}, {}, 5),
        ({**V1, f"{TOP1}/memory.limit_in_bytes": "9223372036854771712\n"}, {}, 16),
        # Both versions are mounted; the controller belongs to one of them.
        ({**HYBRID, f"{TOP1}/a/memory.limit_in_bytes": f"{6 * GIB}\n"}, {}, 6),
        ({**HYBRID, f"{TOP2}/unified/b/memory.max": f"{7 * GIB}\n"}, {}, 7),
        # Of a group elsewhere.
        ({**V2, f"{TOP2}/jobs/8/memory.max": f"{3 * GIB}\n"}, {}, 16),
        ({}, {"SLURM_MEM_PER_NODE": "8192"}, 8),
        ({}, {"SLURM_MEM_PER_NODE": "0"}, 16),
        ({}, {"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "6"}, 6),
        ({**V2, f"{TOP2}/jobs/7/memory.max": f"{3 * GIB}\n"}, {"SLURM_MEM_PER_NODE": "8192"}, 3),
    ],
)
def test_the_least_of_all_limits_counts(
    tmp_path: Path, files: dict[str, str], environ: dict[str, str], n_gib: int
) -> None:
    found = memory_of_job(environ, make_machine(tmp_path, files))
    assert (found.nbytes_limit, found.nbytes_free) == (n_gib * GIB, n_gib * GIB)


def group_of(version: int, limit: int, usage: int, n_kept: int) -> dict[str, str]:
    """A group that uses this much, some of it for what the kernel keeps of files; shared memory is not among that."""
    if version == 1:
        stat = (
            f"cache {9 * GIB}\ninactive_file 1\nactive_file 1\ntotal_inactive_file {n_kept}\ntotal_active_file {MIB}\n"
        )
        folder = f"{TOP1}/slurm/job_7"
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    else:
        stat = f"file {9 * GIB}\nshmem {8 * GIB}\ninactive_file {n_kept}\nactive_file {MIB}\n"
        folder = f"{TOP2}/jobs"
        names = ("memory.max", "memory.current", "memory.stat")
    texts = (f"{limit}\n", f"{usage}\n", stat)
    return {**(V1 if version == 1 else V2), **{f"{folder}/{n}": t for n, t in zip(names, texts, strict=True)}}


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_used_of_a_group_is_not_free(tmp_path: Path, version: int) -> None:
    files = group_of(version, 4 * GIB, 3 * GIB, GIB - MIB)
    found = memory_of_job({}, make_machine(tmp_path, files))
    assert found == JobMemory(4 * GIB, 2 * GIB, f"control group /{'slurm/job_7' if version == 1 else 'jobs'}")


@pytest.mark.parametrize("version", [1, 2])
def test_the_group_with_the_least_room_counts_and_not_the_smallest(tmp_path: Path, version: int) -> None:
    files = group_of(version, 8 * GIB, 8 * GIB, GIB - MIB)
    inner = f"{TOP1}/slurm/job_7/step_0/memory.limit_in_bytes" if version == 1 else f"{TOP2}/jobs/7/memory.max"
    found = memory_of_job({}, make_machine(tmp_path, {**files, inner: f"{2 * GIB}"}))
    assert (found.nbytes_limit, found.nbytes_free) == (2 * GIB, GIB)


def test_a_group_that_uses_more_than_it_may_has_nothing_free(tmp_path: Path) -> None:
    assert memory_of_job({}, make_machine(tmp_path, group_of(2, GIB, 2 * GIB, 0))).nbytes_free == 0


def test_what_others_use_of_the_machine_is_not_free(tmp_path: Path) -> None:
    root = make_machine(tmp_path, {"proc/meminfo": f"MemTotal: {KIB_16_GIB} kB\nMemAvailable: {KIB_16_GIB // 4} kB\n"})
    assert memory_of_job({}, root) == JobMemory(16 * GIB, 4 * GIB, "this machine")
    assert memory_of_job({"SLURM_MEM_PER_NODE": "2048"}, root) == JobMemory(2 * GIB, 2 * GIB, "Slurm (--mem)")


def test_of_this_machine_it_is_plausible(tmp_path: Path) -> None:
    found = memory_of_job(os.environ)
    assert 0 < found.nbytes_free <= found.nbytes_limit
    assert memory_of_job({}, tmp_path).nbytes_limit == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def roster(*nbytes_of_hosts: tuple[int, int]) -> list[RankRecord]:
    """So many ranks with so many MiB each, host by host."""
    records: list[RankRecord] = []
    for number, (n_ranks, n_mib) in enumerate(nbytes_of_hosts):
        for _ in range(n_ranks):
            resources = {"memory": n_mib * MIB * RESOURCE_UNIT}
            records.append(RankRecord(len(records), 0, f"host{number}", f"key{number}", 1, resources))
    return records


def test_a_store_must_leave_room_for_tasks() -> None:
    hosts = roster((2, 1000), (4, 200))
    assert lack_of_memory(hosts) == ""
    assert lack_of_memory(hosts, 168 * MIB) == ""
    said = lack_of_memory(hosts, 168 * MIB + 1)
    assert said.startswith(
        f"object_store_memory={168 * MIB + 1} is too much for 4 ranks on host host1, where the job has"
    )
    assert f"has {800 * MIB} bytes of memory now: together these stores take {4 * (168 * MIB + 1)}" in said
    assert f"Give at most {168 * MIB}. Ask for more memory, or start fewer ranks on a host" in said


def test_ranks_need_some_memory_in_any_case() -> None:
    assert lack_of_memory(roster((1, 32))) == ""
    assert lack_of_memory(roster((1, 1000), (1, 31))).startswith(
        f"There is too little memory for 1 rank on host host1, where the job has {31 * MIB} bytes of memory now: "
    )


# -- a real control group ----------------------------------------------------------------------------------------------


def _parents() -> Iterator[tuple[Path, str]]:
    """Groups below which a test may make its own, and the name of the file of the limit."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield Path("/sys/fs/cgroup/memory", path.lstrip("/")), "memory.limit_in_bytes"
        elif number == "0":
            # Only a group without processes, or the top, gives the controller to those below.
            own = Path("/sys/fs/cgroup", path.lstrip("/"))
            yield from (
                (folder, "memory.max") for folder in (own, *own.parents) if folder.is_relative_to("/sys/fs/cgroup")
            )


@pytest.fixture
def group() -> Iterator[Path]:
    """An empty control group with a limit of 512 MiB."""
    reason = "there is no memory controller"
    for parent, limit in _parents():
        made = parent / f"hpcfut-test-{os.getpid()}"
        try:
            made.mkdir()
        except OSError as error:
            reason = str(error)
            continue
        try:
            (made / limit).write_text(str(512 * MIB))
        except OSError as error:
            reason = str(error)
            made.rmdir()
            continue
        try:
            yield made
        finally:
            made.rmdir()
        return
    pytest.skip(f"No control group with a limit can be made here: {reason}.")


def run_in(group: Path, *words: str) -> subprocess.CompletedProcess[str]:
    enter = f"echo $$ > {shlex.quote(str(group))}/cgroup.procs && exec {shlex.join(words)}"
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        ["sh", "-c", enter], capture_output=True, text=True, timeout=100, check=False, cwd=CHECKOUT, env=environ
    )


FILL = """
import numpy as np
import hpcfut
hpcfut.init()
store = [int(node["Resources"]["object_store_memory"]) for node in hpcfut.nodes()]
refs = [hpcfut.put(np.ones(1 << 20, np.uint8)) for _ in range(store[0] * 9 // 10 >> 20)]
print(len(hpcfut.nodes()), min(store) >> 20, sum(int(hpcfut.get(ref)[0]) for ref in refs) == len(refs))
"""


def test_the_store_is_sized_by_the_group(group: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FILL)
    done = run_in(group, sys.executable, str(script))
    assert done.returncode == 0, done
    n_ranks, n_mib, is_whole = done.stdout.split()
    # Three tenths of 512 MiB, less what the process itself uses.
    assert (n_ranks, is_whole) == ("1", "True")
    assert 80 <= int(n_mib) <= 153


def test_ranks_share_the_group(group: Path, tmp_path: Path) -> None:
    found = environments()
    if not found:
        pytest.skip("There is no environment with an MPI: launch/test.sh makes them.")
    script = tmp_path / "script.py"
    script.write_text(FILL)
    done = run_in(group, next(iter(found.values())).program("hpcfut"), "run", "-n", "2", str(script))
    assert done.returncode == 0, done
    n_ranks, n_mib, is_whole = done.stdout.split()
    assert (n_ranks, is_whole) == ("2", "True")
    assert 20 <= int(n_mib) <= 76


def test_a_store_too_large_for_the_group_is_a_sentence(group: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import hpcfut\nhpcfut.init(object_store_memory=600 << 20)\nprint('started')\n")
    done = run_in(group, sys.executable, str(script))
    assert (done.returncode, done.stdout) == (1, ""), done
    assert f"ValueError: object_store_memory={600 << 20} is too much for 1 rank on host " in done.stderr
    assert "hpcfut doctor says what limits it." in done.stderr


TAKE = """
import os
import numpy
import hpcfut
from hpcfut.edges.host.memory import memory_of_job
taken = bytearray(b"x") * (memory_of_job(os.environ).nbytes_free - (20 << 20))
hpcfut.init()
print("started")
"""


def test_a_group_with_next_to_nothing_is_a_sentence(group: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TAKE)
    done = run_in(group, sys.executable, str(script))
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "HpcfutError: There is too little memory for 1 rank on host " in done.stderr


@pytest.mark.mpi
def test_too_many_ranks_for_the_group_are_a_sentence(group: Path, tmp_path: Path, mpi: Mpi) -> None:
    (limit,) = [group / name for name in ("memory.limit_in_bytes", "memory.max") if (group / name).exists()]
    limit.write_text(str(330 * MIB))
    script = tmp_path / "script.py"
    script.write_text("import hpcfut\nhpcfut.init()\nprint('started')\n")
    done = run_in(group, mpi.program("hpcfut"), "run", "-n", "8", str(script))
    assert done.returncode == 1, done
    assert "started" not in done.stdout
    assert done.stderr.count("hpcfut: There is too little memory for 8 ranks on host ") == 1, done
