"""Which part of a value cannot be pickled, by a name that its user knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from types import FunctionType, MethodType
from typing import Any, Final

#: The search is for people's sake and must end: so many levels deep, so many members of each.
_DEPTH_MAX: Final = 10
_N_MEMBERS_MAX: Final = 1000


def find_culprit(roots: Iterable[tuple[str, Any]], dumps: Callable[[Any], object]) -> tuple[str, Any]:
    """The innermost part that can be found to be unpicklable.

    Args:
        roots: Where to look, with names.
        dumps: Raises for what cannot be pickled.

    Returns:
        The name of the part and the part.
    """
    found: tuple[str, Any] = ("the value", None)
    seen: list[Any] = []
    candidates = roots
    for _ in range(_DEPTH_MAX):
        for name, part in islice(candidates, _N_MEMBERS_MAX):
            if any(part is other for other in seen):
                continue
            try:
                dumps(part)
            except Exception:  # the value's own code may do anything
                found = (name, part)
                break
        else:
            break
        seen.append(found[1])
        candidates = _members(*found)
    return found


def _members(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield f"{name}[{repr(key)[:50]}]", member
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield f"{name}[{index}]", member
    elif isinstance(value, set | frozenset):
        for member in value:
            yield f"a member of {name}", member
    elif isinstance(value, FunctionType):
        for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            with suppress(ValueError):  # of a cell that is still empty
                yield f"the variable {variable!r} that {name} uses", cell.cell_contents
        for variable in value.__code__.co_names:
            if variable in value.__globals__:
                yield f"the global variable {variable!r} that {name} uses", value.__globals__[variable]
    elif isinstance(value, MethodType):
        yield f"the object of {name}", value.__self__
    elif not isinstance(value, type):
        for attribute, member in getattr(value, "__dict__", {}).items():
            yield f"{name}.{attribute}", member
