"""Arrays and memoryviews: large ones leave as buffers, without a copy, and all come back read-only."""

from __future__ import annotations

import copyreg
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from hpcfut.wire.packing import MAGIC, aligned

#: Arrays up to this size are copied into the stream: a buffer of its own costs more than the copy.
_NBYTES_IN_STREAM_MAX: Final = 1024
#: NumPy's letters for numbers.
_NUMBERS: Final = frozenset("?bBhHiIlLqQefdgFDG")
#: What a memoryview can be cast to.
_NATIVE_FORMATS: Final = frozenset("cbB?hHiIlLqQnNfd")


#: The first byte of a stream that is no pickle but describes an array.
SOLE_ARRAY: Final = ord("a")
#: The head of a payload with one buffer (see ``packing.py``), and the stream up to the shape.
_SOLE: Final = struct.Struct("<4sIQQBBB")
_AT_STREAM: Final = 24


class NoArray:
    """Stands for NumPy's array class where nobody has loaded NumPy; has no instances."""


def ndarray_type() -> Any:
    """NumPy's array class, if anybody has loaded NumPy; else a class without instances."""
    return getattr(sys.modules.get("numpy"), "ndarray", NoArray)


def stream_of_array(shape: tuple[int, ...], letter: str, order: str) -> bytes:
    """What stands for a pickle stream where a value is one array of numbers: reading it takes a third of the time."""
    return struct.pack(f"<B1s1s{len(shape)}Q", SOLE_ARRAY, letter.encode(), order.encode(), *shape)


def how_to_make_sole_array(payload: memoryview) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """What makes the array over its payload, and of what; ``None`` if that is not one of a single array of numbers.

    In as few steps as can be: whoever has just awaited a large array has nothing in the caches.
    """
    if len(payload) < _SOLE.size:
        return None
    magic, n_buffers, nbytes_stream, _, first, code, order = _SOLE.unpack_from(payload)
    if first != SOLE_ARRAY or n_buffers != 1:
        return None
    letter = chr(code)
    if magic != MAGIC or letter not in _NUMBERS:
        raise ValueError(f"a payload of {len(payload)} bytes is not that of an array")
    import numpy

    shape = struct.unpack_from(f"<{(nbytes_stream - 3) // 8}Q", payload, _SOLE.size)
    buffer: Any = pickle.PickleBuffer(payload)  # as in ``array_over``
    offset = aligned(_AT_STREAM + nbytes_stream)
    return numpy.ndarray, (shape, numpy.dtype(letter), buffer, offset, None, chr(order))


def parts_of_array(array: Any) -> tuple[bytes, memoryview] | None:
    """The stream and the bytes of a large array of numbers; ``None`` for other arrays."""
    letter = letter_of(array.dtype)
    if not letter or array.nbytes <= _NBYTES_IN_STREAM_MAX:
        return None
    flags = array.flags
    if not flags.forc:
        array = array.copy("C")
    return stream_of_array(array.shape, letter, "F" if flags.fnc else "C"), pickle.PickleBuffer(array).raw()


def reduce_array(array: Any) -> tuple[Any, ...]:
    """How to pickle an instance of ``ndarray`` itself."""
    dtype = array.dtype
    if dtype.hasobject or dtype.itemsize == 0:
        make, arguments, state = array.__reduce__()
        return make, arguments, state, None, None, _set_state_of_array
    flags = array.flags
    order = "F" if flags.fnc else "C"
    kind = letter_of(dtype) or dtype
    if array.nbytes <= _NBYTES_IN_STREAM_MAX:
        return type(array), (array.shape, kind, array.tobytes("A"), 0, None, order)
    if not flags.forc:
        array = array.copy("C")
    try:
        data = pickle.PickleBuffer(array)
    except ValueError:  # a dtype that the buffer protocol has no name for, such as datetime64
        data = pickle.PickleBuffer(array.ravel("K").view("u1"))
    return array_over, (array.shape, kind, data, order)


def array_over(shape: tuple[int, ...], dtype: Any, data: Any, order: Any) -> Any:
    """An array over memory, as it stands in streams."""
    import numpy

    # NumPy looks through a memoryview to what is below, and would let the user make the array writable if that is;
    # it does not look through a PickleBuffer.
    buffer: Any = pickle.PickleBuffer(data)
    return numpy.ndarray(shape, dtype, buffer, 0, None, order)


def letter_of(dtype: Any) -> str:
    """The letter of a native dtype of numbers; a dtype itself is slow to pickle. Empty for others."""
    letter: str = dtype.char
    return letter if letter in _NUMBERS and dtype.isbuiltin == 1 else ""


def _set_state_of_array(array: Any, state: Any) -> None:
    array.__setstate__(state)
    array.flags.writeable = False


def reduce_array_subclass(array: Any, kind: Any, ndarray: Any) -> Any:
    """Views travel as views; a class with a pickling of its own keeps it."""
    names = ("__reduce__", "__reduce_ex__", "__setstate__")
    if kind in copyreg.dispatch_table or any(getattr(kind, name) is not getattr(ndarray, name) for name in names):
        return NotImplemented
    return _view_as, (array.view(ndarray), kind)


def _view_as(array: Any, kind: type) -> Any:
    return array.view(kind)


def reduce_memoryview(view: memoryview) -> tuple[Any, ...]:
    """How to pickle a memoryview: as one that is read-only."""
    code = view.format.lstrip("@")
    if code not in _NATIVE_FORMATS:
        import numpy  # casts know only single native types

        return memoryview, (numpy.asarray(view),)
    flat = view if view.c_contiguous else memoryview(view.tobytes())
    return _memoryview, (pickle.PickleBuffer(flat), code, view.shape)


def _memoryview(data: Any, code: Any, shape: tuple[int, ...]) -> Any:
    view = memoryview(data).toreadonly().cast("B")
    return view.cast(code) if 0 in shape else view.cast(code, shape)  # a cast cannot make empty dimensions
