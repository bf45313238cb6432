"""Which modules other ranks can import."""

from __future__ import annotations

import os.path
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder


def is_importable(name: str, path: Sequence[str] | None = None) -> bool:
    """Whether a fresh process would find the same top-level module as the one loaded here.

    It would not where a script made the module itself, or loaded it from a file that is not on the path.

    Args:
        name: A key of ``sys.modules``.
        path: The ``sys.path`` of the other process, if it is not the same.
    """
    file = getattr(sys.modules.get(name), "__file__", None)
    # Another module of this name may be what others find.
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is None:
            continue
        spec = find(name, path if finder is PathFinder else None)
        if spec is not None:
            origin = spec.origin if spec.has_location else None
            return not file or not origin or os.path.realpath(origin) == os.path.realpath(file)
    return False
