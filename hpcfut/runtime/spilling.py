"""Spilling: threads that move objects between the arena and files, because a disk takes longer than a turn may.

They are daemons of our own, not a pool of the standard library's, which ends with the script: tasks go on after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from hpcfut.core.effects import DropSpilled, RestoreObject, SpillObjects
from hpcfut.core.events import Event, ObjectsSpilled, ReadCompleted, ReadFailed, SpillFailed
from hpcfut.model.failure import LOST, Failure
from hpcfut.ports import SpillStore, Window
from hpcfut.runtime.fatal import fatal

#: One reads while the other one writes.
N_THREADS = 2


class Spilling:
    """Performs what the core wants of the disk; called with the engine's lock, which it never keeps from others."""

    def __init__(self, open_store: Callable[[], SpillStore], window: Window, post: Callable[[Event], None]) -> None:
        """Open the files when they are first needed.

        Args:
            open_store: Gives the files; called on a thread of this class.
            window: What is spilled from, and restored to.
            post: Tells the core, from any thread.
        """
        self._open_store = open_store
        self._window = window
        self._post = post
        self._works: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        #: Threads that were started; none before there was anything to do.
        self.n_threads = 0
        self._opening = threading.Lock()
        self._store: SpillStore | None = None
        self._is_over = False

    def spill(self, effect: SpillObjects) -> None:
        """Write objects to a file."""
        self._do(lambda: self._spill(effect))

    def restore(self, effect: RestoreObject) -> None:
        """Read an object back."""
        self._do(lambda: self._restore(effect))

    def drop(self, effect: DropSpilled) -> None:
        """Forget what a file has of an object."""
        self._do(lambda: self._drop(effect))

    @property
    def n_files(self) -> int:
        """Files that hold objects now."""
        return 0 if self._store is None else self._store.n_files

    def close(self) -> None:
        """The session is over: nothing more is moved, and the files go."""
        self._is_over = True
        for _ in range(self.n_threads):
            self._works.put(None)

    def _do(self, work: Callable[[], None]) -> None:
        self._works.put(work)
        if self.n_threads < N_THREADS:
            self.n_threads += 1
            threading.Thread(target=self._run, name=f"hpcfut-spilling-{self.n_threads}", daemon=True).start()

    def _run(self) -> None:
        with fatal("a thread that spills"):
            while (work := self._works.get()) is not None:
                if not self._is_over:
                    work()
            if self._store is not None:
                self._store.close()

    def _drop(self, effect: DropSpilled) -> None:
        try:
            self._files().drop(effect.file_id, effect.object_id)
        except KeyError:
            if not self._is_over:  # Else the other thread has closed the files in this moment.
                raise

    def _files(self) -> SpillStore:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
            return self._store

    def _spill(self, effect: SpillObjects) -> None:
        parts = [(place.object_id, self._window.buffer(place.offset, place.nbytes)) for place in effect.places]
        try:
            file_id = self._files().write(parts).file_id
        except Exception as error:  # Whatever it is, the objects are still in memory, and who waits must be told.
            self._post(SpillFailed(effect.spill_id, str(error) or repr(error)))
        else:
            self._post(ObjectsSpilled(effect.spill_id, file_id))

    def _restore(self, effect: RestoreObject) -> None:
        try:
            target = self._window.buffer(effect.offset, effect.nbytes)
            self._files().read(effect.file_id, effect.object_id, target)
        except Exception as error:  # Whatever it is, who waits for the object must be told.
            self._post(ReadFailed(effect.transfer_id, Failure(LOST, str(error) or repr(error))))
        else:
            self._window.seal(effect.offset, effect.object_id, effect.nbytes)
            self._post(ReadCompleted(effect.transfer_id))
