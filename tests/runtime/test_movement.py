"""What is moved between windows, and for how long that is hurried."""

from __future__ import annotations

from typing import Any, cast

from hpcfut.core.context import Context, Table
from hpcfut.core.effects import SendObject, StartRead
from hpcfut.core.events import ReadFailed, SendCompleted
from hpcfut.model.config import Config
from hpcfut.model.failure import LOST
from hpcfut.runtime.movement import NBYTES_HURRIED_PER_S, Movement
from hpcfut.wire.messages import Message, ReadRequested

NBYTES = int(NBYTES_HURRIED_PER_S)


class Both:
    """A transport on which everything is through at once, but for what is held, and a window."""

    def __init__(self) -> None:
        self.held = 0
        self.done: list[tuple[bool, int, int]] = []
        self.failed: list[tuple[bool, int, int]] = []

    def bare(self, offset: int, nbytes: int) -> memoryview:
        return memoryview(b"")

    def send_data(self, rank: int, transfer_id: int, data: memoryview) -> None:
        if transfer_id != self.held:
            self.done.append((True, rank, transfer_id))

    def receive_data(self, rank: int, transfer_id: int, buffer: memoryview) -> None: ...

    def completed_data(self) -> list[tuple[bool, int, int]]:
        done, self.done = self.done, []
        return done

    def failed_data(self) -> list[tuple[bool, int, int]]:
        failed, self.failed = self.failed, []
        return failed


def test_a_death_ends_both_ways_of_a_transfer() -> None:
    both = Both()
    sent: list[tuple[int, Message]] = []
    movement = Movement(
        cast("Any", both), cast("Any", both), Context(0, 2, Config(), Table), lambda *what: sent.append(what)
    )
    both.held = 5
    movement.send_object(SendObject(5, 7, 1, 0, NBYTES))
    movement.start_read(StartRead(6, 8, 1, 0, NBYTES))
    assert sent == [(1, ReadRequested(8, 6))]
    both.failed = [(True, 1, 5), (False, 1, 6)]
    events = movement.take_completed()
    assert events[0] == SendCompleted(7)
    assert isinstance(events[1], ReadFailed)
    assert (events[1].transfer_id, events[1].failure.kind) == (6, LOST)
    assert not movement.is_open


def test_what_was_faster_than_it_might_have_been_leaves_no_hurry_behind() -> None:
    both, context = Both(), Context(0, 2, Config(), Table)
    both.held = 100

    def send(rank: int, message: Message) -> None:
        raise AssertionError("Nothing is said.")

    movement = Movement(cast("Any", both), cast("Any", both), context, send)
    for transfer_id in range(1, 101):
        movement.send_object(SendObject(transfer_id, 7, 1, 0, NBYTES))
        movement.take_completed()
    assert movement.is_hurried(0.9)
    assert not movement.is_hurried(1.1), "The last one stalls; a hundred others were over before."
