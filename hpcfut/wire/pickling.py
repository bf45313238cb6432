"""Values <-> payloads: the only door to pickle and cloudpickle.

A payload is the bare pickle stream where the value holds neither large buffers nor refs, and else

    magic | n_buffers | nbytes of the stream | nbytes of each buffer … | stream | buffer | buffer …

with every buffer at a multiple of 64 bytes from the start, so that arrays are views over it, wherever it lies.

Why refs leave through ``reducer_override`` and come back through a thread-local, and not by persistent ids (CPython
3.11, C pickler): ``persistent_id`` is called for every object, ``reducer_override`` only for what is no plain builtin.
A list of 1,000,000 ints takes 16 ms plain, 16 ms with ``reducer_override`` and 64 ms with ``persistent_id``; a list of
100,000 small objects 113, 123 and 141 ms. Reading with an ``Unpickler`` of our own (``persistent_load`` or
``find_class``) takes 1.0 µs for a small tuple, ``pickle.loads`` 0.3 µs. And what holds only numbers, texts and plain
arrays needs no pickler of ours at all: 0.4 µs instead of 2.1 µs.
"""

from __future__ import annotations

import copyreg
import io
import os.path
import pickle
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from types import FunctionType, MethodType
from typing import Any, Final

import cloudpickle
import msgspec

from hpcfut.model.errors import HpcfutError

#: Arrays up to this size are copied into the stream: a buffer of its own costs more than the copy.
_NBYTES_IN_STREAM_MAX: Final = 1024
#: ``bytes`` from this size on are buffers, which saves one copy of them.
_NBYTES_RAW_MIN: Final = 65_536
#: Copies from this size on let other threads run meanwhile, so that a busy rank still answers.
_NBYTES_COPY_HELD_MAX: Final = 1 << 20
#: Longer tuples take the general way, so that the look at their members stays cheap.
_N_PLAIN_MAX: Final = 32

_PROTOCOL: Final = 5
_PROTO_OPCODE: Final = 0x80
_MAGIC: Final = b"hfut"
_HEADER: Final = struct.Struct("<4sIQ")
_ALIGNMENT: Final = 64
_PADDING: Final = bytes(_ALIGNMENT)

_ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
_NATIVE_FORMATS: Final = frozenset("cbB?hHiIlLqQnNfd")

_dumps: Final = pickle.dumps
_loads: Final = pickle.loads


class UnpicklableError(HpcfutError, TypeError):
    """A value cannot be pickled; the sentence names the part that is in the way."""


class UnloadableError(HpcfutError):
    """A payload cannot be turned back into a value on this rank."""


class StandInError(HpcfutError):
    """Stands for an exception that could not be carried between ranks.

    Attributes:
        type_name: The full name of its class.
        message: What it said.
    """

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(type_name, message)
        self.type_name = type_name
        self.message = message

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


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
            stream = _dumps(value, _PROTOCOL)
            return Pickled(stream, (), (), len(stream))
        if kind is tuple:
            plain = _as_plain(value)
        else:
            plain = _as_rebuilt(value, kind)
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
            plain = _as_plain(args)
            if plain is not None:
                return _dump_plain(plain), ()
        arguments: dict[int, int] = {}
        places: dict[int | str, int] = {}
        rest_args = list(args)
        rest_kwargs = dict(kwargs)
        for position, value in enumerate(args):
            if isinstance(value, self.ref_type):
                places[position] = arguments.setdefault(self.id_of(value), len(arguments))
                rest_args[position] = None
        for name, value in kwargs.items():
            if isinstance(value, self.ref_type):
                places[name] = arguments.setdefault(self.id_of(value), len(arguments))
                rest_kwargs[name] = None
        plain_args, plain_kwargs = _as_plain(tuple(rest_args)), _as_plain(tuple(rest_kwargs.values()))
        if plain_args is not None and plain_kwargs is not None:
            # A list, because a tuple is a call of nothing but positional arguments.
            return _dump_plain([plain_args, dict(zip(rest_kwargs, plain_kwargs, strict=True)), places]), (*arguments,)
        roots = [(f"argument {position}", value) for position, value in enumerate(rest_args)]
        roots += [(f"argument {name!r}", value) for name, value in rest_kwargs.items()]
        call = tuple(rest_args) if not places and not kwargs else [tuple(rest_args), rest_kwargs, places]
        return self._dump(call, roots), (*arguments,)

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
        except HpcfutError:
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
        if places:
            args = list(args)
            for place, index in places.items():
                if type(place) is int:
                    args[place] = arguments[index]
                else:
                    kwargs[place] = arguments[index]
            args = tuple(args)
        return args, kwargs

    def dumps_exception(self, error: BaseException) -> bytes:
        """Pickle an exception with its causes, so that ``loads_exception`` surely gives something.

        Attributes and notes travel with it. What cannot be pickled or rebuilt, or holds refs (nobody would count
        them), is replaced: first attributes by their texts, then the exception by a ``StandInError``.
        """
        return self._dump_exception(error, ())

    def loads_exception(self, payload: bytes) -> BaseException | None:
        """Rebuild an exception; ``None`` if there is nothing to rebuild. Raises nothing of its own."""
        try:
            type_name, message, body, is_suppressing, cause = _loads(payload)
        except Exception:
            return None
        error = self._try_exception(body) or StandInError(type_name, message)
        if cause is not None:
            error.__cause__ = self.loads_exception(cause)
        error.__suppress_context__ = is_suppressing
        return error

    def _dump(self, value: Any, roots: Sequence[tuple[str, Any]]) -> Pickled:
        """Pickle anything, in general. ``roots``: parts with names, to look for the culprit in."""
        try:
            return _Pickler.dumps(self, value)
        except HpcfutError:
            raise
        except Exception as error:
            name, part = _culprit(roots, lambda member: _Pickler.dumps(self, member))
            raise UnpicklableError(
                f"{name[0].upper()}{name[1:]} cannot be sent to another rank: it is a "
                f"{type(part).__module__}.{type(part).__qualname__} that cannot be pickled "
                f"({type(error).__name__}: {error}). Leave it out and make it inside the task, or give its class a "
                "__reduce__ method."
            ) from error

    def _loads_packed(self, payload: bytes | bytearray | memoryview) -> Any:
        view = memoryview(payload).toreadonly()
        magic, n_buffers, nbytes_stream = _HEADER.unpack_from(view)
        if magic != _MAGIC:
            raise UnloadableError(
                f"A payload of {len(view)} bytes holds no pickled value: it begins with {magic!r}. It was not made by "
                "hpcfut, or overwritten; the latter is a bug in hpcfut."
            )
        sizes = struct.unpack_from(f"<{n_buffers}Q", view, _HEADER.size)
        start = _HEADER.size + 8 * n_buffers
        stream = view[start : start + nbytes_stream]
        offset = start + nbytes_stream
        buffers = []
        for nbytes in sizes:
            offset = _aligned(offset)
            buffers.append(view[offset : offset + nbytes])
            offset += nbytes
        outer = _loading.pickling
        _loading.pickling = self
        try:
            return _loads(stream, buffers=buffers)
        finally:
            _loading.pickling = outer

    def _dump_exception(self, error: BaseException, effects: tuple[BaseException, ...]) -> bytes:
        """``effects``: what this is the cause of, for chains that bite their tail."""
        message = _text_of(error)
        cause = error.__cause__
        carried_cause = None
        if cause is not None and len(effects) < 20 and all(cause is not effect for effect in (*effects, error)):
            carried_cause = self._dump_exception(cause, (*effects, error))
        bodies = (lambda: error, lambda: _Rebuilt(_by_parts(error, _same)), lambda: _Rebuilt(_by_parts(error, repr)))
        for body in bodies:
            payload = self._verified_exception(error, body)
            if payload is not None:
                break
        kind = type(error)
        return _dumps(
            (f"{kind.__module__}.{kind.__qualname__}", message, payload, error.__suppress_context__, carried_cause),
            _PROTOCOL,
        )

    def _verified_exception(self, error: BaseException, body: Callable[[], Any]) -> bytes | None:
        """The payload of this form of the exception, if it comes back as what it was."""
        try:
            pickled = _Pickler.dumps(self, body())
            if pickled.contained:
                return None
            payload = pack_inline(pickled)
        except Exception:
            return None
        twin = self._try_exception(payload)
        return payload if type(twin) is type(error) and _text_of(twin) == _text_of(error) else None

    def _try_exception(self, payload: bytes | None) -> BaseException | None:
        if payload is None:
            return None
        try:
            error = self.loads(payload)
        except Exception:
            return None
        return error if isinstance(error, BaseException) else None

    def is_foreign(self, module_name: str) -> bool:
        """Whether a loaded module cannot be imported on other ranks. Asked once per top-level module and pickling."""
        module = sys.modules.get(module_name)
        if module is None:
            return False  # cloudpickle sends by value what belongs to no module
        file = getattr(module, "__file__", None)
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(module_name, self._path if finder is PathFinder else None) if find is not None else None
            if spec is not None:
                # Another module of this name is what other ranks would find.
                origin = spec.origin if spec.has_location else None
                return bool(file and origin) and os.path.realpath(str(file)) != os.path.realpath(origin)
        return True

    def prepare_module(self, module_name: Any) -> None:
        """Have functions and classes of this module sent by value if no other rank could import it."""
        top = str(module_name).partition(".")[0]
        if top not in self._checked_modules:
            self._checked_modules.add(top)
            if self.is_foreign(top):
                cloudpickle.register_pickle_by_value(sys.modules[top])


def _pickled(stream: bytes, buffers: list[pickle.PickleBuffer], contained: tuple[int, ...]) -> Pickled:
    if not buffers and not contained:
        return Pickled(stream, (), (), len(stream))
    views = tuple([buffer.raw() for buffer in buffers])
    nbytes = _HEADER.size + 8 * len(views) + len(stream)
    for view in views:
        nbytes = _aligned(nbytes) + view.nbytes
    return Pickled(stream, views, contained, nbytes)


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


def _dump_plain(plain: Any) -> Pickled:
    buffers: list[pickle.PickleBuffer] = []
    stream = _dumps(plain, _PROTOCOL, buffer_callback=buffers.append)
    return _pickled(stream, buffers, ())


def _as_plain(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The same tuple in a form for the C pickler, or ``None`` if it holds more than atoms and plain arrays."""
    if len(values) > _N_PLAIN_MAX:
        return None
    if _ATOMS.issuperset(map(type, values)):
        return values
    plain = []
    n_rebuilt = 0
    for value in values:
        kind = type(value)
        if kind not in _ATOMS:
            value = _as_plain(value) if kind is tuple else _as_rebuilt(value, kind)
            if value is None or n_rebuilt:  # two could be the same object, and should remain so
                return None
            n_rebuilt += 1
        plain.append(value)
    return tuple(plain)


def _as_rebuilt(value: Any, kind: type) -> _Rebuilt | None:
    """A single plain array, or large bytes, in a form for the C pickler."""
    if kind is _ndarray() and not value.dtype.hasobject and value.dtype.names is None:
        return _Rebuilt(_reduce_array(value))
    if (kind is bytes or kind is bytearray) and len(value) >= _NBYTES_RAW_MIN:
        return _Rebuilt((kind, (pickle.PickleBuffer(value),)))
    return None


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
    order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    data: bytes | pickle.PickleBuffer
    if array.nbytes <= _NBYTES_IN_STREAM_MAX:
        data = array.tobytes("A")
    else:
        if not flags.forc:
            array = array.copy("C")
        try:
            data = pickle.PickleBuffer(array)
        except ValueError:  # a dtype that the buffer protocol has no name for, such as datetime64
            data = pickle.PickleBuffer(array.ravel("K").view("u1"))
    # A dtype is slow to pickle; the usual ones have a letter.
    kind = dtype.char if dtype is type(dtype)(dtype.char) else dtype
    return type(array), (array.shape, kind, data, 0, None, order)


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


def _memoryview(data: Any, code: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(data).toreadonly()
    if 0 in shape:
        return view.cast("B").cast(code)  # a cast cannot make empty dimensions
    return view.cast("B").cast(code, shape)


# --- everything else ---


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles functions and classes of the script by value, refs as ids, and arrays as buffers."""

    # A plain dictionary is looked up in C; cloudpickle's chain of two costs a microsecond for every object.
    dispatch_table: Mapping[Any, Any] = {}

    def __init__(self, pickling: Pickling, file: io.BytesIO, buffers: list[pickle.PickleBuffer]) -> None:
        chain = cloudpickle.Pickler.dispatch_table
        if len(_Pickler.dispatch_table) != len(chain):
            _Pickler.dispatch_table = dict(chain)
        super().__init__(file, _PROTOCOL, buffers.append)
        self.pickling = pickling
        self.contained: dict[int, None] = {}
        self.ndarray = _ndarray()
        self.special = (pickling.ref_type, FunctionType, type, memoryview, self.ndarray)

    @staticmethod
    def dumps(pickling: Pickling, value: Any) -> Pickled:
        file = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        pickler = _Pickler(pickling, file, buffers)
        pickler.dump(value)
        return _pickled(file.getvalue(), buffers, tuple(pickler.contained))

    def reducer_override(self, value: Any) -> Any:
        """Called for everything but plain builtins."""
        kind = type(value)
        if not issubclass(kind, self.special):
            return NotImplemented
        if kind is self.ndarray:
            return _reduce_array(value)
        if issubclass(kind, self.pickling.ref_type):
            object_id = self.pickling.id_of(value)
            self.contained[object_id] = None
            return _ref, (object_id,)
        if kind is memoryview:
            return _reduce_memoryview(value)
        if issubclass(kind, self.ndarray):
            return _reduce_array_subclass(value, kind, self.ndarray)
        self.pickling.prepare_module(value.__module__)
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


# --- exceptions ---


def _text_of(error: BaseException | None) -> str:
    try:
        return str(error)
    except Exception as trouble:
        return f"its text could not be made, because its __str__ raised {type(trouble).__name__}"


def _same(value: Any) -> Any:
    return value


def _by_parts(error: BaseException, convert: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Rebuild without the constructor, which may want other arguments than those in ``args``."""
    attributes = {name: convert(value) for name, value in vars(error).items() if name != "__notes__"}
    if hasattr(error, "__notes__"):
        attributes["__notes__"] = error.__notes__
    arguments = tuple(value if type(value) in _ATOMS else convert(value) for value in error.args)
    return _exception_of_parts, (type(error), arguments, attributes)


def _exception_of_parts(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error


# --- sentences about what went wrong ---


def _load_complaint(error: Exception) -> str:
    text = f"A value cannot be rebuilt on this rank ({type(error).__name__}: {error})."
    if isinstance(error, ImportError):
        return (
            f"{text} Install {error.name or 'the module'} where every rank finds it, put it beside the script, or call "
            "cloudpickle.register_pickle_by_value on it before sending."
        )
    return f"{text} Check that its class can be unpickled, and that all ranks have the same versions of its package."


