"""What the network can do, found out by trying."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hpcfut.edges.mpi.start import World

#: So long the target stays outside MPI; a network that needs nobody there takes microseconds.
_OUTSIDE_S: Final = 0.02
#: Ranks that share cores may come late, so that a target seems to be outside; not every time.
_N_TRIALS: Final = 5


def reads_without_target(world: World, reader: int, target: int) -> bool:
    """Whether one rank reads the memory of another that is outside MPI meanwhile. Collective, and equal on all ranks.

    Where it does not, somebody emulates one-sided reads by messages, which the target must answer.
    """
    from mpi4py import MPI

    comm, now = world.comm, MPI.Wtime
    assert isinstance(comm, MPI.Intracomm)
    there, here = bytearray(64), bytearray(64)
    window = MPI.Win.Create(there, 1, comm=comm)
    window.Lock_all(MPI.MODE_NOCHECK)
    # The first read may have to make a connection, with the help of both.
    if world.rank == reader:
        window.Rget(here, target).Wait()
    n_done = 0
    for _ in range(_N_TRIALS):
        comm.Barrier()
        began = now()
        if world.rank == target:
            _stay_outside(now, began + _OUTSIDE_S)
        elif world.rank == reader:
            _stay_outside(now, began + _OUTSIDE_S / 3)  # By then the target has come out of the barrier.
            request, is_done = window.Rget(here, target), False
            while not is_done and now() < began + 2 * _OUTSIDE_S / 3:
                is_done = bool(request.Test())
            n_done += is_done
            request.Wait()
    parts = world.gather(bytes([n_done]))
    window.Unlock_all()
    window.Free()
    return parts[reader] == bytes([_N_TRIALS])


def _stay_outside(now: Callable[[], float], until: float) -> None:
    while now() < until:
        pass
