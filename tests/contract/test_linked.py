"""What a transport with links does when its links change while somebody looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpcfut.edges.mpi.linked import LinkedTransport


class StubLink:
    """A link of which others look at the transport while this one is looked at."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.peer = 1
        self.act = act
        self.sent: list[bytes] = []

    @property
    def is_busy(self) -> bool:
        self.act()
        return False

    def send(self, rank: int, frame: bytes) -> None:
        assert rank == self.peer
        self.sent.append(frame)
        self.act()


def offer(transport: LinkedTransport, rank: int, link: Any) -> None:
    transport.offer(rank, link)


def test_a_link_that_comes_while_somebody_is_about_to_sleep() -> None:
    transport = LinkedTransport(0, None)

    def come() -> None:
        offer(transport, 5, StubLink())
        transport.use(5)

    offer(transport, 4, StubLink(come))
    transport.use(4)
    assert not transport.is_busy


def test_a_link_that_is_made_while_others_are_dismissed() -> None:
    transport = LinkedTransport(0, None)
    late = StubLink()
    offer(transport, 4, StubLink(lambda: offer(transport, 5, late)))
    transport.dismiss(b"end")
    assert late.sent == [b"end"]
