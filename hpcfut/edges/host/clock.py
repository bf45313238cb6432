"""Monotonic time."""

from __future__ import annotations

from time import monotonic


class MonotonicClock:
    """Implements ``ports.Clock``."""

    #: Seconds since some fixed instant.
    now = staticmethod(monotonic)
