"""A model of the disk of one virtual rank, to which it spills objects."""

from __future__ import annotations


class SimDisk:
    """Files of objects, and how many of these there is room for."""

    def __init__(self, n_max: int) -> None:
        """Make it empty; 0: without limit."""
        self._n_max = n_max
        self._n_ever = 0
        self.files: dict[int, dict[int, bytes]] = {}
        #: Of the objects, by file and id, those whose room was given to others.
        self._displaced: dict[tuple[int, int], None] = {}

    def holds(self, object_id: int) -> bool:
        """Whether an object can be read back."""
        return any(object_id in file for file in self.files.values())

    def write(self, payloads: dict[int, bytes], in_place_of: tuple[int, int] | None) -> int:
        """Make a file, perhaps where an object was; gives its number, or 0 if there is no room."""
        n_there = sum(map(len, self.files.values())) - len(self._displaced)
        makes_way = False
        if in_place_of is not None and in_place_of not in self._displaced:
            file_id, object_id = in_place_of
            makes_way = object_id in self.files.get(file_id, {})
        if self._n_max and n_there - makes_way + len(payloads) > self._n_max:
            return 0
        if makes_way and in_place_of is not None:
            self._displaced[in_place_of] = None
        self._n_ever += 1
        self.files[self._n_ever] = payloads
        return self._n_ever

    def drop(self, file_id: int, object_id: int) -> None:
        """Forget an object."""
        file = self.files[file_id]
        del file[object_id]
        if not file:
            del self.files[file_id]
        self._displaced.pop((file_id, object_id), None)
