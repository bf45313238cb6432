"""The names of shared segments, which a death would leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from hpcfut.cli.leftovers import Leftovers
from hpcfut.edges.host.job_files import JobFiles
from hpcfut.edges.host.segments import StartSegments
from tests.mpi.jobs import Mpi, run_command, run_job

#: Stands in for a rank: maps the file that it is told, and looks.
RANK = """
import mmap, os, sys
from hpcfut.edges.host.segments import StartSegments

descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, 4096)
mapping = mmap.mmap(descriptor, 4096)
mine = StartSegments()
os.write(1, mine.digest.hex().encode() + b" ")
mine.unname([mine.digest, b"another"] if sys.argv[2] == "differ" else [mine.digest, mine.digest])
os.write(1, str(os.path.exists(sys.argv[1])).encode())
if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
"""


def look(mpi: Mpi, name: str, what: str) -> tuple[str, bool]:
    path = Path("/dev/shm", name.format(os.getpid()))
    job = run_command([mpi.program("python"), "-c", RANK, str(path), what]).check()
    digest, exists = job.stdout.split()
    return digest, exists == "True"


def test_names_go_when_all_have_mapped_the_same(mpi: Mpi) -> None:
    nothing = StartSegments().digest.hex()
    for name in ("mpich_shm_{}_0", "mpich_vci_{}_0", "sm_segment.host.0.{}.0"):
        digest, exists = look(mpi, name, "agree")
        assert digest != nothing
        assert not exists
        # Some rank may still have to open it.
        assert look(mpi, name, "differ") == (digest, True)


def test_segments_of_others_are_left_alone(mpi: Mpi) -> None:
    nothing = StartSegments().digest.hex()
    for name in ("somebody_{}", "psm_{}"):
        assert look(mpi, name, "agree") == (nothing, True)


#: Stands in for a launcher with two ranks in the middle of their start: one has mapped a segment, one opened another.
STARTING = """
import mmap, os, subprocess, sys, time
from pathlib import Path

if len(sys.argv) == 3:
    descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 4096)
    if sys.argv[2] == "map":
        mapping = mmap.mmap(descriptor, 4096)
        os.close(descriptor)
    print("ready", flush=True)
    while True:
        time.sleep(0.001)

Path("/proc/self/comm").write_text(os.environ["NAME"])
ranks = [
    subprocess.Popen([sys.executable, "-c", os.environ["STARTING"], name, how], stdout=subprocess.PIPE)
    for name, how in zip(sys.argv[1:], ["map", "open", "map"])
]
for rank in ranks:
    rank.stdout.readline()
child = os.fork()
if not child:
    from hpcfut.edges.host.segments import stop_and_unname

    stop_and_unname(os.getppid())
    os._exit(0)
os.waitpid(child, 0)
print(*[os.path.exists(name) for name in sys.argv[1:]])
print(*[Path(f"/proc/{rank.pid}/stat").read_text().split()[2] for rank in ranks])
for rank in ranks:
    rank.kill()
    rank.wait()
Path(sys.argv[3]).unlink()
"""


@pytest.mark.parametrize("made", [("mpich_shm", "mpich_vci"), ("ucx_shm_posix", "ucx_shm_posix_b")])
def test_names_go_before_ranks_are_ended_that_still_start(mpi: Mpi, made: tuple[str, str]) -> None:
    names = [f"/dev/shm/{name}_{os.getpid()}_0" for name in (*made, "somebody")]
    command = [mpi.program("python"), "-c", STARTING, *names, "none"]
    job = run_command(command, env={"STARTING": STARTING, "NAME": "hydra_pmi_proxy"}).check()
    assert job.stdout == "False False True False\nT T T\n"


def test_what_a_shell_has_started_beside_a_rank_is_let_be(mpi: Mpi) -> None:
    names = [f"/dev/shm/mpich_shm_{os.getpid()}_{number}" for number in range(3)]
    command = [mpi.program("python"), "-c", STARTING, *names, "none"]
    job = run_command(command, env={"STARTING": STARTING, "NAME": "sh"})
    for name in names:
        Path(name).unlink(missing_ok=True)
    exist, states = job.stdout.splitlines()
    assert exist == "True True True False"
    assert "T" not in states.split()


#: Each rank looks at what its launcher holds open.
LOOK = """
import os
import hpcfut

@hpcfut.remote
def look():
    folder = f"/proc/{os.getppid()}/fd"
    links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
    return [link for link in links if "hydra" in link]

for node in hpcfut.nodes():
    strategy = hpcfut.NodeAffinitySchedulingStrategy(node["NodeID"])
    for link in hpcfut.get(look.options(scheduling_strategy=strategy).remote()):
        print(link)
"""


def test_what_the_launcher_writes_for_its_ranks_goes_when_they_have_started(mpi: Mpi, tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(LOOK)
    links = run_job(mpi, 2, script).check().stdout.splitlines()
    assert bool(links) == (mpi.name == "mpich")
    assert not [link for link in links if not link.endswith(" (deleted)")]


def test_what_the_launcher_has_written_is_removed_after_its_death(tmp_path: Path) -> None:
    path = Path(f"/tmp/hydra_hwloc_xmlfile_{os.getpid()}")
    leftovers = Leftovers("no job", JobFiles(tmp_path), "here")
    with subprocess.Popen(["sh", "-c", f"sleep 600 3>{path}; true"], start_new_session=True) as launcher:
        while not path.exists():
            assert launcher.poll() is None
        leftovers.watch(os.getpid())
        os.killpg(launcher.pid, signal.SIGKILL)
    leftovers.remove_files()
    assert not path.exists()
