"""A read for which this rank has no room: nobody is asked for bytes that could not be received, and the wait ends."""

from __future__ import annotations

import pytest

from hpcfut.core.events import RefsAdded, RefsReleased, WaitStarted
from hpcfut.core.rank import RankCore
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.clock import MonotonicClock
from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.model.config import Config
from hpcfut.model.failure import FULL, Failure
from hpcfut.model.ids import first_id
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.ports import SpillStore
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.hearing import Hearing
from hpcfut.wire.codec import decode_frame, encode_frame
from hpcfut.wire.messages import Message, ObjectLocated, ReadRequested

OBJECT = first_id(1, 0)
#: Room for one object of so many bytes, and for its header.
NBYTES_WINDOW = 960
NBYTES_STORE = 1024
NO_PAGES = "The system has no more memory."


def deny(offset: int, nbytes: int) -> memoryview:
    """As an arena in memory of MPI's does when others have filled the folder that it comes out of."""
    raise MemoryError(NO_PAGES)


def no_store() -> SpillStore:
    raise AssertionError("Nothing is spilled here.")


class StubTransport:
    """Keeps what is sent, and hands out what the test says has come."""

    rank = 0
    n_ranks = 2
    is_busy = False

    def __init__(self) -> None:
        self.deaths: dict[int, str] = {}
        self.sent: list[Message] = []
        self.comes: list[Message] = []
        self.receives: list[tuple[int, int, int]] = []

    def send(self, rank: int, frame: bytes, only_tasks: bool = False) -> None:
        assert rank == 1
        self.sent += decode_frame(frame)[1]

    def poll(self) -> list[tuple[int, bytes]]:
        messages, self.comes = self.comes, []
        return [(1, encode_frame(0, messages))] if messages else []

    def receive_data(self, rank: int, transfer_id: int, buffer: memoryview) -> None:
        self.receives.append((rank, transfer_id, buffer.nbytes))

    def send_data(self, rank: int, transfer_id: int, data: memoryview) -> None:
        raise AssertionError("Nobody asked for an object of this rank.")

    def abandon_data(self, rank: int, transfer_id: int) -> None:
        raise AssertionError("No read was given up.")

    def completed_data(self) -> list[tuple[bool, int, int]]:
        return []

    def failed_data(self) -> list[tuple[bool, int, int]]:
        return []

    def start_barrier(self) -> None: ...

    def is_barrier_done(self) -> bool:
        return True

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("nbytes", "is_denied"), [(NBYTES_WINDOW, False), (NBYTES_WINDOW + 1, False), (NBYTES_WINDOW, True)]
)
def test_the_holder_is_asked_only_if_there_is_room(nbytes: int, is_denied: bool) -> None:
    roster = [RankRecord(rank, 0, "h", "h", rank, {"CPU": RESOURCE_UNIT}) for rank in range(2)]
    config = Config()
    core = RankCore(0, roster, config, is_driver=True, nbytes_store=NBYTES_STORE)
    transport, window = StubTransport(), HostArena(0, NBYTES_STORE)
    engine = Engine(
        core,
        transport,
        window,
        MonotonicClock(),
        Hearing(HostDoorbell(0, 2)),
        session=0,
        may_spin=False,
        has_own_cores=False,
        open_store=no_store,
    )
    waiter = engine.new_waiter()
    if is_denied:
        window.bare = deny  # type: ignore[method-assign]
    engine.post_now(RefsAdded([OBJECT]))
    engine.post_now(WaitStarted(waiter.waiter_id, [OBJECT], 1, True, False, 0))
    transport.sent.clear()
    transport.comes.append(ObjectLocated(OBJECT, 1, nbytes))
    engine.hear_now()
    if is_denied:
        engine.hear_now()
    elif nbytes <= NBYTES_WINDOW:
        assert transport.sent == [ReadRequested(OBJECT, 1)]
        assert transport.receives == [(1, 1, nbytes)]
        assert not waiter.is_done
        return
    assert waiter.is_done
    assert (transport.sent, transport.receives, core.copies.arena.n_segments) == ([], [], 0)
    (failure,) = waiter.values
    assert isinstance(failure, Failure)
    if is_denied:
        assert (failure.kind, failure.text) == (FULL, NO_PAGES)
    else:
        assert failure.text.startswith("There is no room for object 1.1 of 961 bytes on rank 0: its object store has")
    engine.post_now(RefsReleased([OBJECT]))
    engine.forget(waiter)
    core.check()
    assert core.statistics().is_empty
