"""The mailbox: how threads, finalizers and edges tell the core what happened, in the order in which it happened.

Appending to a deque is atomic, so nobody needs a lock to write. Refs that come and go are by far the most frequent
entries; they are bare integers (negative: one more ref, positive: one less) and are told to the core in batches.
"""

from __future__ import annotations

from collections import deque

from hpcfut.core.events import Event, RefsAdded, RefsReleased

Mailbox = deque[Event | int]


def drain(mailbox: Mailbox) -> list[Event]:
    """Take everything out, as events."""
    events: list[Event] = []
    added: list[int] = []
    released: list[int] = []
    pop = mailbox.popleft
    while mailbox:
        entry = pop()
        if type(entry) is int:
            if entry > 0:
                if added:
                    events.append(RefsAdded(added))
                    added = []
                released.append(entry)
            else:
                if released:
                    events.append(RefsReleased(released))
                    released = []
                added.append(-entry)
            continue
        if released:
            events.append(RefsReleased(released))
            released = []
        elif added:
            events.append(RefsAdded(added))
            added = []
        events.append(entry)  # type: ignore[arg-type]
    if released:
        events.append(RefsReleased(released))
    elif added:
        events.append(RefsAdded(added))
    return events
