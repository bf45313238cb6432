"""Monotonic time."""

from __future__ import annotations

from time import monotonic


class MonotonicClock:
    """Implements ``ports.Clock``."""

    def now(self) -> float:
        """Seconds since some fixed instant."""
        return monotonic()
