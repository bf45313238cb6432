"""What a transport does about a death when MPI is slow to let go of what was under way; over a made-up MPI."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from hpcfut.edges.mpi.bulk import Bulk
from hpcfut.edges.mpi.surviving import BURIED_WITHIN_S, LEAVE_WITHIN_S, NOTICED_WITHIN_S, SurvivingTransport
from hpcfut.model.errors import HpcfutError, RankLostError


class StubError(Exception):
    def Get_error_class(self) -> int:
        return 1


class Request:
    """Under way until it is told to end, well or not."""

    def __init__(self) -> None:
        self.has_ended = False
        self.has_failed = False

    def Test(self) -> bool:
        if self.has_failed:
            raise StubError("process_vm_readv failed")
        return self.has_ended


class StubReceive:
    def Start(self) -> None:
        pass


class Nobody:
    """The status of a request that is not in use."""

    def Get_source(self) -> int:
        return -1

    def Get_count(self) -> int:
        return 0

    def Get_tag(self) -> int:
        return -1


class Comm:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    def Irecv(self, data: memoryview, rank: int, tag: int) -> Request:
        self.requests.append(Request())
        return self.requests[-1]


class Transport(SurvivingTransport):
    """Rank 0 of three, without the start of MPI."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rank, self.n_ranks = 0, 3
        self.comm = Comm()
        comm: Any = self.comm
        self._bulk = self._route = Bulk(comm, 100, StubError)
        self._error: Any = StubError
        self._deadly = (75, 76)
        self._clock = lambda: self.now
        self._doorbell, self._asleep = None, bytes(3)
        self._sends, self._waiting = deque(), {}
        self._dead, self._dying, self._remains, self._refused, self._suspects = set(), {}, [], [], {}
        self._stopped, self.deaths = set(), {}
        self.n_polls = 0
        # There are no slots.
        self._n_used = self._head = 0
        self._is_probing = False
        self._slots, self._tests = [memoryview(bytes(1))], [lambda _: False]
        self._status: Any = None

    def drop(self, data: bytes) -> None:
        """MPI has taken the receive of the first slot out of use, and this lies in the slot."""
        self._slots = [memoryview(bytearray(data.ljust(8, b"\0"))) for _ in range(2)]
        self._status = Nobody()
        self._tests = [lambda _: not self._n_used, lambda _: False]
        receives: Any = [StubReceive()]
        self._receives = receives

    def find(self, rank: int) -> None:
        self._dead.add(rank)
        self._dying[rank] = self.now + BURIED_WITHIN_S


def test_a_death_is_told_while_a_frame_does_not_end() -> None:
    transport, request = Transport(), Request()
    sends: Any = transport._sends
    sends.append((request, 1))
    transport.find(1)
    transport.poll()
    assert list(transport.deaths) == [1]
    assert not transport.is_busy
    # Its buffer is kept until then.
    assert transport._remains == [request]
    request.has_ended = True
    transport.poll()
    assert transport._remains == []


def test_a_death_is_not_told_while_an_object_comes_and_the_rank_does_not_wait_for_ever() -> None:
    transport = Transport()
    transport.receive_data(1, 7, memoryview(bytearray(10)))
    transport.find(1)
    transport.poll()
    assert not transport.deaths
    transport.now = BURIED_WITHIN_S + 1.0
    with pytest.raises(HpcfutError, match="Rank 1 has died in the middle of a transfer"):
        transport.poll()
    transport.comm.requests[0].has_ended = True
    transport.poll()
    assert list(transport.deaths) == [1]
    assert transport.failed_data() == [(False, 1, 7)]


def test_a_transfer_that_fails_before_the_death_is_known() -> None:
    transport = Transport()
    transport.receive_data(1, 7, memoryview(bytearray(10)))
    transport.comm.requests[0].has_failed = True
    assert transport.completed_data() == ()
    transport.now = NOTICED_WITHIN_S / 2
    assert transport.completed_data() == []
    transport.find(1)
    transport.now = NOTICED_WITHIN_S + 1.0
    assert transport.completed_data() == []
    transport.poll()
    assert transport.failed_data() == [(False, 1, 7)]


def test_a_transfer_that_fails_without_a_death() -> None:
    transport = Transport()
    transport.receive_data(1, 7, memoryview(bytearray(10)))
    transport.comm.requests[0].has_failed = True
    assert transport.completed_data() == ()
    transport.now = NOTICED_WITHIN_S + 1.0
    with pytest.raises(RankLostError, match="process_vm_readv failed"):
        transport.completed_data()


def test_a_receive_that_a_death_has_taken_out_of_use_is_used_again() -> None:
    transport = Transport()
    transport.drop(b"")
    assert transport.poll() == []
    assert transport.poll() == []


def test_a_frame_that_mpi_has_dropped_ends_the_rank() -> None:
    transport = Transport()
    transport.drop(b"hf")
    with pytest.raises(HpcfutError, match="Rank 0 has lost a message"):
        transport.poll()


def test_nobody_waits_for_ever_for_a_rank_that_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Transport()
    transport._stopped.add(1)

    def poll() -> tuple[()]:
        transport.now += 0.5
        return ()

    monkeypatch.setattr(transport, "poll", poll)
    transport.close()
    assert transport.now == LEAVE_WITHIN_S
