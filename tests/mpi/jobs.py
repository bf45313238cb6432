"""Starts jobs of real ranks for the tests, watches their deadlines, and says what they left behind.

`run_job` starts one job in the environment of one MPI and returns a `CompletedJob`, whatever became
of the job; `CompletedJob.check` is the usual end of a test. Every process of a job carries an
environment variable with a value of its own, by which the job's processes, and no others, are
found and ended.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

CHECKOUT = Path(__file__).resolve().parents[2]
MPI_NAMES = ("openmpi", "mpich")
MARKER = "HPCFUT_TEST_JOB"
SHARED_MEMORY = Path("/dev/shm")

# More ranks than cores, and root, are what tests are like; `hpcfut run` says so by itself.
OPENMPI_SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": "slot:OVERSUBSCRIBE",
}

How = Literal["hpcfut run", "mpirun python -m hpcfut", "mpirun python", "python"]


@dataclass(frozen=True)
class Mpi:
    """One MPI's virtual environment."""

    name: str
    folder: Path

    def program(self, name: str) -> str:
        """The path of a program of this environment."""
        return str(self.folder / "bin" / name)


def environments() -> dict[str, Mpi]:
    """The environments named in HPCFUT_TEST_ENVS, or those that launch/test.sh made."""
    stated = os.environ.get("HPCFUT_TEST_ENVS")
    if stated:
        pairs = [entry.split("=", 1) for entry in stated.split(",")]
        folders = {name: Path(folder) for name, folder in pairs}
    else:
        folders = {name: CHECKOUT / ".venvs" / f"test-{name}" for name in MPI_NAMES}
    return {name: Mpi(name, folder) for name, folder in folders.items() if (folder / "bin" / "mpiexec").exists()}


@dataclass(frozen=True)
class CompletedJob:
    """What became of a job."""

    command: tuple[str, ...]
    stdout: str
    stderr: str
    returncode: int
    duration_s: float
    timed_out: bool
    leftovers: tuple[str, ...]
    #: From the end of `act` until nothing of the job was left; 0 without it.
    ended_after_s: float = 0.0

    def story(self) -> str:
        """Everything known of the job, for the message of a failed test."""
        ended = "was killed at its deadline" if self.timed_out else f"ended with {self.returncode}"
        left = "".join(f"\nleft behind: {what}" for what in self.leftovers)
        return (
            f"$ {' '.join(self.command)}\n{ended} after {self.duration_s:.1f} s{left}\n"
            f"--- its stdout\n{self.stdout}\n--- its stderr\n{self.stderr}"
        )

    def check(self, returncode: int | None = 0) -> CompletedJob:
        """Asserts that it ended by itself, with this exit status (None: any) and nothing left."""
        assert not self.timed_out, self.story()
        assert returncode is None or self.returncode == returncode, self.story()
        assert not self.leftovers, self.story()
        return self


@dataclass(frozen=True)
class RunningJob:
    """A job that a test does something to."""

    process: subprocess.Popen[bytes]
    outputs: Path

    def wait_for(self, path: Path, timeout_s: float = 30.0) -> str:
        """Waits until the job has made this file, and returns what stands in it."""
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                printed = (self.outputs / "err").read_text(errors="replace")
                raise AssertionError(f"The job has not made {path}, and printed:\n{printed}")
            time.sleep(0.01)
        return path.read_text()

    def wait_for_words(self, words: str, timeout_s: float = 30.0) -> None:
        """Waits until the job has printed this to its standard error."""
        deadline = time.monotonic() + timeout_s
        while words not in (printed := (self.outputs / "err").read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"The job has not printed '{words}', but:\n{printed}")
            time.sleep(0.01)

    def child(self, *names: str) -> psutil.Process:
        """The process of this name (any of them) below the one that was started."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = [child for child in children if child.name() in names]
        return found


Act = Callable[[RunningJob], None]


def run_job(
    mpi: Mpi,
    n_ranks: int,
    script: str | Path,
    *args: object,
    how: How = "hpcfut run",
    options: Sequence[str] = (),
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
    progress: Path | None = None,
    act: Act | None = None,
    stdin: Path | None = None,
) -> CompletedJob:
    """Runs a script on some ranks, in one of the ways in which a person may start it.

    `options` go to `hpcfut run`, or to `mpirun`, in front of the script. See `run_command` for the
    others.
    """
    command = job_command(mpi, n_ranks, script, *args, how=how, options=options)
    settings = OPENMPI_SETTINGS if how.startswith("mpirun") else {}
    return run_command(
        command, timeout_s=timeout_s, env={**settings, **(env or {})}, progress=progress, act=act, stdin=stdin
    )


def job_command(
    mpi: Mpi,
    n_ranks: int,
    script: str | Path,
    *args: object,
    how: How = "hpcfut run",
    options: Sequence[str] = (),
) -> list[str]:
    """The command line that starts a script on some ranks."""
    tail = [str(script), *map(str, args)]
    match how:
        case "hpcfut run":
            return [mpi.program("hpcfut"), "run", "-n", str(n_ranks), *options, *tail]
        case "mpirun python" | "mpirun python -m hpcfut":
            ranks = [mpi.program("mpiexec"), "-n", str(n_ranks), *options, mpi.program("python")]
            return [*ranks, *(["-m", "hpcfut"] if how.endswith("hpcfut") else []), *tail]
        case "python":
            return [mpi.program("python"), *options, *tail]


def run_command(
    command: Sequence[str],
    *,
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
    progress: Path | None = None,
    must_be_empty: Sequence[Path] = (),
    act: Act | None = None,
    stdin: Path | None = None,
) -> CompletedJob:
    """Runs a command that starts ranks, and never longer than `timeout_s`.

    With `progress`, a file that the job appends to, the deadline begins anew at each change of it.
    The job has a temporary folder of its own, which must be empty in the end. A job that sees other
    folders than this machine's says with `must_be_empty` where it may leave something. `act` is called
    as soon as the job has been started, and may do something to it. The job reads from `stdin`, or
    nothing.
    """
    job = uuid.uuid4().hex
    before = _shared_memory()
    scratch = Path(tempfile.mkdtemp(prefix="job-"))
    outputs = Path(tempfile.mkdtemp(prefix="out-"))
    try:
        started = time.monotonic()
        settings = {
            **os.environ,
            MARKER: job,
            "TMPDIR": str(scratch),
            # At a deadline every rank prints its stacks.
            "PYTHONFAULTHANDLER": "1",
            **(env or {}),
        }
        # Files and not pipes: a process that survives the job would keep a pipe open.
        with (
            (outputs / "out").open("wb") as out,
            (outputs / "err").open("wb") as err,
            (stdin or Path(os.devnull)).open("rb") as given,
        ):
            process = subprocess.Popen(
                list(command),
                stdin=given,
                stdout=out,
                stderr=err,
                env=settings,
                start_new_session=True,
                # A shell starts what runs in the background, perhaps these tests, deaf to Ctrl-C.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            with suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
            if act is not None:
                act(RunningJob(process, outputs))
            acted = time.monotonic()
            timed_out = not _wait_in_time(process, timeout_s, progress)
            if timed_out:
                _end(job, process)
        duration_s = time.monotonic() - started
        leftovers: tuple[str, ...] = ()
        if not timed_out:
            leftovers = _wait_until_clean(job, None if must_be_empty else before, must_be_empty or [scratch])
        ended_after_s = time.monotonic() - acted if act is not None else 0.0
        _kill(_processes(job))
        return CompletedJob(
            command=tuple(command),
            stdout=(outputs / "out").read_text(errors="replace"),
            stderr=(outputs / "err").read_text(errors="replace"),
            returncode=process.returncode,
            duration_s=duration_s,
            timed_out=timed_out,
            leftovers=leftovers,
            ended_after_s=ended_after_s,
        )
    finally:
        _kill(_processes(job))
        shutil.rmtree(outputs, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _wait_in_time(process: subprocess.Popen[bytes], timeout_s: float, progress: Path | None) -> bool:
    nbytes_seen = -1
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=min(0.5, timeout_s))
            return True
        if progress is not None and progress.exists() and progress.stat().st_size != nbytes_seen:
            nbytes_seen = progress.stat().st_size
            deadline = time.monotonic() + timeout_s
        if time.monotonic() > deadline:
            return False


def _end(job: str, process: subprocess.Popen[bytes]) -> None:
    """Lets the Python processes under the launcher print where they are, then kills the job."""
    ranks = [found for found in _processes(job) if found.pid != process.pid]
    for rank in ranks:
        with suppress(psutil.Error):
            if rank.name().startswith("python"):
                rank.send_signal(signal.SIGABRT)
    psutil.wait_procs(ranks, timeout=2.0)
    _kill(_processes(job))
    process.kill()
    process.wait()


def _kill(processes: Iterable[psutil.Process]) -> None:
    processes = list(processes)
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5.0)


def _processes(job: str) -> list[psutil.Process]:
    wanted = f"{MARKER}={job}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, psutil.Error):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(psutil.Process(int(folder.name)))
    return found


def _shared_memory() -> frozenset[str]:
    # hpcfut uses no semaphores of `multiprocessing`, which tests that run beside ours may leave.
    return frozenset(entry.name for entry in SHARED_MEMORY.iterdir() if not entry.name.startswith("sem.mp-"))


def _is_mapped(name: str) -> bool:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if f"{SHARED_MEMORY}/{name}" in maps.read_text(errors="replace"):
                return True
    return False


def _wait_until_clean(job: str, before: frozenset[str] | None, folders: Sequence[Path]) -> tuple[str, ...]:
    """What is still there of a job a moment after its end; without `before` it has not seen our shared memory.

    Another job may be running beside this one, so that a shared segment counts only where no
    living process maps it.
    """
    deadline = time.monotonic() + 3.0
    # What comes later is not of this job.
    suspects = _shared_memory() - before if before is not None else frozenset()
    while True:
        left = [f"process {found.pid}: {_cmdline(found)}" for found in _processes(job)]
        suspects &= _shared_memory()
        left += [f"{SHARED_MEMORY}/{name}" for name in sorted(suspects) if not _is_mapped(name)]
        left += [f"in a folder of the job: {path}" for top in folders for path in _below(top)]
        if not left or time.monotonic() > deadline:
            return tuple(left)
        time.sleep(0.1)


def _below(top: Path) -> list[Path]:
    """All that is in a folder and below; unlike `rglob` it bears that somebody removes things meanwhile."""
    return [Path(folder, name) for folder, folders, files in os.walk(top) for name in (*folders, *files)]


def _cmdline(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return "(ended meanwhile)"
