"""mpi4py.futures: rank 0 drives and rank 1 is its one worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import mpi4py
from measures import TASKS_ASYNC, TASKS_SYNC, task
from mpi4py import MPI
from mpi4py.futures import MPIPoolExecutor

from adapters import Call


class Futures:
    """`submit` and `result`."""

    def __init__(self) -> None:
        self.driver = os.getpid()
        self._executor = MPIPoolExecutor()

    def version(self) -> str:
        """Of mpi4py and of the MPI under it."""
        vendor, numbers = MPI.get_vendor()
        return f"mpi4py.futures {mpi4py.__version__}, {vendor} {'.'.join(map(str, numbers))}"

    def run(self, body: Callable[[], None]) -> None:
        """Started with `-m mpi4py.futures`, only rank 0 comes by here."""
        with self._executor:
            body()

    def calls(self) -> Mapping[str, Call]:
        """Tasks only: it has no store."""
        submit = self._executor.submit
        return {
            TASKS_SYNC: lambda n: [submit(task, number).result() for number in range(n)],
            TASKS_ASYNC: lambda n: [future.result() for future in [submit(task, number) for number in range(n)]],
        }


ADAPTER = Futures
