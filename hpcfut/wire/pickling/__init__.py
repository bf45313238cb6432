"""Values <-> payloads: the only door to pickle and cloudpickle.

Why refs leave through ``reducer_override`` and come back through a thread-local, and not by persistent ids (CPython
3.11, C pickler): ``persistent_id`` is called for every object, ``reducer_override`` only for what is no plain builtin.
A list of 1,000,000 ints takes 16 ms plain, 16 ms with ``reducer_override`` and 64 ms with ``persistent_id``; a list of
100,000 small objects 113, 123 and 141 ms. Reading with an ``Unpickler`` of our own (``persistent_load`` or
``find_class``) takes 1.0 µs for a small tuple, ``pickle.loads`` 0.3 µs. And what holds only numbers, texts and plain
arrays needs no pickler of ours at all, so that the call ``f([1, 2])`` takes 0.9 µs instead of 4.1 µs.
"""

from __future__ import annotations

from hpcfut.wire.exceptions import StandInError
from hpcfut.wire.packing import Pickled, pack_inline, pack_into
from hpcfut.wire.pickling.blanks import Blank, blank_of
from hpcfut.wire.pickling.errors import UnloadableError, UnpicklableError
from hpcfut.wire.pickling.plain import payload_of_atoms
from hpcfut.wire.pickling.values import EMPTY_CALL, Pickling

__all__ = [
    "EMPTY_CALL",
    "Blank",
    "Pickled",
    "Pickling",
    "StandInError",
    "UnloadableError",
    "UnpicklableError",
    "blank_of",
    "pack_inline",
    "pack_into",
    "payload_of_atoms",
]
