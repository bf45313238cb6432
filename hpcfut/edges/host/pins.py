"""Pins: they tell when the last view of an object has gone, so that its memory is not used again before.

A pin hangs on a plain array, the base of all views: whatever is built over it, be it slices, memoryviews or arrays over
these, keeps it alive. Memoryviews, pickle buffers and subclasses of arrays would not do, because NumPy looks through
them to what is below.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy


class Pin(weakref.ref[Any]):
    """Cheaper than ``weakref.finalize``, and does nothing when the process ends."""

    __slots__ = ("object_id",)

    #: What is released in the end.
    object_id: int


class Pins:
    """The pins of one rank."""

    def __init__(self, on_released: Callable[[int], object]) -> None:
        """Make none yet.

        Args:
            on_released: Told the object's id once for each pin, when all that was built over its array has gone; by
                whatever thread and in the middle of whatever that does, so that it may do no more than note it.
        """
        # Weak references die unheard with nobody to hold them.
        self._pins: dict[int, Pin] = {}
        self._on_released = on_released

    def hang(self, base: numpy.ndarray[Any, Any], object_id: int) -> Pin:
        """Pin an object for as long as this array lives, which must be the base of all that is handed out."""
        pin = Pin(base, self._release)
        pin.object_id = object_id
        self._pins[id(pin)] = pin
        return pin

    def _release(self, pin: Pin) -> None:
        del self._pins[id(pin)]
        self._on_released(pin.object_id)

    def __len__(self) -> int:
        return len(self._pins)
