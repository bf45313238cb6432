"""Two hosts on one machine, with a cable between them that counts bytes.

A host is a process that holds namespaces of its own: network, host name, mounts, processes and
shared memory. The cable is a pair of virtual devices, one end in each. There is nothing to tidy up:
when the holders end, and they end with the tests, namespaces and cable vanish, and so nothing in
the machine has a name that a second run at the same time could collide with.

Launchers reach a host through an agent in place of ssh, see `remote.py`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.mpi.jobs import (
    CHECKOUT,
    OPENMPI_SETTINGS,
    CompletedJob,
    How,
    Mpi,
    environments,
    job_command,
    run_command,
)

NAMES = ("host1", "host2")
ADDRESSES = {"host1": "10.77.0.1", "host2": "10.77.0.2"}
CABLE = "cable0"
HOSTS_FLAG = {"openmpi": "--host", "mpich": "-hosts"}
TOOLS = ("hostname", "ip", "mount", "nsenter", "setpriv", "unshare")
REMOTE = (sys.executable, "-m", "tests.testbed.remote")
NAMESPACES = ("net", "uts", "mount", "ipc", "pid")

# The first process of a host. The boot id is how software tells machines from each other. A shell
# stays as process 1, because orphans must be reaped.
HOLD = """
set -e
host=$1 folder=$2
shift 2
hostname "$host"
mount --make-rprivate /
mount -t tmpfs tmpfs /dev/shm
mount --bind "$folder/tmp-$host" "$folder/tmp"
# The environments by another path: Open MPI does not quote the spaces in what it gives to ssh.
while read -r mpi path; do
    mount --bind "$path" "$folder/$mpi"
done <"$folder/environments"
# A view of the devices of this host's network; UCX looks them up there.
mkdir "$folder/sys-$host"
mount -t sysfs sysfs "$folder/sys-$host"
mount --rbind /sys/fs/cgroup "$folder/sys-$host/fs/cgroup"
mount --rbind "$folder/sys-$host" /sys
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/boot_id-$host" /proc/sys/kernel/random/boot_id
ip link set lo up
"$@" &
wait $!
"""


class NoTestbed(Exception):
    """This machine cannot make hosts."""


@dataclass(frozen=True)
class TwoHosts:
    """The hosts, while they are there."""

    folder: Path
    holders: Mapping[str, int]

    def enter(self, host: str) -> list[str]:
        """What to put in front of a command so that it runs on a host."""
        return ["nsenter", f"--target={self.holders[host]}", *(f"--{name}" for name in NAMESPACES)]

    def nbytes_crossed(self) -> int:
        """Bytes that went over the cable until now, both ways."""
        counters = _cable(self, "host1")["stats64"]
        return int(counters["rx"]["bytes"]) + int(counters["tx"]["bytes"])

    def run(
        self,
        mpi: Mpi,
        n_ranks: int,
        script: str | Path,
        *args: object,
        how: How = "hpcfut run",
        options: Sequence[str] = (),
        on: Sequence[str] = NAMES,
        timeout_s: float = 90.0,
        env: Mapping[str, str] | None = None,
    ) -> CompletedJob:
        """Runs a script from the first host, on as many ranks on each of some hosts.

        Paths must be absolute: a command enters a host in its root folder.
        """
        assert n_ranks % len(on) == 0, "The hosts get as many ranks each."
        slots = ",".join(f"{host}:{n_ranks // len(on)}" for host in on)
        flag = "--hosts" if how == "hpcfut run" else HOSTS_FLAG[mpi.name]
        command = job_command(self.seen(mpi), n_ranks, script, *args, how=how, options=[flag, slots, *options])
        settings = OPENMPI_SETTINGS if mpi.name == "openmpi" and how.startswith("mpirun") else {}
        return self.start(mpi, command, timeout_s=timeout_s, env={**settings, **(env or {})})

    def seen(self, mpi: Mpi) -> Mpi:
        """An MPI by its path on the hosts."""
        return Mpi(mpi.name, self.folder / mpi.name)

    def start(
        self, mpi: Mpi, command: Sequence[str], *, timeout_s: float = 90.0, env: Mapping[str, str] | None = None
    ) -> CompletedJob:
        """Runs a command of an MPI's environment on the first host."""
        there = self.seen(mpi)
        if command[0] == there.program("hpcfut"):
            # Its first line names the Python by the path that the hosts are to forget.
            command = [there.program("python"), *command]
        scratch = [folder for host in NAMES for folder in self._scratch(host)]
        try:
            return run_command(
                [*self.enter("host1"), *command],
                timeout_s=timeout_s,
                # One path and two folders, as /tmp is on real machines.
                env={**self._agent_of(mpi), "TMPDIR": str(self.folder / "tmp"), **(env or {})},
                must_be_empty=scratch,
            )
        finally:
            # What one job has left is not to be laid at the door of the next.
            for folder in scratch:
                empty(folder)

    def _scratch(self, host: str) -> list[Path]:
        """The folders of a host in which a job may leave something."""
        return [self.folder / f"tmp-{host}", Path(f"/proc/{self.holders[host]}/root/dev/shm")]

    def _agent_of(self, mpi: Mpi) -> dict[str, str]:
        agent = str(self.folder / "agent")
        if mpi.name == "mpich":
            return {"HYDRA_LAUNCHER": "ssh", "HYDRA_LAUNCHER_EXEC": agent}
        return {"PRTE_MCA_plm_ssh_agent": agent}


def empty(folder: Path) -> None:
    """Removes all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Makes the hosts and the cable, for as long as the block lasts; raises `NoTestbed`."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        raise NoTestbed("Only root can make network namespaces: start the tests as root.")
    if missing:
        raise NoTestbed(
            f"The testbed needs {', '.join(missing)}, which this line installs: "
            "apt-get install -y iproute2 mount util-linux hostname"
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="testbed-")))
        lines = [f"{address} {host}\n" for host, address in ADDRESSES.items()]
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))
        for name in ["tmp", *environments()]:
            (folder / name).mkdir()
        paths = "".join(f"{mpi.name} {mpi.folder}\n" for mpi in environments().values())
        (folder / "environments").write_text(paths)
        holders = {host: stack.enter_context(_holder(host, folder)) for host in NAMES}
        hosts = TwoHosts(folder, holders)
        _lay_cable(hosts)
        _write_agent(folder)
        yield hosts


@contextmanager
def _holder(host: str, folder: Path) -> Iterator[int]:
    """Starts the process that holds a host's namespaces; gives its id."""
    (folder / f"tmp-{host}").mkdir()
    (folder / f"boot_id-{host}").write_text(f"{uuid.uuid4()}\n")
    unshare = ["unshare", *(f"--{name}" for name in NAMESPACES), "--fork", "--kill-child"]
    # Ends with this process, even if that is killed.
    hold = ["setpriv", "--pdeathsig=KILL", *unshare, "--mount-proc", "sh", "-c", HOLD, "sh"]
    serve = [*REMOTE, "serve", str(folder / f"{host}.socket"), str(folder / "tmp")]
    with subprocess.Popen(
        [*hold, host, str(folder), *serve],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if said != "ready":
                raise NoTestbed(f"This machine does not let root make namespaces: {said}")
            yield psutil.Process(process.pid).children()[0].pid
        finally:
            process.kill()


def _lay_cable(hosts: TwoHosts) -> None:
    one, two = (str(hosts.holders[host]) for host in NAMES)
    ends = ["netns", one, "type", "veth", "peer", "name", CABLE, "netns", two]
    _output(["ip", "link", "add", CABLE, *ends])
    for host, address in ADDRESSES.items():
        _output([*hosts.enter(host), "ip", "address", "add", f"{address}/24", "dev", CABLE])
        _output([*hosts.enter(host), "ip", "link", "set", CABLE, "up"])
    # The kernel takes up to a second to notice that both ends are up.
    deadline = time.monotonic() + 10.0
    while any(_cable(hosts, host)["operstate"] != "UP" for host in NAMES):
        if time.monotonic() > deadline:
            raise NoTestbed("The cable between the hosts of the testbed does not come up.")
        time.sleep(0.05)


def _cable(hosts: TwoHosts, host: str) -> dict[str, Any]:
    """What the system says of one end of the cable."""
    command = [*hosts.enter(host), "ip", "-json", "-stats", "link", "show", "dev", CABLE]
    found: list[dict[str, Any]] = json.loads(_output(command))
    return found[0]


def _write_agent(folder: Path) -> None:
    words = [*REMOTE, "ask", str(folder)]
    where = f"export PYTHONPATH={shlex.quote(str(CHECKOUT))}"
    (folder / "agent").write_text(f'#!/bin/sh\n{where}\nexec {shlex.join(words)} "$@"\n')
    (folder / "agent").chmod(0o755)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoTestbed(f"'{' '.join(command)}' failed: {done.stderr.strip()}")
    return done.stdout
