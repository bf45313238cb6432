"""The event queues (epoll) of this process, on which libraries wait for their sockets.

A queue is readable for as long as anything in it is, so who sleeps on the queue is woken with its owner, and takes
nothing from it.
"""

from __future__ import annotations

import os
from contextlib import suppress


def event_queues() -> tuple[int, ...]:
    """The descriptors of those that there are now; none where the kernel does not show them."""
    found = []
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # That of the folder itself is gone by now.
                if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                    found.append(int(name))
    return tuple(sorted(found))
