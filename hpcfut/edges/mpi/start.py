"""Start and end of MPI in a process: the only collectives and the only blocking calls that hpcfut makes."""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from mpi4py import MPI

Record = TypeVar("Record", bound=msgspec.Struct)


class World:
    """All ranks of the job, on a communicator of our own, for bootstrap alone."""

    def __init__(self, comm: MPI.Comm, is_ours: bool, thread_level: str) -> None:
        self.comm = comm
        self.rank: int = comm.Get_rank()
        self.n_ranks: int = comm.Get_size()
        #: Whether hpcfut initialised MPI, and must therefore end it.
        self.is_ours = is_ours
        #: What MPI granted: ``single``, ``funneled``, ``serialized`` or ``multiple``.
        self.thread_level = thread_level
        #: To be called before MPI is ended, of which others may make use meanwhile.
        self.before_end: Callable[[], None] = lambda: None

    def gather(self, data: bytes) -> list[bytes]:
        """Give every rank the bytes of all ranks, in the order of the ranks. Collective."""
        sizes = array("q", bytes(8 * self.n_ranks))
        self.comm.Allgather(array("q", [len(data)]), sizes)
        whole = bytearray(sum(sizes))
        self.comm.Allgatherv(data, (whole, list(sizes)))
        parts, start = [], 0
        for nbytes in sizes:
            parts.append(bytes(whole[start : start + nbytes]))
            start += nbytes
        return parts

    def gather_records(self, record: Record) -> list[Record]:
        """Give every rank the records of all ranks, in the order of the ranks. Collective."""
        decoder = msgspec.msgpack.Decoder(type(record))
        return [decoder.decode(part) for part in self.gather(msgspec.msgpack.encode(record))]

    def finalize(self) -> None:
        """End MPI, if hpcfut started it; otherwise give back the communicator and leave MPI to the user. Collective."""
        from mpi4py import MPI

        if MPI.Is_finalized():
            return
        self.before_end()
        self.comm.Free()
        if self.is_ours:
            MPI.Finalize()

    def say_goodbye(self) -> None:
        """Tell the launcher that this process, which was spawned, is about to leave in good order.

        Otherwise it takes that for an accident, unlike the same of those that it has started itself. MPI has no word
        for it that other processes need not say as well.
        """
        maps = Path("/proc/self/maps").read_text().splitlines()
        path = next((line.split(maxsplit=5)[5] for line in maps if "/libpmix.so" in line), "")
        if path:
            ctypes.CDLL(path).PMIx_Finalize(None, 0)

    def abort(self, status: int) -> None:
        """End all processes of the job at once, without any clean-up; does not return."""
        from mpi4py import MPI

        MPI.COMM_WORLD.Abort(status)


def start_mpi() -> World:
    """Initialise MPI, unless the user has, and meet all other ranks. Collective.

    The thread level asked for is MULTIPLE, because tasks of the user may call MPI beside the runtime.
    """
    _prepare_mpi4py()
    from mpi4py import MPI

    is_ours = not MPI.Is_initialized()
    if is_ours:
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
    levels = {
        MPI.THREAD_SINGLE: "single",
        MPI.THREAD_FUNNELED: "funneled",
        MPI.THREAD_SERIALIZED: "serialized",
        MPI.THREAD_MULTIPLE: "multiple",
    }
    comm = MPI.COMM_WORLD.Dup()
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    return World(comm, is_ours, levels[MPI.Query_thread()])


def is_started_by_user() -> bool:
    """Whether user code has initialised MPI already; never imports mpi4py by itself."""
    module = sys.modules.get("mpi4py.MPI")
    return module is not None and bool(module.Is_initialized()) and not bool(module.Is_finalized())


def library_version() -> str:
    """The first line of what the MPI library says about itself; loads it, but does not initialise it."""
    _prepare_mpi4py()
    from mpi4py import MPI

    return MPI.Get_library_version().strip("\0 \n").splitlines()[0]


def _prepare_mpi4py() -> None:
    # mpi4py initialises MPI when it is imported and ends it at exit, unless it is told before the import.
    if "mpi4py.MPI" in sys.modules:
        return
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    mpi4py.rc.errors = "exception"
    mpi4py.rc.thread_level = "multiple"
