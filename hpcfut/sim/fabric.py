"""The virtual fabric: what MPI promises between ranks, and no more.

Frames of one pair of ranks arrive in order; between pairs there is no order. Bulk data goes its own way, and its two
ends learn of its completion at different times.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from hpcfut.wire.codec import decode_frame, encode_frame
from hpcfut.wire.messages import Message

Schedule = Callable[[float, Callable[[Any], None], Any], None]


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """How long messages take."""

    #: The usual latency: uniform between a tenth of this and this.
    latency_s: float = 50e-6
    #: Chance of a slow message, and its latency.
    slow: float = 0.0
    slow_s: float = 0.005
    #: Chance of a message that is stuck for very long.
    stuck: float = 0.0
    stuck_s: float = 0.5


class Frame(msgspec.Struct, gc=False):
    """A batch of messages on its way."""

    source: int
    destination: int
    load: int
    messages: list[Message]


class Fabric:
    """Carries frames and bulk data between virtual ranks."""

    def __init__(self, schedule: Schedule, rng: Random, weather: Weather, *, uses_codec: bool) -> None:
        self._schedule = schedule
        self._rng = rng
        self.weather = weather
        self.uses_codec = uses_codec
        #: When the latest frame of each pair arrives; the next one cannot arrive before.
        self._arrives: dict[tuple[int, int], float] = {}

    def latency(self) -> float:
        """How long the next message takes."""
        rng, weather = self._rng, self.weather
        draw = rng.random()
        if draw < weather.stuck:
            return weather.stuck_s * rng.random()
        if draw < weather.stuck + weather.slow:
            return weather.slow_s * rng.random()
        return weather.latency_s * (0.1 + 0.9 * rng.random())

    def send(self, frame: Frame, now: float, deliver: Callable[[Frame], None]) -> None:
        """Send a frame."""
        pair = (frame.source, frame.destination)
        at = max(now + self.latency(), self._arrives.get(pair, 0.0))
        self._arrives[pair] = at
        if self.uses_codec:
            frame.load, frame.messages = decode_frame(encode_frame(frame.load, frame.messages))
        self._schedule(at, deliver, frame)
