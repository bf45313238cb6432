"""Sites: which line of user code made an object. Noted only on demand, because it takes longer than a task."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from hpcfut.core.events import Event, SiteNoted


def noting(post: Callable[[Event], None], make: Callable[..., Any], *, is_named: bool = False) -> Callable[..., Any]:
    """A function that makes objects, with a note of where it was called.

    It returns their ids, or one of them; or is given the id first, and ``is_named``.
    """

    def make_and_note(*args: Any) -> Any:
        made = make(*args)
        ids = args[0] if is_named else made
        post(SiteNoted(ids if isinstance(ids, tuple) else (ids,), _site()))
        return made

    return make_and_note


def _site() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "hpcfut":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
