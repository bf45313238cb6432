"""What a rank and its children say to each other comes back as it was said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hpcfut.model.failure import CANCELLED, Failure
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.isolation import (
    Answered,
    CallBegun,
    CallEnded,
    CallRaised,
    CallReturned,
    CancelWanted,
    ChildStart,
    FunctionMade,
    Made,
    ObjectMade,
    Refused,
    Said,
    Shown,
    TaskMade,
    WaitWanted,
    decode_said,
    decode_start,
    decode_told,
    encode,
)

TEMPLATE = TaskTemplate(5, "work", b"function", is_isolated=True, n_calls_max=3)
SHOWN = [Shown(b"inline", 6), Shown(None, 10**6, 3, 4160, 7), Shown(None, 10), Shown(None, failure=Failure(CANCELLED))]


@pytest.mark.parametrize(
    "told",
    [
        CallBegun(1, 5, TEMPLATE, b"call", SHOWN),
        CallBegun(1, 5, None, b"", []),
        Answered([1, 2], [*SHOWN, None]),
        Answered([], is_done=False),
        Refused(b"error"),
    ],
)
def test_what_the_rank_tells(told: Any) -> None:
    assert decode_told(encode(told)) == told


@pytest.mark.parametrize(
    "what",
    [
        ObjectMade(Made(None, 10**6, (3,))),
        TaskMade(5, 1, b"call", (1,), (2,)),
        FunctionMade(TEMPLATE),
        WaitWanted([1, 2], 1, 0.5, is_fetching=True, is_taking=False),
        WaitWanted([1], 1, None, is_fetching=True, is_taking=True),
        CancelWanted(1, is_recursive=True, is_forced=False),
        CallReturned([Made(b"value", 5, ()), Made(None, 10**6, ())]),
        CallRaised("text", b"error", is_retriable=True, is_cancelled=False),
        CallEnded(),
    ],
)
def test_what_the_child_says(what: Any) -> None:
    said = Said(what, [1], [2], [3], [4], is_struck=True)
    assert decode_said(encode(said)) == said


def test_what_a_child_is_told_about_its_rank() -> None:
    start = ChildStart(3, ["path"], ["script"], [(3, b"card", b"proof")], 100_000)
    assert decode_start(encode(start)) == start


def test_what_is_damaged_is_not_taken_for_something_else() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_said(encode(Refused(b"error")))
    with pytest.raises(msgspec.DecodeError):
        decode_told(encode(Said(CallEnded()))[:-1])
