"""Values <-> payloads: the only door to pickle and cloudpickle.

Why refs leave through ``reducer_override`` and come back through a thread-local, and not by persistent ids (CPython
3.11, C pickler): ``persistent_id`` is called for every object, ``reducer_override`` only for what is no plain builtin.
A list of 1,000,000 ints takes 16 ms plain, 16 ms with ``reducer_override`` and 64 ms with ``persistent_id``; a list of
100,000 small objects 113, 123 and 141 ms. Reading with an ``Unpickler`` of our own (``persistent_load`` or
``find_class``) takes 1.0 µs for a small tuple, ``pickle.loads`` 0.3 µs. And what holds only numbers, texts and plain
arrays needs no pickler of ours at all, so that the call ``f([1, 2])`` takes 0.9 µs instead of 4.1 µs.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Final

import cloudpickle

from hpcfut.model.errors import HpcfutError
from hpcfut.wire import exceptions
from hpcfut.wire.calls import join_call, split_call
from hpcfut.wire.culprit import find_culprit
from hpcfut.wire.exceptions import StandInError
from hpcfut.wire.importable import is_importable
from hpcfut.wire.packing import Pickled, pack_inline, pack_into, pickled_of, unpack

__all__ = [
    "EMPTY_CALL",
    "Pickled",
    "Pickling",
    "StandInError",
    "UnloadableError",
    "UnpicklableError",
    "pack_inline",
    "pack_into",
]

#: Arrays up to this size are copied into the stream: a buffer of its own costs more than the copy.
_NBYTES_IN_STREAM_MAX: Final = 1024
#: ``bytes`` from this size on are buffers, which saves one copy of them.
_NBYTES_RAW_MIN: Final = 65_536
#: Longer tuples take the general way, so that the look at their members stays cheap.
_N_PLAIN_MAX: Final = 32

_PROTOCOL: Final = 5
_PROTO_OPCODE: Final = 0x80
_ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
#: NumPy's letters for numbers.
_NUMBERS: Final = frozenset("?bBhHiIlLqQefdgFDG")
#: What a memoryview can be cast to.
_NATIVE_FORMATS: Final = frozenset("cbB?hHiIlLqQnNfd")

_dumps: Final = pickle.dumps
_loads: Final = pickle.loads


class UnpicklableError(HpcfutError, TypeError):
    """A value cannot be pickled; the sentence names the part that is in the way."""


class UnloadableError(HpcfutError):
    """A payload cannot be turned back into a value on this rank."""


#: A call without arguments.
EMPTY_CALL: Final = Pickled(b"", (), (), 0)


class Pickling:
    """How one rank turns values into payloads and back. Any number of threads may use it at a time."""

    def __init__(
        self,
        ref_type: type,
        id_of: Callable[[Any], int],
        make_ref: Callable[[int], Any],
        path: Sequence[str] | None = None,
    ) -> None:
        """Make the pickling of a rank.

        Args:
            ref_type: The class of refs; its instances travel as ids.
            id_of: Gives the id of a ref.
            make_ref: Makes a ref of an id.
            path: The ``sys.path`` that all ranks have in common, if it is not that of this rank. What cannot be
                imported from there is sent by value.
        """
        self.ref_type = ref_type
        self.id_of = id_of
        self.make_ref = make_ref
        self._path = path
        self._checked_modules = {"__main__", *sys.stdlib_module_names}

    def dumps(self, value: Any) -> Pickled:
        """Pickle a value. Nothing else happens: what to do about ``contained`` is up to the caller.

        Raises:
            UnpicklableError: Some part of it cannot be pickled.
        """
        kind = type(value)
        if kind in _ATOMS and (kind is not bytes or len(value) < _NBYTES_RAW_MIN):
            return _dump_atoms(value)
        plain = _as_plain(value, kind)
        if plain is value:
            return _dump_atoms(value)
        if plain is not None:
            return _dump_plain(plain)
        return self._dump(value, (("the value", value),))

    def dumps_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Pickled, tuple[int, ...]]:
        """Pickle the arguments of a call, without the values of refs that are arguments themselves.

        To find the large ones among the arguments, ``dumps`` them one by one.

        Returns:
            The pickled call, whose ``contained`` are the refs deeper inside, and the ids of the refs that stood at the
            top level, each once, in order of appearance.

        Raises:
            UnpicklableError: Some argument cannot be pickled.
        """
        if not kwargs:
            if not args:
                return EMPTY_CALL, ()
            plain = _as_plain_tuple(args)
            if plain is args:
                return _dump_atoms(args), ()
            if plain is not None:
                return _dump_plain(plain), ()
        rest_args, rest_kwargs, places, arguments = split_call(args, kwargs, self.ref_type, self.id_of)
        plain = _as_plain_tuple((*rest_args, *rest_kwargs.values()))
        if plain is not None:
            plain_kwargs = dict(zip(rest_kwargs, plain[len(args) :], strict=True))
            # A list, because a tuple is a call of nothing but positional arguments.
            return _dump_plain([plain[: len(args)], plain_kwargs, places]), arguments
        roots = [(f"argument {position}", value) for position, value in enumerate(rest_args)]
        roots += [(f"argument {name!r}", value) for name, value in rest_kwargs.items()]
        return self._dump([tuple(rest_args), rest_kwargs, places], roots), arguments

    def loads(self, payload: bytes | bytearray | memoryview) -> Any:
        """Turn a payload back into a value.

        Arrays and memoryviews are read-only views over the payload and keep it alive; small arrays are read-only
        copies. The caller must not change the payload any more.

        Raises:
            UnloadableError: The payload is damaged, or something in it cannot be rebuilt here.
        """
        try:
            if payload[0] == _PROTO_OPCODE:
                return _loads(payload)
            return self._loads_packed(payload)
        except (HpcfutError, MemoryError):
            raise
        except Exception as error:
            raise UnloadableError(_load_complaint(error)) from error

    def loads_call(
        self, payload: bytes | bytearray | memoryview, arguments: Sequence[Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn the payload of a call back into positional and keyword arguments.

        Args:
            payload: What ``dumps_call`` gave, packed.
            arguments: The values of the refs that it listed, in its order.

        Raises:
            UnloadableError: As in ``loads``.
        """
        if not payload:
            return (), {}
        call = self.loads(payload)
        if type(call) is tuple:
            return call, {}
        args, kwargs, places = call
        return join_call(args, kwargs, places, arguments)

    def dumps_exception(self, error: BaseException) -> bytes:
        """Pickle an exception with its causes, so that ``loads_exception`` surely gives something."""
        return exceptions.dumps_exception(error, lambda value: _Pickler.dumps(self, value), self.loads)

    def loads_exception(self, payload: bytes) -> BaseException | None:
        """Rebuild an exception, if need be as a ``StandInError``; ``None`` if the payload is none."""
        return exceptions.loads_exception(payload, self.loads)

    def _dump(self, value: Any, roots: Sequence[tuple[str, Any]]) -> Pickled:
        """Pickle anything, in general. ``roots``: parts with names, to look for the culprit in."""
        try:
            return _Pickler.dumps(self, value)
        except (HpcfutError, MemoryError):
            raise
        except Exception as error:
            name, part = find_culprit(roots, lambda member: _Pickler.dumps(self, member))
            raise UnpicklableError(
                f"{name[0].upper()}{name[1:]} cannot be sent to another rank: it is a "
                f"{type(part).__module__}.{type(part).__qualname__} that cannot be pickled "
                f"({type(error).__name__}: {error}). Leave it out and make it inside the task, or give its class a "
                "__reduce__ method."
            ) from error

    def _loads_packed(self, payload: bytes | bytearray | memoryview) -> Any:
        stream, buffers = unpack(memoryview(payload).toreadonly())
        outer = _loading.pickling
        _loading.pickling = self
        try:
            return _loads(stream, buffers=buffers)
        finally:
            _loading.pickling = outer

    def prepare_module(self, module_name: Any) -> None:
        """Have functions and classes of this module sent by value if no other rank could import it."""
        top = str(module_name).partition(".")[0]
        if top not in self._checked_modules:
            self._checked_modules.add(top)
            if top in sys.modules and not is_importable(top, self._path):
                cloudpickle.register_pickle_by_value(sys.modules[top])


class _Loading(threading.local):
    """Whose payload this thread is loading."""

    pickling: Pickling | None = None


_loading: Final = _Loading()


def _ref(object_id: int) -> Any:
    """What a ref is called in a stream."""
    pickling = _loading.pickling
    if pickling is None:
        raise UnloadableError(
            "A pickled value that holds refs was loaded with pickle. Refs mean something only inside hpcfut: pass the "
            "value as an argument or a result of a task."
        )
    return pickling.make_ref(object_id)


# --- plain values: what the C pickler can do by itself ---


class _Rebuilt:
    """Pickles as whatever a call makes of it when loaded."""

    __slots__ = ("how",)

    def __init__(self, how: tuple[Any, ...]) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


def _dump_atoms(value: Any) -> Pickled:
    stream = _dumps(value, _PROTOCOL)
    return Pickled(stream, (), (), len(stream))


def _dump_plain(plain: Any) -> Pickled:
    buffers: list[pickle.PickleBuffer] = []
    stream = _dumps(plain, _PROTOCOL, buffer_callback=buffers.append)
    return pickled_of(stream, [buffer.raw() for buffer in buffers], ())


def _as_plain(value: Any, kind: type) -> Any:
    """A value that is no atom in a form for the C pickler, often the value itself; ``None``: it needs our pickler."""
    if kind is tuple:
        return _as_plain_tuple(value)
    if kind is list:
        return value if len(value) <= _N_PLAIN_MAX and _ATOMS.issuperset(map(type, value)) else None
    if kind is dict:
        is_flat = len(value) <= _N_PLAIN_MAX and _ATOMS.issuperset(map(type, value.values()))
        return value if is_flat and _ATOMS.issuperset(map(type, value)) else None
    if kind is _ndarray() and _letter(value.dtype):
        return _Rebuilt(_reduce_array(value))
    if (kind is bytes or kind is bytearray) and len(value) >= _NBYTES_RAW_MIN:
        return _Rebuilt((kind, (pickle.PickleBuffer(value),)))
    return None


def _as_plain_tuple(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The same for a tuple and, unless its members are all atoms, for each of them."""
    if len(values) > _N_PLAIN_MAX:
        return None
    if _ATOMS.issuperset(map(type, values)):
        return values
    plain = []
    n_rebuilt = 0
    for value in values:
        kind = type(value)
        if kind not in _ATOMS:
            form = _as_plain(value, kind)
            if form is None:
                return None
            if form is not value:
                if n_rebuilt:
                    return None  # the two could be the same object, and should remain so
                n_rebuilt += 1
                value = form
        plain.append(value)
    return tuple(plain) if n_rebuilt else values


def _ndarray() -> Any:
    """NumPy's array class, if anybody has loaded NumPy; else a class without instances."""
    return getattr(sys.modules.get("numpy"), "ndarray", _Rebuilt)


# --- arrays and memoryviews ---


def _reduce_array(array: Any) -> tuple[Any, ...]:
    """How to pickle an instance of ``ndarray`` itself."""
    dtype = array.dtype
    if dtype.hasobject or dtype.itemsize == 0:
        make, arguments, state = array.__reduce__()
        return make, arguments, state, None, None, _set_state_of_array
    flags = array.flags
    order = "F" if flags.fnc else "C"
    kind = _letter(dtype) or dtype
    if array.nbytes <= _NBYTES_IN_STREAM_MAX:
        return type(array), (array.shape, kind, array.tobytes("A"), 0, None, order)
    if not flags.forc:
        array = array.copy("C")
    try:
        data = pickle.PickleBuffer(array)
    except ValueError:  # a dtype that the buffer protocol has no name for, such as datetime64
        data = pickle.PickleBuffer(array.ravel("K").view("u1"))
    return _array, (array.shape, kind, data, order)


def _array(shape: tuple[int, ...], dtype: Any, data: Any, order: Any) -> Any:
    import numpy

    # NumPy looks through a memoryview to what is below, and would let the user make the array writable if that is;
    # it does not look through a PickleBuffer.
    buffer: Any = pickle.PickleBuffer(data)
    return numpy.ndarray(shape, dtype, buffer, 0, None, order)


def _letter(dtype: Any) -> str:
    """The letter of a native dtype of numbers; a dtype itself is slow to pickle. Empty for others."""
    letter: str = dtype.char
    return letter if letter in _NUMBERS and dtype.isbuiltin == 1 else ""


def _set_state_of_array(array: Any, state: Any) -> None:
    array.__setstate__(state)
    array.flags.writeable = False


def _reduce_array_subclass(array: Any, kind: Any, ndarray: Any) -> Any:
    """Views travel as views; a class with a pickling of its own keeps it."""
    names = ("__reduce__", "__reduce_ex__", "__setstate__")
    if kind in copyreg.dispatch_table or any(getattr(kind, name) is not getattr(ndarray, name) for name in names):
        return NotImplemented
    return _view_as, (array.view(ndarray), kind)


def _view_as(array: Any, kind: type) -> Any:
    return array.view(kind)


def _reduce_memoryview(view: memoryview) -> tuple[Any, ...]:
    code = view.format.lstrip("@")
    if code not in _NATIVE_FORMATS:
        import numpy  # casts know only single native types

        return memoryview, (numpy.asarray(view),)
    flat = view if view.c_contiguous else memoryview(view.tobytes())
    return _memoryview, (pickle.PickleBuffer(flat), code, view.shape)


def _memoryview(data: Any, code: Any, shape: tuple[int, ...]) -> Any:
    view = memoryview(data).toreadonly().cast("B")
    return view.cast(code) if 0 in shape else view.cast(code, shape)  # a cast cannot make empty dimensions


# --- everything else ---


#: cloudpickle's own reducers, by type.
_reducers: Final[Mapping[type, Callable[[Any], Any]]] = cloudpickle.Pickler.dispatch_table.maps[0]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles functions and classes of the script by value, refs as ids, and arrays as buffers."""

    # cloudpickle chains its own table and this one, and a look into the chain costs a microsecond for every object.
    dispatch_table = copyreg.dispatch_table

    def __init__(self, pickling: Pickling, file: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(file, _PROTOCOL, buffers.append)
        self.pickling = pickling
        self.contained: dict[int, None] = {}
        self.ndarray = _ndarray()
        self.ref_type = pickling.ref_type
        self.id_of = pickling.id_of
        self.special = (FunctionType, type, memoryview, self.ndarray)

    @staticmethod
    def dumps(pickling: Pickling, value: Any) -> Pickled:
        file = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        pickler = _Pickler(pickling, file, buffers)
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
            return _reduce_array(value)
        if kind is memoryview:
            return _reduce_memoryview(value)
        if issubclass(kind, self.ndarray):
            return _reduce_array_subclass(value, kind, self.ndarray)
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


# --- sentences about what went wrong ---


def _load_complaint(error: Exception) -> str:
    text = f"A value cannot be rebuilt on this rank ({type(error).__name__}: {error})."
    if isinstance(error, ImportError):
        return (
            f"{text} Install {error.name or 'the module'} where every rank finds it, put it beside the script, or call "
            "cloudpickle.register_pickle_by_value on it before sending."
        )
    return f"{text} Check that its class can be unpickled, and that all ranks have the same versions of its package."
