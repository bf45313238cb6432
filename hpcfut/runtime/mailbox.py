"""The mailbox: how threads, finalizers and edges tell the core what happened, in the order in which it happened.

Appending to a deque is atomic, so nobody needs a lock to write. Refs that come and go are by far the most frequent
entries; they are bare integers (negative: one more ref, positive: one less) and are told to the core in batches.

A release may be told later than it happened, because an object that lives a little longer harms nobody; so releases are
set apart, for a turn in which nobody waits for anything else. All other entries keep their order.
"""

from __future__ import annotations

from collections import deque

from hpcfut.core.events import Event, RefsAdded

Mailbox = deque[Event | int]


def drain(mailbox: Mailbox, released: list[int]) -> list[Event]:
    """Take everything out, as events; released refs go into ``released``."""
    events: list[Event] = []
    added: list[int] = []
    pop = mailbox.popleft
    while mailbox:
        entry = pop()
        if type(entry) is int:
            if entry > 0:
                released.append(entry)
            else:
                added.append(-entry)
            continue
        if added:
            events.append(RefsAdded(added))
            added = []
        events.append(entry)  # type: ignore[arg-type]
    if added:
        events.append(RefsAdded(added))
    return events
