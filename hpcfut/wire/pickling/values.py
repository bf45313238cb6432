"""Values to payloads and back, as one rank does it."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, Final

import cloudpickle

from hpcfut.model.errors import HpcfutError
from hpcfut.wire import exceptions
from hpcfut.wire.calls import join_call, split_call
from hpcfut.wire.culprit import find_culprit
from hpcfut.wire.importable import is_importable
from hpcfut.wire.packing import Pickled, pickled_of, unpack
from hpcfut.wire.pickling.arrays import how_to_make_sole_array, ndarray_type, parts_of_array
from hpcfut.wire.pickling.errors import UnloadableError, UnpicklableError, complaint_of
from hpcfut.wire.pickling.pickler import Pickler, loading
from hpcfut.wire.pickling.plain import ATOMS, NBYTES_RAW_MIN, as_plain, as_plain_tuple, dump_atoms, dump_plain

_PROTO_OPCODE: Final = 0x80

_loads: Final = pickle.loads

#: A call without arguments other than refs, which stand in order: there is nothing to tell.
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
        # Every rank has this package, wherever its script made it look for modules since.
        self._checked_modules = {"__main__", __name__.partition(".")[0], *sys.stdlib_module_names}

    def dumps(self, value: Any) -> Pickled:
        """Pickle a value. Nothing else happens: what to do about ``contained`` is up to the caller.

        Raises:
            UnpicklableError: Some part of it cannot be pickled.
        """
        kind = type(value)
        if kind in ATOMS and (kind is not bytes or len(value) < NBYTES_RAW_MIN):
            return dump_atoms(value)
        if kind is ndarray_type() and (parts := parts_of_array(value)) is not None:
            stream, data = parts
            return pickled_of(stream, (data,), ())
        plain = as_plain(value, kind)
        if plain is value:
            return dump_atoms(value)
        if plain is not None:
            return dump_plain(plain)
        return self.dumps_parts(value, (("the value", value),))

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
            if type(args[0]) is self.ref_type:
                if len(args) == 1:
                    return EMPTY_CALL, (self.id_of(args[0]),)
                ids = tuple([self.id_of(value) for value in args if type(value) is self.ref_type])
                if len({*ids}) == len(args):
                    return EMPTY_CALL, ids
            plain = as_plain_tuple(args)
            if plain is args:
                return dump_atoms(args), ()
            if plain is not None:
                return dump_plain(plain), ()
        rest_args, rest_kwargs, places, arguments = split_call(args, kwargs, self.ref_type, self.id_of)
        plain = as_plain_tuple((*rest_args, *rest_kwargs.values()))
        if plain is not None:
            plain_kwargs = dict(zip(rest_kwargs, plain[len(args) :], strict=True))
            # A list, because a tuple is a call of nothing but positional arguments.
            return dump_plain([plain[: len(args)], plain_kwargs, places]), arguments
        roots = [(f"argument {position}", value) for position, value in enumerate(rest_args)]
        roots += [(f"argument {name!r}", value) for name, value in rest_kwargs.items()]
        return self.dumps_parts([tuple(rest_args), rest_kwargs, places], roots), arguments

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
            raise UnloadableError(complaint_of(error)) from error

    def loader_of(self, payload: memoryview) -> Callable[[], Any]:
        """What does the same as ``loads`` of this payload, again and again, each time for a value of its own.

        Raises:
            UnloadableError: As in ``loads``.
        """
        try:
            how = None if payload[0] == _PROTO_OPCODE else how_to_make_sole_array(payload.toreadonly())
            if how is None:
                return partial(self.loads, payload)
            make = partial(how[0], *how[1])
            make()  # What can be done once can be done again.
            return make
        except Exception as error:
            raise UnloadableError(complaint_of(error)) from error

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
            return tuple(arguments), {}
        call = self.loads(payload)
        if type(call) is tuple:
            return call, {}
        args, kwargs, places = call
        return join_call(args, kwargs, places, arguments)

    def dumps_exception(self, error: BaseException) -> bytes:
        """Pickle an exception with its causes, so that ``loads_exception`` surely gives something."""
        return exceptions.dumps_exception(error, lambda value: Pickler.dumps(self, value), self.loads)

    def loads_exception(self, payload: bytes) -> BaseException | None:
        """Rebuild an exception, if need be as a ``StandInError``; ``None`` if the payload is none."""
        return exceptions.loads_exception(payload, self.loads)

    def dumps_parts(self, value: Any, roots: Sequence[tuple[str, Any]]) -> Pickled:
        """Pickle anything, in general.

        Args:
            value: What to pickle.
            roots: Parts of it with names, to look for the culprit in.

        Raises:
            UnpicklableError: Some part of it cannot be pickled.
        """
        try:
            return Pickler.dumps(self, value)
        except (HpcfutError, MemoryError):
            raise
        except Exception as error:
            name, part = find_culprit(roots, lambda member: Pickler.dumps(self, member))
            raise UnpicklableError(
                f"{name[0].upper()}{name[1:]} cannot be sent to another rank: it is a "
                f"{type(part).__module__}.{type(part).__qualname__} that cannot be pickled "
                f"({type(error).__name__}: {error}). Leave it out and make it inside the task, or give its class a "
                "__reduce__ method."
            ) from error

    def _loads_packed(self, payload: bytes | bytearray | memoryview) -> Any:
        view = memoryview(payload).toreadonly()
        how = how_to_make_sole_array(view)
        if how is not None:
            make, parts = how
            return make(*parts)
        stream, buffers = unpack(view)
        outer = loading.pickling
        loading.pickling = self
        try:
            return _loads(stream, buffers=buffers)
        finally:
            loading.pickling = outer

    def prepare_module(self, module_name: Any) -> None:
        """Have functions and classes of this module sent by value if no other rank could import it."""
        name = str(module_name)
        if name in self._checked_modules:
            return
        self._checked_modules.add(name)
        top = name.partition(".")[0]
        if name not in sys.modules and top in sys.modules:
            # Classes may name a module that their package loads only when somebody asks for it, as `numpy.rec`; by
            # value they would be other classes where they arrive. Whatever keeps it from being loaded, they go so.
            with suppress(Exception):
                import_module(name)
        if top not in self._checked_modules or top == name:
            self._checked_modules.add(top)
            if top in sys.modules and not is_importable(top, self._path):
                cloudpickle.register_pickle_by_value(sys.modules[top])
