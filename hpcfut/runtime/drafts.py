"""Drafts: arrays that user code fills where they are going to be stored.

A draft is the user's array and nothing else: what is made of it (slices, another shape) is a view of the memory, and is
stored with a copy, as all values are. The memory belongs to user code for as long as anything is built over it; the
window tells when that has gone, of drafts as of values that were read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from hpcfut.core.events import DraftBegun, DraftTaken, RoomReturned
from hpcfut.ports import Pin
from hpcfut.runtime.engine import Engine
from hpcfut.wire.messages import Result
from hpcfut.wire.pickling import blank_of


class Draft(weakref.ref[Any]):
    """An array that nobody has stored yet, and where it lies."""

    __slots__ = ("interface", "nbytes", "object_id", "offset", "pin")

    #: What the room was given for.
    object_id: int
    offset: int
    #: Of the payload.
    nbytes: int
    pin: Pin
    #: Address, shape, strides and type; user code may have changed them.
    interface: dict[str, Any]


class Drafts:
    """The drafts of one rank. Any thread may call anything."""

    def __init__(self, engine: Engine, room_for: Callable[[int, int], int], nbytes_inline_max: int) -> None:
        self._engine = engine
        self._room_for = room_for
        self._nbytes_inline_max = nbytes_inline_max
        #: By the ``id`` of the array, because arrays have no hash.
        self.by_array: dict[int, Draft] = {}

    def make(self, object_id: int, shape: Any, dtype: Any, order: Any) -> Any:
        """An array for user code to fill; over the memory that it will be stored in, if it can be stored."""
        blank = blank_of(shape, dtype, order, self._nbytes_inline_max + 1)
        nbytes = blank.nbytes
        if not nbytes:
            return blank.apart()
        engine = self._engine
        offset = self._room_for(object_id, nbytes)
        try:
            payload, pin = engine.window.draft(offset, object_id, nbytes)
        except BaseException:  # A Ctrl-C, too: nobody else knows of the room.
            engine.post(RoomReturned(object_id))
            raise
        # Told before the pin can be released.
        engine.mailbox.append(DraftBegun(object_id))
        array = blank.over(payload)
        key = id(array)
        draft = self.by_array[key] = Draft(array, self._forgetter(key))
        draft.object_id, draft.offset, draft.nbytes, draft.pin = object_id, offset, nbytes, pin
        draft.interface = _interface_of(array)
        return array

    def store(self, object_id: int, draft: Draft) -> Result:
        """Store what ``take`` gave, where it lies."""
        # Whatever is told of the memory from now on is told under the new name.
        draft.pin.object_id = object_id
        self._engine.window.seal(draft.offset, object_id, draft.nbytes)
        self._engine.mailbox.append(DraftTaken(draft.object_id, object_id))
        return Result(None, draft.nbytes, ())

    def _forgetter(self, key: int) -> Callable[[Draft], None]:
        def forget(draft: Draft) -> None:
            # Another array may have been made at its place.
            if self.by_array.get(key) is draft:
                del self.by_array[key]

        return forget

    def take(self, array: Any) -> Draft | None:
        """The draft that an array is, once; it is no draft any more then, and cannot be written through the array."""
        key = id(array)
        draft = self.by_array.get(key)
        is_there = draft is not None and draft() is array
        if draft is None or not is_there or _interface_of(array) != draft.interface:
            return None  # Or it has another shape or type now than its payload says.
        if self.by_array.pop(key, None) is not draft:
            return None  # Another thread was faster.
        array.flags.writeable = False
        return draft


def _interface_of(array: Any) -> dict[str, Any]:
    interface: dict[str, Any] = array.__array_interface__
    address, _ = interface["data"]
    return {**interface, "data": address, "dtype": array.dtype}
