"""User code that Python runs in the middle of hpcfut: ``__del__`` methods and weakref callbacks.

They may come at any bytecode, on a thread that holds the engine's locks. Submitting and putting only append to the
mailbox then; but a thread that waited there would wait for itself, for ever.
"""

from __future__ import annotations

import sys
from types import CodeType


def demand_outside(codes: frozenset[CodeType]) -> None:
    """To be called before this thread blocks: refuse if it is inside already.

    Args:
        codes: The functions that make up the inside; those at the top of the stack are the present call itself.

    Raises:
        RuntimeError: One of them is further down.
    """
    frame = sys._getframe(1)
    while frame is not None and frame.f_code in codes:
        frame = frame.f_back  # type: ignore[assignment]
    while frame is not None:
        if frame.f_code in codes:
            raise RuntimeError(
                "A __del__ method or a weakref callback, which Python ran in the middle of hpcfut's own work, called "
                "get(), wait() or shutdown(): there it would wait for itself. Such code may submit tasks and put "
                "values; leave the waiting to the script or to a task."
            )
        frame = frame.f_back  # type: ignore[assignment]
