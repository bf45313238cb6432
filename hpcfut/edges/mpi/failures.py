"""What MPI reports as error codes, said as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.edges.mpi.deaths import failed_ranks
from hpcfut.model.errors import HpcfutError, RankLostError

if TYPE_CHECKING:
    from mpi4py import MPI


def explain(error: MPI.Exception, comm: MPI.Comm, doing: str) -> HpcfutError:
    """Turn an MPI error into the exception that names the dead rank, or into a sentence about what went wrong.

    Args:
        error: What mpi4py raised.
        comm: The communicator on which it happened.
        doing: What was being done, as "sending a frame to rank 3".
    """
    from mpi4py import MPI

    text = error.Get_error_string()
    if error.Get_error_class() in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING):
        dead = failed_ranks(comm)
        if dead:
            return RankLostError(min(dead), f"MPI found out while {doing} ({text}).")
    return HpcfutError(
        f"MPI failed on rank {comm.Get_rank()} while {doing}: {text}. If another rank died just before, look at its "
        f"output first; otherwise `hpcfut doctor` tells what this MPI can do."
    )
