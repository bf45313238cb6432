"""Reading one-sidedly, over a made-up MPI in which a rank has died."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hpcfut.edges.mpi.bulk import Bulk
from hpcfut.edges.mpi.one_sided import OneSided
from hpcfut.model.errors import RankLostError


class FailedError(Exception):
    """What the stub raises in place of MPI's exception."""


class StubRequest:
    """Not done, and from some time on to or from a rank that is dead."""

    def __init__(self) -> None:
        self.is_lost = False

    def Test(self) -> bool:
        if self.is_lost:
            raise FailedError("MPI_ERR_PROC_FAILED")
        return False


class StubComm:
    """Keeps the request of every receive and of every note."""

    def __init__(self) -> None:
        self.receives: list[StubRequest] = []
        self.notes: list[StubRequest] = []

    def Irecv(self, data: memoryview, rank: int, tag: int) -> StubRequest:
        self.receives.append(StubRequest())
        return self.receives[-1]

    def Issend(self, data: memoryview, rank: int, tag: int) -> StubRequest:
        self.notes.append(StubRequest())
        return self.notes[-1]


@pytest.fixture
def comm() -> StubComm:
    return StubComm()


@pytest.fixture
def route(comm: Any, monkeypatch: pytest.MonkeyPatch) -> OneSided:
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=SimpleNamespace(Get_address=lambda _: 0)))
    return OneSided(comm, Bulk(comm, 100, FailedError), 100, FailedError)


def test_the_reader_of_an_offer_dies(route: OneSided, comm: StubComm) -> None:
    route.start(True, 2, 7, memoryview(bytearray(10)))
    assert route.completed() == []
    comm.notes[0].is_lost = True
    with pytest.raises(RankLostError, match="MPI_ERR_PROC_FAILED") as lost:
        route.completed()
    assert lost.value.rank == 2


@pytest.mark.parametrize("is_send", [False, True])
def test_who_was_to_say_something_dies(route: OneSided, comm: StubComm, is_send: bool) -> None:
    route.start(False, 1, 6, memoryview(bytearray(10)))
    route.start(is_send, 2, 7, memoryview(bytearray(10)))
    assert route.completed() == []
    comm.receives[1].is_lost = True
    with pytest.raises(RankLostError, match="MPI_ERR_PROC_FAILED") as lost:
        route.completed()
    assert lost.value.rank == 2
