"""hpcfut: rank 0 drives, and all tasks and actors are bound to rank 1, but for pairs of actors."""

from __future__ import annotations

from collections.abc import Callable

import mpi4py
from mpi4py import MPI

import hpcfut
from adapters.ray_names import RayNames

EXECUTOR = 1


class Hpcfut(RayNames):
    """Two ranks of one job; results name the pid, and rank 1 is asked for its own."""

    def __init__(self) -> None:
        bound = [{"scheduling_strategy": hpcfut.NodeAffinitySchedulingStrategy(rank)} for rank in (0, EXECUTOR)]
        super().__init__(hpcfut, bound[1], bound)

    def version(self) -> str:
        """Of hpcfut and of the MPI under it."""
        vendor, numbers = MPI.get_vendor()
        return f"hpcfut {hpcfut.__version__}, mpi4py {mpi4py.__version__}, {vendor} {'.'.join(map(str, numbers))}"

    def run(self, body: Callable[[], None]) -> None:
        """The script of a job runs on rank 0 only; this one must have two."""
        n_ranks = len(hpcfut.nodes())
        if n_ranks != 2:
            raise SystemExit(f"This needs 2 ranks and got {n_ranks}: hpcfut run -n 2.")
        body()


ADAPTER = Hpcfut
