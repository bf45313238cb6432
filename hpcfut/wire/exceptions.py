"""Exceptions <-> bytes, so that something always arrives, whatever the exception is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from hpcfut.model.errors import HpcfutError, TaskError
from hpcfut.wire.packing import Pickled, pack_inline

#: Longer chains of causes are cut off.
_N_CAUSES_MAX: Final = 20


class StandInError(HpcfutError):
    """Stands for an exception that could not be carried between ranks.

    Example:
        >>> class Odd(Exception):
        ...     def __str__(self):
        ...         return f"the one at {id(self)}"  # which no copy can be
        >>> @hpcfut.remote
        ... def fail():
        ...     raise Odd
        >>> try:
        ...     hpcfut.get(fail.remote())
        ... except hpcfut.exceptions.TaskError as error:
        ...     print(type(error.cause).__name__, error.cause.type_name)
        StandInError __main__.Odd

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


class _Carried(msgspec.Struct, array_like=True):
    type_name: str
    message: str
    #: The pickled exception, or the arguments of ``_join``.
    body: bytes | None
    is_suppressing: bool
    cause: _Carried | None


_encode: Final = msgspec.msgpack.Encoder().encode
#: Sets an attribute of an exception without asking its class, which may be a frozen dataclass.
_set: Final = BaseException.__setattr__
_decode: Final = msgspec.msgpack.Decoder(_Carried).decode


def dumps_exception(error: BaseException, dumps: Callable[[Any], Pickled], loads: Callable[[bytes], Any]) -> bytes:
    """Pickle an exception with its causes, so that ``loads_exception`` surely gives something.

    Attributes and notes travel with it. The error of another task goes on as what that task raised. What cannot be
    pickled or rebuilt, or holds refs (nobody would count them), is replaced: first attributes by their texts, then the
    exception by a ``StandInError``. Raises nothing of its own.
    """
    try:
        return _dumps_chain(error, dumps, loads)
    except Exception:  # the exception's own code may do anything
        return _encode(_Carried(_name_of(error), "its own code did not let it be looked at", None, False, None))


def _dumps_chain(error: BaseException, dumps: Callable[[Any], Pickled], loads: Callable[[bytes], Any]) -> bytes:
    chain = [_original(error)]
    while (cause := chain[-1].__cause__) is not None and len(chain) <= _N_CAUSES_MAX:
        cause = _original(cause)
        if any(cause is link for link in chain):
            break
        chain.append(cause)
    carried = None
    for link in reversed(chain):
        body = _body(link, dumps, loads)
        carried = _Carried(_name_of(link), _text_of(link), body, link.__suppress_context__, carried)
    return _encode(carried)


def loads_exception(payload: bytes, loads: Callable[[bytes], Any]) -> BaseException | None:
    """Rebuild an exception and its causes; ``None`` if there is nothing to rebuild. Raises nothing of its own."""
    try:
        carried: _Carried | None = _decode(payload)
    except msgspec.MsgspecError:
        return None
    links = []
    while carried is not None:
        link = _rebuilt(carried.body, loads) or StandInError(carried.type_name, carried.message)
        links.append((link, carried.is_suppressing))
        carried = carried.cause
    causes = [link for link, _ in links[1:]] + [None]
    for (link, is_suppressing), cause in zip(links, causes, strict=True):
        _set(link, "__cause__", cause)
        _set(link, "__suppress_context__", is_suppressing)
    return links[0][0]


def _original(error: BaseException) -> BaseException:
    """What the first task raised, if this came out of ``get`` in a task: its class exists on this rank alone."""
    while isinstance(error, TaskError) and error.cause is not None:
        error = error.cause
    return error


def _body(error: BaseException, dumps: Callable[[Any], Pickled], loads: Callable[[bytes], Any]) -> bytes | None:
    """The best pickled form of one exception that comes back as what it was."""
    for form in (lambda: error, lambda: _split(error, _same), lambda: _split(error, repr)):
        try:
            pickled = dumps(form())
            if pickled.contained:
                continue
            body = pack_inline(pickled)
        except Exception:  # the exception's own code may do anything
            continue
        twin = _rebuilt(body, loads)
        if type(twin) is type(error) and _text_of(twin) == _text_of(error):
            return body
    return None


def _rebuilt(body: bytes | None, loads: Callable[[bytes], Any]) -> BaseException | None:
    if body is None:
        return None
    try:
        error = loads(body)
        if type(error) is tuple:
            error = _join(*error)
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None


def _split(error: BaseException, convert: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The parts of an exception whose constructor wants other arguments than those in ``args``."""
    attributes = {name: value if name == "__notes__" else convert(value) for name, value in vars(error).items()}
    arguments = tuple(value if isinstance(value, str | int | float) else convert(value) for value in error.args)
    return type(error), arguments, attributes


def _join(kind: type[BaseException], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *arguments)
    _set(error, "args", arguments)
    vars(error).update(attributes)
    return error


def _same(value: Any) -> Any:
    return value


def _name_of(error: BaseException) -> str:
    return encodable(f"{type(error).__module__}.{type(error).__qualname__}")


def encodable(text: str) -> str:
    """The text itself, or with escapes for what no encoding takes: halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()


def _text_of(error: BaseException | None) -> str:
    try:
        return encodable(str(error))
    except Exception as trouble:
        return f"its text could not be made, because its __str__ raised {type(trouble).__name__}"
