"""Calls: the arguments of a task without the refs among them, whose values come separately."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Where the value of a ref belongs (a position or a name), and its index among the arguments.
Places = dict[int | str, int]


def split_call(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], ref_type: type, id_of: Callable[[Any], int]
) -> tuple[list[Any], dict[str, Any], Places, tuple[int, ...]]:
    """Take out the refs at the top level of a call.

    Returns:
        The positional and keyword arguments with ``None`` for refs, where the refs stood, and their ids, each once, in
        order of appearance.
    """
    arguments: dict[int, int] = {}
    places: Places = {}
    rest_args = list(args)
    rest_kwargs = dict(kwargs)
    for position, value in enumerate(args):
        if isinstance(value, ref_type):
            places[position] = arguments.setdefault(id_of(value), len(arguments))
            rest_args[position] = None
    for name, value in kwargs.items():
        if isinstance(value, ref_type):
            places[name] = arguments.setdefault(id_of(value), len(arguments))
            rest_kwargs[name] = None
    return rest_args, rest_kwargs, places, tuple(arguments)


def join_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], places: Places, arguments: Sequence[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put values where refs were."""
    if not places:
        return args, kwargs
    full_args = list(args)
    for place, index in places.items():
        if isinstance(place, int):
            full_args[place] = arguments[index]
        else:
            kwargs[place] = arguments[index]
    return tuple(full_args), kwargs
