"""Blanks: arrays that are built where they are going to be stored, so that storing them copies nothing.

The payload of an array is its shape, type and order, which are known beforehand, and then its bytes. So the memory of
the array can be the end of the very payload that it becomes.
"""

from __future__ import annotations

import math
import operator
import pickle
from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex

import msgspec

from hpcfut.wire.packing import head_of_one
from hpcfut.wire.pickling.arrays import array_over, letter_of, stream_of_array
from hpcfut.wire.pickling.plain import Rebuilt, dump_plain


class Blank(msgspec.Struct, frozen=True):
    """What an array will be."""

    shape: tuple[int, ...]
    dtype: Any
    order: Literal["C", "F"]
    #: The payload up to the bytes of the array, and its whole size; nothing if it cannot be built in place.
    head: bytes = b""
    nbytes: int = 0

    def over(self, payload: memoryview) -> Any:
        """The array, as a part of its payload; what is in the memory is in the array."""
        import numpy

        nbytes_head = len(self.head)
        payload[:nbytes_head] = self.head
        # NumPy looks through memoryviews to what has the memory, which stays the base of all views of the array.
        return numpy.ndarray(self.shape, self.dtype, payload, nbytes_head, order=self.order)

    def apart(self) -> Any:
        """The array, in memory of its own."""
        import numpy

        return numpy.empty(self.shape, self.dtype, self.order)


def blank_of(
    shape: SupportsIndex | Sequence[SupportsIndex], dtype: Any, order: Literal["C", "F"], nbytes_min: int
) -> Blank:
    """How to build this array; in place, unless it is smaller than ``nbytes_min``, or has Python objects.

    Raises:
        TypeError: The dtype or the shape is none.
        ValueError: The same, or the order is neither "C" nor "F", or the array is too big.
    """
    import numpy

    if order not in ("C", "F"):
        raise ValueError(f"empty() was given the order {order!r}. Arrays that are built in place have 'C' or 'F'.")
    kind = numpy.dtype(dtype)
    sizes = (operator.index(shape),) if hasattr(shape, "__index__") else tuple(map(operator.index, shape))
    if kind.subdtype is not None:
        kind, inner = kind.subdtype
        sizes += inner
    nbytes = math.prod(sizes) * kind.itemsize
    if nbytes >= 1 << 63:
        raise ValueError(f"An array of the shape {shape!r} has {nbytes} bytes and is too big for any machine.")
    if kind.hasobject or kind.metadata is not None or nbytes < nbytes_min or min(sizes, default=0) < 0:
        return Blank(sizes, kind, order)
    letter = letter_of(kind)
    if letter:
        stream = stream_of_array(sizes, letter, order)
    else:
        # What its buffer is does not stand in the stream, only that it has one.
        stream = dump_plain(Rebuilt((array_over, (sizes, kind, pickle.PickleBuffer(b""), order)))).stream
    head = head_of_one(stream, nbytes)
    return Blank(sizes, kind, order, head, len(head) + nbytes)
