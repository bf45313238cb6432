"""The testbed is what it claims to be: two machines, as far as software can tell, and one cable."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.mpi.jobs import MARKER, Mpi
from tests.testbed.hosts import NAMES, TwoHosts

pytestmark = pytest.mark.testbed

ACROSS = Path(__file__).parent / "across.py"
LOOKING = Path(__file__).parent / "looking.py"
NBYTES = 10_000_000


def ask(hosts: TwoHosts, host: str, line: str) -> subprocess.CompletedProcess[str]:
    """Runs a line on a host as a launcher would."""
    agent = [str(hosts.folder / "agent"), "-x", "-o", "BatchMode=yes", host, line]
    return subprocess.run(agent, capture_output=True, text=True, check=False)


def test_hosts_are_machines_apart(hosts: TwoHosts) -> None:
    boot_id = "/proc/sys/kernel/random/boot_id"
    line = f"hostname; cat {boot_id}; readlink /proc/self/ns/pid; ls /sys/class/net"
    one, two = (ask(hosts, host, line).stdout.split() for host in NAMES)
    assert [one[0], two[0]] == list(NAMES)
    assert one[1] != two[1]
    assert one[2] != two[2]
    assert one[3:] == two[3:] == ["cable0", "lo"]
    for folder in ("$TMPDIR", "/dev/shm"):
        assert ask(hosts, "host1", f"touch {folder}/mine").returncode == 0
        assert ask(hosts, "host1", f"ls {folder}").stdout == "mine\n"
        assert ask(hosts, "host2", f"ls {folder}").stdout == ""
        assert ask(hosts, "host1", f"rm {folder}/mine").returncode == 0


def test_agent_is_like_ssh(hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "1")
    monkeypatch.setenv(MARKER, "a-job")
    told = ask(hosts, "host2", "env; echo to stderr >&2; exit 7")
    assert told.returncode == 7
    assert told.stderr == "to stderr\n"
    assert "OF_THE_CALLER" not in told.stdout
    assert f"{MARKER}=a-job" in told.stdout
    assert ask(hosts, "host2", "kill -9 $$").returncode == 128 + 9
    assert ask(hosts, "host3", "true").returncode == 255


@pytest.mark.mpi
def test_ranks_see_two_hosts_and_data_crosses(hosts: TwoHosts, mpi: Mpi) -> None:
    before = hosts.nbytes_crossed()
    job = hosts.run(mpi, 4, ACROSS, NBYTES, how="mpirun python").check()
    crossed = hosts.nbytes_crossed() - before
    said = json.loads(job.stdout)
    assert said["n_groups"] == 2
    assert said["names"] == ["host1", "host1", "host2", "host2"]
    assert said["arrived"] == [0, 1, 2, 0]
    assert NBYTES < crossed < 2 * NBYTES


@pytest.mark.mpi
def test_a_frame_that_lies_in_the_socket_is_found_by_the_first_look(hosts: TwoHosts, mpi: Mpi, tmp_path: Path) -> None:
    job = hosts.run(mpi, 2, LOOKING, tmp_path, how="mpirun python").check()
    assert job.stdout.split() == ["looks", "1"]


@pytest.mark.mpi
def test_what_stays_on_a_host_does_not_cross(hosts: TwoHosts, mpi: Mpi) -> None:
    before = hosts.nbytes_crossed()
    job = hosts.run(mpi, 2, ACROSS, NBYTES, how="mpirun python", on=["host2"]).check()
    assert json.loads(job.stdout)["names"] == ["host2", "host2"]
    assert hosts.nbytes_crossed() - before < NBYTES / 10


def test_nothing_of_the_hosts_is_on_the_machine(hosts: TwoHosts) -> None:
    assert "10.77." not in Path("/etc/hosts").read_text()
    shown = subprocess.run(["ip", "address"], capture_output=True, text=True, check=True).stdout
    assert "10.77." not in shown
    assert os.uname().nodename not in NAMES
