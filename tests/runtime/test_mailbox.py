"""The mailbox keeps the order of what happened and tells refs in batches."""

from hpcfut.core.events import RefsAdded, RefsReleased, RunHeldBack
from hpcfut.runtime.mailbox import Mailbox, drain


def test_nothing() -> None:
    assert drain(Mailbox()) == []


def test_refs_are_told_in_batches_and_in_order() -> None:
    mailbox = Mailbox([5, 6, -7, -8, 9])
    assert drain(mailbox) == [RefsReleased([5, 6]), RefsAdded([7, 8]), RefsReleased([9])]
    assert not mailbox


def test_events_separate_batches() -> None:
    event = RunHeldBack(1)
    assert drain(Mailbox([-3, event, 3, event])) == [RefsAdded([3]), event, RefsReleased([3]), event]
