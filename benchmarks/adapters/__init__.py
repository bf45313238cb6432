"""The systems that are measured, and the one small interface behind which each of them is.

Each system has one file here, which is imported only in the processes of that system. `drive.py` is the program that
these processes run; a system starts it in its own way, see `SYSTEMS`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

#: Does so many operations in a row and returns what came of them, to be checked afterwards.
Call = Callable[[int], Sequence[Any]]


class Adapter(Protocol):
    """One system, in a process of its own."""

    #: How results name the driver's process: a rank or a pid. Results must name one other process.
    driver: int

    def version(self) -> str:
        """Of the system, and of what it stands on."""

    def run(self, body: Callable[[], None]) -> None:
        """Starts the system, calls `body` where its driver is, and stops the system."""

    def calls(self) -> Mapping[str, Call]:
        """What it can do, by the names of `measures.py`."""


@dataclass(frozen=True)
class System:
    """How a system is started."""

    name: str
    module: str
    #: The package without which it is not measured.
    needs: str
    #: In front of `drive.py`; the first word is a program of this environment or of PATH.
    command: tuple[str, ...]
    #: After its arguments.
    tail: tuple[str, ...] = ()

    def reason_against(self) -> str | None:
        """Why it cannot be measured here."""
        if importlib.util.find_spec(self.needs) is None:
            return f'the package {self.needs} is not installed: pip install "hpcfut[bench]"'
        return None

    def command_line(self, *words: str) -> list[str]:
        """The command that measures it."""
        script = Path(__file__).parents[1] / "drive.py"
        return [*self.command, str(script), self.name, *words, *self.tail]


RANKS = ("mpiexec", "-n", "2", sys.executable)
SYSTEMS = {
    system.name: system
    for system in (
        System("bare", "bare", "mpi4py", RANKS),
        System("serving", "serving", "mpi4py", RANKS),
        System("hpcfut", "hpcfut", "hpcfut", ("hpcfut", "run", "-n", "2", "--cpus-per-rank", "1")),
        System("ray", "ray", "ray", ("python",)),
        System("charm4py", "charm4py", "charm4py", ("python", "-m", "charmrun.start", "+p2"), ("++local", "++quiet")),
        System("mpi4py.futures", "futures", "mpi4py", (*RANKS, "-m", "mpi4py.futures")),
        System("dask", "dask", "distributed", ("python",)),
    )
}


def load(name: str) -> Adapter:
    """The adapter of a system, in a process of that system."""
    adapter: Adapter = importlib.import_module(f"adapters.{SYSTEMS[name].module}").ADAPTER()
    return adapter
