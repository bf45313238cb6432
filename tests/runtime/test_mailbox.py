"""The mailbox keeps the order of what happened, and tells new refs in batches."""

from hpcfut.core.events import RefsAdded, RunHeldBack
from hpcfut.runtime.mailbox import Mailbox, drain


def test_nothing() -> None:
    assert drain(Mailbox()) == []


def test_new_refs_are_told_in_batches() -> None:
    mailbox = Mailbox([7, 8])
    assert drain(mailbox) == [RefsAdded([7, 8])]
    assert not mailbox


def test_events_keep_their_place_among_new_refs() -> None:
    event = RunHeldBack(1)
    assert drain(Mailbox([3, event, 4, 5, event])) == [RefsAdded([3]), event, RefsAdded([4, 5]), event]
