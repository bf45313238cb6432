"""Timeouts, as users give them."""

from __future__ import annotations

import threading
from numbers import Real
from typing import Any


def checked_timeout(timeout: Any, name: str) -> float | None:
    """The timeout that a user gave to a function, in seconds; ``None`` if it is longer than anybody can wait."""
    if not isinstance(timeout, Real) or not float(timeout) >= 0:  # The comparison is false for NaN.
        raise ValueError(
            f"The timeout of {name}() cannot be {timeout!r}. Give seconds, 0 or more, or None to wait for ever."
        )
    return float(timeout) if timeout <= threading.TIMEOUT_MAX else None
