"""Which part of a value cannot be pickled, by a name that its user knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import FunctionType, MethodType
from typing import Any, Final

#: Looking is for people's sake and must end: so many levels deep, so many members of each.
_DEPTH_MAX: Final = 10
_N_MEMBERS_MAX: Final = 1000


def find_culprit(roots: Iterable[tuple[str, Any]], dumps: Callable[[Any], object]) -> tuple[str, Any]:
    """The innermost part that can be found to be unpicklable, as (where it is, what it is)."""
    name, part = roots[0]
    candidates: Iterator[tuple[str, Any]] | Sequence[tuple[str, Any]] = roots
    seen: set[int] = set()
    for _depth in range(10):
        for _count, (candidate_name, candidate) in zip(range(1000), candidates, strict=False):
            try:
                if id(candidate) not in seen:
                    dumps(candidate)
            except Exception:
                name, part = candidate_name, candidate
                break
        else:
            break
        seen.add(id(part))
        candidates = _members(name, part)
    return name, part


def _members(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, by names that its user will know."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield f"{name}[{key!r:.50}]", member
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield f"{name}[{index}]", member
    elif isinstance(value, set | frozenset):
        for member in value:
            yield f"a member of {name}", member
    elif isinstance(value, FunctionType):
        for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            yield f"the variable {variable!r} that {name} uses", getattr(cell, "cell_contents", None)
        for variable in value.__code__.co_names:
            if variable in value.__globals__:
                yield f"the global variable {variable!r} that {name} uses", value.__globals__[variable]
    elif isinstance(value, MethodType):
        yield f"the object of {name}", value.__self__
    elif not isinstance(value, type):
        for attribute, member in getattr(value, "__dict__", {}).items():
            yield f"{name}.{attribute}", member
