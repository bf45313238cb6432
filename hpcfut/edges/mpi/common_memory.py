"""Memory that MPI lets the ranks of a host share, for those that cannot map each other's.

MPI says which ranks share a host, and may be wrong: with containers, not all that it takes for neighbours find each
other's files. Its own way of sharing memory would then fail on some ranks and have the others wait without end. So only
those of them come together whose folder of shared memory is one and the same for the kernel.

Open MPI takes a rank for the one that has made the memory if it has the same process number, which in containers is
nothing special. There the rank that makes it, the first one, must have a number that no other has.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from hpcfut.edges.mpi.start import World
from hpcfut.model.errors import HpcfutError
from hpcfut.model.variables import ONE_HOST_VARIABLE

if TYPE_CHECKING:
    from mpi4py import MPI


class _Member(msgspec.Struct, array_like=True, frozen=True):
    rank: int
    pid: int
    #: The ranks whose memory it can map without help, and which can map its.
    reached: list[int]


class MpiMemory:
    """Implements ``ports.CommonMemory`` on a communicator of its own."""

    def __init__(self, group: World, ranks: Sequence[int]) -> None:
        self.ranks = ranks
        self._group = group
        self._window: MPI.Win | None = None

    @classmethod
    def among(cls, world: World, reached: Sequence[int], folder_key: bytes) -> MpiMemory | None:
        """What the ranks of this host need, if they need it and MPI can give it; all ranks of the job do it.

        Args:
            world: All ranks of the job.
            reached: The ranks, the own one included, that map each other's memory without help.
            folder_key: Equal for ranks that have their folder of shared memory in common.
        """
        from mpi4py import MPI

        near = World(world.comm.Split_type(MPI.COMM_TYPE_SHARED), False, world.thread_level)
        keys = near.gather(folder_key)
        pids = [int(part) for part in near.gather(b"%d" % os.getpid())]
        comm = near.comm.Split(keys.index(folder_key), world.rank + world.n_ranks * (pids.count(os.getpid()) > 1))
        near.comm.Free()
        comm.Set_errhandler(MPI.ERRORS_RETURN)
        group = World(comm, False, world.thread_level)
        members = group.gather_records(_Member(world.rank, os.getpid(), list(reached)))
        ranks, pids = [member.rank for member in members], [member.pid for member in members]
        is_needed = any(member.reached != sorted(ranks) for member in members)
        is_possible = all(set(ranks).issuperset(member.reached) for member in members)
        if MPI.Get_library_version().startswith("Open MPI"):
            is_possible = is_possible and pids.count(pids[0]) == 1
        if is_needed and is_possible:
            return cls(group, ranks)
        comm.Free()
        return None

    def gather(self, data: bytes) -> list[bytes]:
        """Give every rank the bytes of all. Collective."""
        return self._group.gather(data)

    def allocate(self, nbytes: int) -> list[int]:
        """Have memory in common, of which so much is this rank's; returns where each rank's begins here. Collective.

        Raises:
            HpcfutError: MPI does not give it.
        """
        from mpi4py import MPI

        info = MPI.Info.Create({"alloc_shared_noncontig": "true"})
        try:
            assert isinstance(self._group.comm, MPI.Intracomm)
            self._window = window = MPI.Win.Allocate_shared(nbytes, 1, info, self._group.comm)
            return [MPI.Get_address(window.Shared_query(number)[0]) for number in range(len(self.ranks))]
        except MPI.Exception as error:
            # Other ranks may be waiting for this one inside MPI, and only the end of the job ends that.
            raise HpcfutError(
                f"MPI cannot give the {len(self.ranks)} ranks of this host {nbytes} bytes of shared memory each for "
                f"their objects ({error}). Set {ONE_HOST_VARIABLE}=no on all ranks, and objects travel between them as "
                f"between hosts."
            ) from error
        finally:
            info.Free()

    def free(self) -> None:
        """Give MPI's own mapping back; what was mapped once more stays. Collective."""
        if self._window is not None:
            self._window.Free()
            self._window = None

    def close(self) -> None:
        """Give everything back. Collective."""
        self.free()
        self._group.comm.Free()
