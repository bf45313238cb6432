"""Deaths of ranks, as an MPI with fault tolerance (ULFM) tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hpcfut.model.variables import TCP_FLAGS, TCP_FLAGS_VARIABLE

if TYPE_CHECKING:
    from mpi4py import MPI

#: What means the same to Open MPI.
_SENDS: Final = (TCP_FLAGS, "1")


def trouble_with_tcp(environ: Mapping[str, str], thread_level: str) -> str:
    """The sentence that says why an MPI with fault tolerance must not be used as it was started; empty if it may."""
    way = environ.get(TCP_FLAGS_VARIABLE, "")
    if thread_level != "multiple" or way in _SENDS:
        return ""
    how = f"with {TCP_FLAGS_VARIABLE}={way}" if way else f"without {TCP_FLAGS_VARIABLE}, by code of the user"
    return (
        f"MPI was initialised with fault tolerance and for many threads, but {how}. A rank that sends to another one "
        f"which dies could then wait for ever. Set {TCP_FLAGS_VARIABLE}={TCP_FLAGS} for all ranks; `hpcfut run` does."
    )


def tells_of_deaths() -> bool:
    """Whether this MPI, as it was started, reports failures; found out by trying, on this rank alone.

    Every mpi4py has the calls. Without fault tolerance those of MPICH do nothing, and Open MPI notes that somebody
    revokes a communicator, but goes on using it.
    """
    from mpi4py import MPI

    comm = MPI.COMM_SELF.Dup()
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    try:
        comm.Revoke()
        comm.Iprobe(0, 0)
        return False
    except MPI.Exception as error:
        return error.Get_error_class() == MPI.ERR_REVOKED
    except NotImplementedError:  # An MPI without these calls tells of nothing.
        return False
    finally:
        comm.Free()


def dead_at_start() -> Sequence[int] | None:
    """The ranks of the job of which MPI knows that they are dead; none before it has started. Any thread may ask.

    Where MPI does not admit several threads it is not asked.
    """
    from mpi4py import MPI

    if not MPI.Is_initialized():
        return None
    if MPI.Is_finalized() or MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        return ()
    return failed_ranks(MPI.COMM_WORLD)


def end_start() -> None:
    """End all processes of the job, if MPI has started."""
    from mpi4py import MPI

    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.COMM_WORLD.Abort(1)


def failed_ranks(comm: MPI.Comm) -> list[int]:
    """The ranks of a communicator of which MPI knows that they are dead, in the order in which it found out."""
    failed = comm.Get_failed()
    own = comm.Get_group()
    try:
        return list(failed.Translate_ranks(list(range(failed.Get_size())), own))
    finally:
        failed.Free()
        own.Free()
