"""A child process, and this one in place of its rank."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from hpcfut.edges.host.arena import Card
from hpcfut.edges.host.fork_server import ForkedChild, ForkServer
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.isolation import (
    CallBegun,
    CallEnded,
    CallRaised,
    CallReturned,
    ChildStart,
    Said,
    Shown,
    decode_said,
    encode,
)
from hpcfut.wire.packing import pack_inline
from hpcfut.wire.pickling import Pickling

#: Of a process that there is not.
GONE = Card(pid=2**22 + 1, descriptor=3, nbytes=1 << 20, token=b"")


class NoRef:
    """Nothing is a ref here."""


@pytest.fixture
def child() -> Iterator[ForkedChild]:
    guide = [(5, msgspec.msgpack.encode(GONE), b"")]
    with closing(ForkServer(encode(ChildStart(0, [], [], guide, 1000)), os.environ)) as server:
        child = server.start()
        yield child
        child.let_go()


def begun(function: Callable[..., Any], *shown: Shown) -> bytes:
    pickling = Pickling(NoRef, lambda ref: 0, lambda object_id: None)
    template = TaskTemplate(1, "work", pack_inline(pickling.dumps(function)), is_isolated=True)
    # The arguments are in the places of refs, one each.
    return encode(CallBegun(7, 1, template, b"", list(shown)))


def said(child: ForkedChild) -> Said:
    frame = child.channel.receive(60.0)
    assert frame is not None
    return decode_said(frame)


def test_a_cancellation_that_comes_before_the_call_is_raised_in_it(child: ForkedChild) -> None:
    child.signal(signal.SIGURG)
    child.channel.send(begun(lambda: 1))
    heard = said(child)
    assert isinstance(heard.what, CallRaised)
    assert heard.what.is_cancelled
    assert heard.is_struck
    assert isinstance(said(child).what, CallEnded)


def test_a_value_that_cannot_be_viewed_fails_the_call_and_nothing_else(child: ForkedChild) -> None:
    five = pack_inline(Pickling(NoRef, lambda ref: 0, lambda object_id: None).dumps(5))
    # What follows it is read nevertheless.
    shown = Shown(None, 100, 5, 0, 11), Shown(None, len(five))
    child.channel.send(begun(lambda *values: 1, *shown), [five])
    heard = said(child)
    assert isinstance(heard.what, CallRaised)
    assert "ObjectLostError" in heard.what.text
    assert "No such file" in heard.what.text
    assert heard.closed == [11], "The rank need not keep it."
    assert isinstance(said(child).what, CallEnded)
    child.channel.send(begun(lambda value: value + 1, Shown(five)))
    heard = said(child)
    assert isinstance(heard.what, CallReturned), heard.what
    assert isinstance(said(child).what, CallEnded)
