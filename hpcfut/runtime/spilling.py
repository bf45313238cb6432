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
        self._do(lambda: self._spill(effect), lambda reason: SpillFailed(effect.spill_id, reason))

    def restore(self, effect: RestoreObject) -> None:
        """Read an object back."""
        self._do(lambda: self._restore(effect), lambda reason: ReadFailed(effect.transfer_id, Failure(LOST, reason)))

    def drop(self, effect: DropSpilled) -> None:
        """Forget what a file has of an object."""
        self._works.put(lambda: self._files().drop(effect.file_id, effect.object_id))

    @property
    def n_files(self) -> int:
        """Files that hold objects now."""
        return 0 if self._store is None else self._store.n_files

    def close(self) -> None:
        """The session is over: nothing more is moved, and the files go."""
        self._is_over = True
        for _ in range(self.n_threads):
            self._works.put(None)

    def _do(self, work: Callable[[], Event], failed: Callable[[str], Event]) -> None:
        """Have a thread do this, and tell the core what came of it; whatever stops it, who waits must be told."""

        def do() -> None:
            try:
                event = work()
            except Exception as error:
                event = failed(str(error) or repr(error))
            self._post(event)

        if self.n_threads < N_THREADS:
            thread = threading.Thread(target=self._run, name=f"hpcfut-spilling-{self.n_threads + 1}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not self.n_threads:
                    self._post(failed(f"Nothing can be moved to files or back: {error}. Raise the limit on threads."))
                    return
            else:
                self.n_threads += 1
        self._works.put(do)

    def _run(self) -> None:
        with fatal("a thread that spills"):
            while (work := self._works.get()) is not None:
                if not self._is_over:
                    work()
            if self._store is not None:
                self._store.close()

    def _files(self) -> SpillStore:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
            return self._store

    def _spill(self, effect: SpillObjects) -> Event:
        # Their pages have been written before, so that none must be made ready.
        parts = [(place.object_id, self._window.bare(place.offset, place.nbytes)) for place in effect.places]
        files, other = self._files(), effect.in_place_of
        file = files.write(parts) if other is None else files.write_in_place_of(*other, parts)
        return ObjectsSpilled(effect.spill_id, file.file_id)

    def _restore(self, effect: RestoreObject) -> Event:
        target = self._window.buffer(effect.offset, effect.nbytes)
        self._files().read(effect.file_id, effect.object_id, target)
        self._window.seal(effect.offset, effect.object_id, effect.nbytes)
        return ReadCompleted(effect.transfer_id)
