"""What a name stands for: an actor, and what it takes to make a handle of it."""

from __future__ import annotations

import msgspec


class NamedActor(msgspec.Struct, array_like=True, frozen=True):
    """An actor that has a name; ``actor_id`` is 0 while it is about to end."""

    actor_id: int
    #: Opaque here.
    descriptor: bytes
