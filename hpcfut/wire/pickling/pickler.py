"""The general pickler: functions and classes of the script by value, refs as ids, and arrays as buffers."""

from __future__ import annotations

import copyreg
import io
import pickle
import threading
import weakref
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import cloudpickle

from hpcfut.wire.packing import Pickled, pickled_of
from hpcfut.wire.pickling.arrays import ndarray_type, reduce_array, reduce_array_subclass, reduce_memoryview
from hpcfut.wire.pickling.errors import UnloadableError
from hpcfut.wire.pickling.plain import PROTOCOL

if TYPE_CHECKING:
    from hpcfut.wire.pickling.values import Pickling


class Loading(threading.local):
    """Whose payload this thread is loading."""

    pickling: Pickling | None = None


loading: Final = Loading()


def _ref(object_id: int) -> Any:
    """What a ref is called in a stream."""
    pickling = loading.pickling
    if pickling is None:
        raise UnloadableError(
            "A pickled value that holds refs was loaded with pickle. Refs mean something only inside hpcfut: pass the "
            "value as an argument or a result of a task."
        )
    return pickling.make_ref(object_id)


#: cloudpickle's own reducers, by type.
_reducers: Final[Mapping[type, Callable[[Any], Any]]] = cloudpickle.Pickler.dispatch_table.maps[0]


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles functions and classes of the script by value, refs as ids, and arrays as buffers."""

    # cloudpickle chains its own table and this one, and a look into the chain costs a microsecond for every object.
    dispatch_table = copyreg.dispatch_table

    def __init__(self, pickling: Pickling, file: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(file, PROTOCOL, buffers.append)
        self.pickling = pickling
        self.contained: dict[int, None] = {}
        self.ndarray = ndarray_type()
        self.ref_type = pickling.ref_type
        self.id_of = pickling.id_of
        self.special = (FunctionType, type, memoryview, self.ndarray)

    @staticmethod
    def dumps(pickling: Pickling, value: Any) -> Pickled:
        """Pickle one value, with a pickler of its own."""
        file = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        pickler = Pickler(pickling, file, buffers)
        pickler.dump(value)
        return pickled_of(file.getvalue(), [buffer.raw() for buffer in buffers], tuple(pickler.contained))

    def reducer_override(self, value: Any) -> Any:
        """Called for everything but plain builtins."""
        kind = type(value)
        if kind is self.ref_type or issubclass(kind, self.ref_type):
            object_id = self.id_of(value)
            self.contained[object_id] = None
            return _ref, (object_id,)
        if not issubclass(kind, self.special):
            reduce = _reducers.get(kind)
            return NotImplemented if reduce is None else reduce(value)
        if kind is self.ndarray:
            return reduce_array(value)
        if kind is memoryview:
            return reduce_memoryview(value)
        if issubclass(kind, self.ndarray):
            return reduce_array_subclass(value, kind, self.ndarray)
        self.pickling.prepare_module(getattr(value, "__module__", None))
        reduced = super().reducer_override(value)
        if issubclass(kind, type) and type(reduced) is tuple and len(reduced) == 6:
            _is_original.setdefault(value, True)
            return (*reduced[:2], (reduced[5], reduced[2]), None, None, _complete_class)
        return reduced


#: Classes that were sent or received by value: whether they were defined in this process. cloudpickle knows them again
#: by a tracking id, and then sets their attributes anew; in the process that defined them this would replace methods by
#: copies with other globals.
_is_original: Final[weakref.WeakKeyDictionary[type, bool]] = weakref.WeakKeyDictionary()


def _complete_class(made: type, how: tuple[Callable[[type, Any], None], Any]) -> None:
    """Fill a class that came by value, unless it is this process's own and comes home."""
    if not _is_original.setdefault(made, False):
        set_state, state = how
        set_state(made, state)
