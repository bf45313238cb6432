"""A thread that looks after the child processes of a rank while their tasks' threads wait for something else.

What the code of an isolated task wants of hpcfut, the thread of the task does in its name, and that may be a wait
without end. It does not hear its child meanwhile. So this thread does: at the end of a child it has the wait of that
thread end, as a cancellation would, and whoever goes on to talk to the child finds that it is gone. And it looks at
the memory of each child whose task may have only so much, and ends what has taken more.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Final

from hpcfut.runtime.fatal import fatal
from hpcfut.runtime.isolated_child import IsolatedChild

#: So often the memory of a child is looked at that may have only so much.
MEMORY_CHECK_S: Final = 0.02


class ChildWatch:
    """The watch of one rank in one session; the thread begins with the first child."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._bell, select.EPOLLIN)
        #: By the descriptor that tells of the end of each.
        self._watched: dict[int, IsolatedChild] = {}
        #: By their processes, those whose memory is limited for the task at hand.
        self._limited: dict[int, IsolatedChild] = {}
        self._is_closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, worker: IsolatedChild) -> None:
        """Look after this child from now on; any thread may ask."""
        with self._lock:
            if self._bell < 0:
                return  # The session is over, and with it the child.
            # First the entry: the child may end at once.
            self._watched[worker.channel.descriptor] = worker
            worker.channel.watch(self._poll)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="hpcfut-child-watch", daemon=True)
                self._thread.start()

    def limit(self, worker: IsolatedChild) -> None:
        """The memory of this child is limited until its task has ended."""
        with self._lock:
            self._limited[worker.child.pid] = worker
        self._ring()

    def drop(self, worker: IsolatedChild) -> None:
        """This child is about to be ended, or let go."""
        self._limited.pop(worker.child.pid, None)
        if self._watched.get(worker.channel.descriptor) is worker:
            del self._watched[worker.channel.descriptor]

    def _ring(self) -> None:
        with self._lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _work(self) -> None:
        with fatal("the thread that looks after child processes"):
            while not self._is_closing:
                for descriptor, _ in self._poll.poll(MEMORY_CHECK_S if self._limited else None):
                    if descriptor == self._bell:
                        os.eventfd_read(self._bell)
                        continue
                    worker = self._watched.get(descriptor)
                    # The descriptor may have become that of another child since it was told of.
                    if worker is not None and worker.leave_wait():
                        self.drop(worker)
                with self._lock:  # The next task of a child may be about to begin.
                    for pid, worker in list(self._limited.items()):
                        if not worker.is_within_memory():
                            self._limited.pop(pid, None)

    def close(self) -> None:
        """No child is left."""
        self._is_closing = True
        self._ring()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            # A task that was abandoned may still ring.
            bell, self._bell = self._bell, -1
        self._poll.close()
        os.close(bell)
