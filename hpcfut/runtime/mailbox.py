"""The mailbox: how threads, finalizers and edges tell the core what happened, in the order in which it happened.

Appending to a deque is atomic, so nobody needs a lock to write. Refs that user code got are bare ids in it, and are
told to the core in batches.

Refs that user code dropped stand in a deque of their own. They may be told later than it happened, because an object
that lives a little longer harms nobody; so they wait for a turn in which nobody waits for anything else. But they must
not be told before the ref itself was: who takes some counts them first, and then takes all that stands in the mailbox.
"""

from __future__ import annotations

from collections import deque

from hpcfut.core.events import Event, RefsAdded

Mailbox = deque[Event | int]
Released = deque[int]


def drain(mailbox: Mailbox) -> list[Event]:
    """Take everything out, as events."""
    events: list[Event] = []
    pop = mailbox.popleft
    added: list[int] = []
    while mailbox:
        entry = pop()
        if type(entry) is int:
            if not added:
                events.append(RefsAdded(added))
            added.append(entry)
            continue
        if added:
            added = []
        events.append(entry)  # type: ignore[arg-type]
    return events
