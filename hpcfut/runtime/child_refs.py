"""The refs in a child process, and what its rank, which holds the objects in its stead, knows of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class ChildRefs:
    """Counts them. Any thread may make refs and drop them, at any time; one at a time settles."""

    def __init__(self) -> None:
        #: Refs that went away, and those that were made, one entry each.
        self.released: deque[int] = deque()
        self.made: deque[int] = deque()
        #: What the rank knows to be held here.
        self.told: dict[int, None] = {}
        self._n_refs: dict[int, int] = {}

    def hold_new(self, object_ids: Iterable[int]) -> None:
        """The rank has made these, and the caller makes a ref to each."""
        for object_id in object_ids:
            self.told[object_id] = None
            self.made.append(object_id)

    def settle(self) -> tuple[list[int], list[int]]:
        """What is to be told now: objects that are held here, and those that are held no more."""
        # Counted first, and so no ref is gone before it was made.
        n_released = len(self.released)
        counts, changed = self._n_refs, dict[int, None]()
        while self.made:
            object_id = self.made.popleft()
            counts[object_id] = counts.get(object_id, 0) + 1
            changed[object_id] = None
        for _ in range(n_released):
            object_id = self.released.popleft()
            counts[object_id] -= 1
            changed[object_id] = None
        taken = [object_id for object_id in changed if counts[object_id] and object_id not in self.told]
        dropped = [object_id for object_id in changed if not counts[object_id] and object_id in self.told]
        self.told.update(dict.fromkeys(taken))
        for object_id in dropped:
            del self.told[object_id]
        for object_id in changed:
            if not counts[object_id]:
                del counts[object_id]
        return taken, dropped
