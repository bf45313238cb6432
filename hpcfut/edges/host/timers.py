"""How exactly the kernel keeps the short sleeps of a rank."""

from __future__ import annotations

import ctypes
from typing import Final

_PR_SET_TIMERSLACK: Final = 29
_SLACK_NS: Final = 1000


def sharpen_timers() -> None:
    """Let sleeps of this thread, and of those it will start, end within a microsecond instead of 50.

    A rank that waits sleeps for some 25 microseconds at first, so the usual slack would triple that.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
