"""The processes of a run: systems that are measured, and benchmarks of hpcfut's own that have a job to themselves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
#: Open MPI lets root start ranks only when told so, twice; `hpcfut run` knows that by itself.
SETTINGS = {
    f"{prefix}_ALLOW_RUN_AS_ROOT{suffix}": "1" for prefix in ("OMPI", "PRTE") for suffix in ("", "_CONFIRM")
} | {"OMPI_MCA_osc": "^ucx", "PYTHONUNBUFFERED": "1"}


class JobFailedError(Exception):
    """A process ended badly; the text says which one and how."""


def program(name: str) -> str:
    """A program of this Python's environment, or else of PATH."""
    if name == "python":
        return sys.executable
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return shutil.which(name, path=path) or name


def run_command(command: Sequence[str], timeout_s: float) -> str:
    """What it printed. It is a session of its own, and nothing of that outlives its deadline."""
    settings = SETTINGS if command[0] == program("mpiexec") else {}
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings},
            start_new_session=True,
        )
        try:
            status: int | str = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = f"nothing within {timeout_s:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        printed.seek(0)
        text = printed.read()
    if status != 0:
        raise JobFailedError(f"{' '.join(command)} gave {status}:\n{text[-2000:]}")
    return text


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that is a script of its own, and writes a JSON line."""

    #: In front of the script; the first word is a program.
    command: tuple[str, ...]
    script: str
    timeout_s: float = 900.0

    def reason_against(self) -> str | None:
        """Why it cannot be measured here."""
        if "two_hosts.py" in self.command and os.geteuid() != 0:
            return "only root can make network namespaces"
        return None

    def run(self, *, is_small: bool) -> tuple[dict[str, list[float]], str]:
        """Its figures, each with a value for every round, and the hash of its results."""
        words = [program(self.command[0]), *(str(FOLDER / w) if w.endswith(".py") else w for w in self.command[1:])]
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "line.json"
            tail = ["--output", str(output), *(["--small"] if is_small else [])]
            printed = run_command([*words, str(FOLDER / self.script), *tail], self.timeout_s)
            figures: dict[str, list[float]] = json.loads(output.read_text(encoding="utf-8"))["figures"]
        (line,) = [line for line in printed.splitlines() if line.startswith("result hash")]
        return figures, line.split()[-1]


TWO_RANKS = ("hpcfut", "run", "-n", "2")
TWO_PROCESSES = ("mpiexec", "-n", "2", sys.executable)
BENCHMARKS = {
    "busy": Benchmark(TWO_RANKS, "busy.py"),
    "two-hosts": Benchmark(("python", "two_hosts.py"), "busy.py"),
    "readers": Benchmark(("python", "two_hosts.py", "--ranks", "8"), "many_readers.py"),
    "idle": Benchmark(TWO_RANKS, "idle.py"),
    "queued": Benchmark(TWO_RANKS, "queued_tasks.py"),
    "short": Benchmark(("hpcfut", "run", "-n", "4"), "short_tasks.py"),
    "many-actors": Benchmark(("hpcfut", "run", "-n", "4"), "many_actors.py"),
    "task-life": Benchmark(TWO_RANKS, "task_life.py"),
    "importing": Benchmark(("python",), "importing.py"),
    "store": Benchmark(TWO_RANKS, "store.py"),
    "spill": Benchmark(("python",), "spill.py"),
    "core": Benchmark(("python",), "core.py"),
    "arena": Benchmark(("python",), "arena.py"),
    "memory": Benchmark(("python",), "memory.py"),
    "wire": Benchmark(("python",), "wire.py"),
    "transport": Benchmark(TWO_PROCESSES, "transport.py"),
}
