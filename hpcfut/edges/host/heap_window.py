"""Large objects in private memory of the process."""

from __future__ import annotations

import threading

import numpy as np

from hpcfut.model.ids import name_of

#: Arrays start on a cache line, so that vector code of any width may read them.
_NBYTES_ALIGNMENT = 64


class HeapWindow:
    """Implements ``ports.Window`` with one heap block an object.

    A view keeps its block alive by itself, so that freeing an object takes it out of the budget while the memory
    returns to the system with the last view. Tasks and drivers reserve on threads of their own, while the core frees.
    """

    def __init__(self, nbytes_max: int) -> None:
        """Make a window that refuses to hold more than ``nbytes_max`` bytes at a time."""
        self.nbytes_max = nbytes_max
        self._blocks: dict[int, memoryview] = {}
        self._sealed: dict[int, memoryview] = {}
        self._nbytes_used = 0
        self._lock = threading.Lock()

    def reserve(self, object_id: int, nbytes: int) -> memoryview:
        """Make room and return it writable. Raises ``MemoryError`` when there is none, ``ValueError`` if it exists."""
        with self._lock:
            if object_id in self._blocks:
                raise ValueError(f"Object {name_of(object_id)} has been reserved already. This is a bug in hpcfut.")
            if self._nbytes_used + nbytes > self.nbytes_max:
                raise MemoryError(
                    f"There is no room for object {name_of(object_id)} of {nbytes} bytes: this rank may hold "
                    f"{self.nbytes_max} bytes of large objects and holds {self._nbytes_used} bytes in "
                    f"{len(self._blocks)} objects. Drop refs that are not needed, use more ranks, or raise the size of "
                    f"the object store."
                )
            # Not a bytearray, which writes zeros into every page first.
            whole = np.empty(nbytes + _NBYTES_ALIGNMENT, dtype=np.uint8)
            start = -whole.ctypes.data % _NBYTES_ALIGNMENT
            block = self._blocks[object_id] = whole[start : start + nbytes].data
            self._nbytes_used += nbytes
            return block

    def seal(self, object_id: int) -> None:
        """The bytes are complete: from now on they can be viewed and never change."""
        self._sealed[object_id] = self._find(self._blocks, object_id).toreadonly()

    def view(self, object_id: int) -> memoryview:
        """A read-only view of a sealed object. It stays valid for as long as somebody holds it or a slice of it."""
        return self._find(self._sealed, object_id)

    def free(self, object_id: int) -> None:
        """Give the room back, sealed or not."""
        with self._lock:
            self._nbytes_used -= self._find(self._blocks, object_id).nbytes
            del self._blocks[object_id]
            self._sealed.pop(object_id, None)

    @property
    def nbytes_used(self) -> int:
        """Bytes reserved now."""
        return self._nbytes_used

    @property
    def n_objects(self) -> int:
        """Objects reserved now."""
        return len(self._blocks)

    def _find(self, table: dict[int, memoryview], object_id: int) -> memoryview:
        if object_id not in table:
            state = "reserved, but not sealed" if object_id in self._blocks else "not in the window of this rank"
            raise KeyError(f"Object {name_of(object_id)} is {state}. This is a bug in hpcfut.")
        return table[object_id]
