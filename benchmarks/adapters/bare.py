"""The bare mpi4py loop of `bare_loop.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import bare_loop
import mpi4py
from measures import ACTOR_ASYNC, ACTOR_SYNC, PING_PONG, TASKS_ASYNC, TASKS_SYNC
from mpi4py import MPI

from adapters import Call


class Bare:
    """Rank 0 drives, rank 1 executes; results name the rank."""

    driver = 0
    run_sync = staticmethod(bare_loop.run_sync)
    run_async = staticmethod(bare_loop.run_async)

    def version(self) -> str:
        """Of mpi4py and the MPI."""
        vendor, numbers = MPI.get_vendor()
        return f"mpi4py {mpi4py.__version__}, {vendor} {'.'.join(map(str, numbers))}"

    def run(self, body: Callable[[], None]) -> None:
        """Rank 1 serves meanwhile."""
        comm = MPI.COMM_WORLD
        if comm.rank:
            bare_loop.serve(comm)
        else:
            body()
            comm.send(None, bare_loop.EXECUTOR)

    def calls(self) -> Mapping[str, Call]:
        """Tasks, which are calls of an actor as well, and the raw ping-pong."""
        comm = MPI.COMM_WORLD

        def ping_pong(n: int) -> list[int]:
            bare_loop.run_ping_pong(comm, n)
            return [n]

        def sync(n: int) -> Sequence[object]:
            return self.run_sync(comm, n)[1]

        def many(n: int) -> Sequence[object]:
            return self.run_async(comm, n)[1]

        return {
            TASKS_SYNC: sync,
            TASKS_ASYNC: many,
            ACTOR_SYNC: sync,
            ACTOR_ASYNC: many,
            PING_PONG: ping_pong,
        }


ADAPTER = Bare
