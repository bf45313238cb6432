"""The mailbox keeps the order of what happened, tells new refs in batches, and sets released ones apart."""

from hpcfut.core.events import RefsAdded, RunHeldBack
from hpcfut.runtime.mailbox import Mailbox, drain


def test_nothing() -> None:
    released: list[int] = []
    assert drain(Mailbox(), released) == []
    assert released == []


def test_new_refs_are_told_in_batches_and_released_ones_are_set_apart() -> None:
    mailbox, released = Mailbox([5, 6, -7, -8, 9]), [4]
    assert drain(mailbox, released) == [RefsAdded([7, 8])]
    assert released == [4, 5, 6, 9]
    assert not mailbox


def test_events_keep_their_place_among_new_refs() -> None:
    event = RunHeldBack(1)
    released: list[int] = []
    assert drain(Mailbox([-3, event, 3, -4, event]), released) == [RefsAdded([3]), event, RefsAdded([4]), event]
    assert released == [3]
