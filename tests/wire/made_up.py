"""Messages of any kind with any content, made from their types: a new message is tested as soon as it exists."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

from hpcfut.wire.messages import Message

KINDS = typing.get_args(Message)
ID_MAX = 2**64 - 1

SIMPLE: Mapping[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), ID_MAX),
    str: st.text(max_size=10),
    bytes: st.binary(max_size=10),
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    type(None): st.none(),
}


def strategy_of(kind: Any, simple: Mapping[Any, st.SearchStrategy[Any]] = SIMPLE) -> st.SearchStrategy[Any]:
    """Values of any type that stands in a message; ``simple`` says what the simple ones are."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        (meta,) = kind.__metadata__
        highest = meta.lt - 1 if meta.lt is not None else 2**63 - 1
        return simple.get(kind, st.integers(meta.ge, highest))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return st.lists(strategy_of(arguments[0], simple), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(strategy_of(argument, simple) for argument in arguments))
    if origin is list:
        return st.lists(strategy_of(arguments[0], simple), max_size=3)
    if origin is dict:
        return st.dictionaries(*(strategy_of(argument, simple) for argument in arguments), max_size=3)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(strategy_of(argument, simple) for argument in arguments))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{name: strategy_of(hints[name], simple) for name in kind.__struct_fields__})
    return simple[kind]
