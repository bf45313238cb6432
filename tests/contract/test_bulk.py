"""Bulk data over a made-up MPI."""

from __future__ import annotations

import mmap
from typing import Any

import pytest

from hpcfut.edges.mpi.bulk import NBYTES_CHUNK, Bulk
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
    # On an MPI that notices no deaths, this is how one shows.
    comm: Any = StubComm()
    bulk = Bulk(comm, 100, FailedTransferError)
    bulk.start(False, 2, 7, memoryview(bytearray(10)))
    with pytest.raises(RankLostError, match="process_vm_readv failed") as lost:
        bulk.completed()
    assert lost.value.rank == 2


class DoneRequest:
    def Test(self) -> bool:
        return True


class CountingComm:
    """Notes how large its messages are."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def Issend(self, data: memoryview, rank: int, tag: int) -> DoneRequest:
        self.sizes.append(data.nbytes)
        return DoneRequest()

    Irecv = Issend


@pytest.mark.parametrize("is_send", [False, True])
def test_no_message_is_larger_than_mpi_can_count(is_send: bool) -> None:
    comm: Any = CountingComm()
    bulk = Bulk(comm, 100, FailedTransferError)
    nbytes = (5 << 30) + 1
    # Pages that nobody touches cost nothing.
    bulk.start(is_send, 2, 7, memoryview(mmap.mmap(-1, nbytes)))
    while bulk.is_busy:
        bulk.completed()
    assert (sum(comm.sizes), max(comm.sizes)) == (nbytes, NBYTES_CHUNK)
