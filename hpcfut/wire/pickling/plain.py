"""Plain values: numbers, texts and whole arrays, alone or side by side, which the C pickler can do by itself."""

from __future__ import annotations

import pickle
from typing import Any, Final

from hpcfut.wire.packing import Pickled, pickled_of
from hpcfut.wire.pickling.arrays import letter_of, ndarray_type, reduce_array

PROTOCOL: Final = 5
#: ``bytes`` from this size on are buffers, which saves one copy of them.
NBYTES_RAW_MIN: Final = 65_536
ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
#: Longer tuples take the general way, so that the look at their members stays cheap.
_N_PLAIN_MAX: Final = 32

_dumps: Final = pickle.dumps


class Rebuilt:
    """Pickles as whatever a call makes of it when loaded."""

    __slots__ = ("how",)

    def __init__(self, how: tuple[Any, ...]) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


def payload_of_atoms(value: Any) -> bytes | None:
    """The payload of an atom or a short tuple of atoms, which most arguments and results are; else ``None``."""
    kind = type(value)
    if kind is tuple:
        if len(value) == 1:
            return _dumps(value, PROTOCOL) if type(value[0]) in ATOMS else None
        if len(value) <= _N_PLAIN_MAX and ATOMS.issuperset(map(type, value)):
            return _dumps(value, PROTOCOL)
    elif kind in ATOMS and (kind is not bytes or len(value) < NBYTES_RAW_MIN):
        return _dumps(value, PROTOCOL)
    return None


def dump_atoms(value: Any) -> Pickled:
    """Pickle what has no buffers."""
    stream = _dumps(value, PROTOCOL)
    return Pickled(stream, (), (), len(stream))


def dump_plain(plain: Any) -> Pickled:
    """Pickle what ``as_plain`` gave."""
    buffers: list[pickle.PickleBuffer] = []
    stream = _dumps(plain, PROTOCOL, buffer_callback=buffers.append)
    return pickled_of(stream, [buffer.raw() for buffer in buffers], ())


def as_plain(value: Any, kind: type) -> Any:
    """A value that is no atom in a form for the C pickler, often the value itself; ``None``: it needs our pickler."""
    if kind is tuple:
        return as_plain_tuple(value)
    if kind is list:
        return value if len(value) <= _N_PLAIN_MAX and ATOMS.issuperset(map(type, value)) else None
    if kind is dict:
        is_flat = len(value) <= _N_PLAIN_MAX and ATOMS.issuperset(map(type, value.values()))
        return value if is_flat and ATOMS.issuperset(map(type, value)) else None
    if kind is ndarray_type() and letter_of(value.dtype):
        return Rebuilt(reduce_array(value))
    if (kind is bytes or kind is bytearray) and len(value) >= NBYTES_RAW_MIN:
        return Rebuilt((kind, (pickle.PickleBuffer(value),)))
    return None


def as_plain_tuple(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The same for a tuple and, unless its members are all atoms, for each of them."""
    if len(values) > _N_PLAIN_MAX:
        return None
    if ATOMS.issuperset(map(type, values)):
        return values
    plain = []
    n_rebuilt = 0
    for value in values:
        kind = type(value)
        if kind not in ATOMS:
            form = as_plain(value, kind)
            if form is None:
                return None
            if form is not value:
                if n_rebuilt:
                    return None  # the two could be the same object, and should remain so
                n_rebuilt += 1
                value = form
        plain.append(value)
    return tuple(plain) if n_rebuilt else values
