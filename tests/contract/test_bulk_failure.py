"""A transfer that fails names the rank at its other end: on an MPI that notices no deaths, this is how one shows."""

from __future__ import annotations

from typing import Any

import pytest

from hpcfut.edges.mpi.bulk import Bulk
from hpcfut.model.errors import RankLostError


class FailedTransferError(Exception):
    """What the stub raises in place of MPI's exception."""


class StubRequest:
    def Test(self) -> bool:
        raise FailedTransferError("process_vm_readv failed")


class StubComm:
    def Irecv(self, data: memoryview, rank: int, tag: int) -> StubRequest:
        return StubRequest()


def test_the_rank_at_the_other_end_is_lost() -> None:
    comm: Any = StubComm()
    bulk = Bulk(comm, 100, FailedTransferError)
    bulk.start(False, 2, 7, memoryview(bytearray(10)))
    with pytest.raises(RankLostError, match="process_vm_readv failed") as lost:
        bulk.completed()
    assert lost.value.rank == 2
