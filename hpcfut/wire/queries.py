"""What ranks ask each other about themselves, for people; ``core/membership.py`` collects the answers."""

from __future__ import annotations

import msgspec

from hpcfut.model.inventory import Inventory


class ResourcesAsked(msgspec.Struct, array_like=True, tag=25, gc=False):
    """Somebody wants to know what is free on the receiver."""

    query_id: int


class ResourcesReported(msgspec.Struct, array_like=True, tag=26, gc=False):
    """What is free on the sender now."""

    query_id: int
    available: dict[str, int]


class InventoryAsked(msgspec.Struct, array_like=True, tag=60, gc=False):
    """Somebody wants to know what the receiver holds."""

    query_id: int


class InventoryReported(msgspec.Struct, array_like=True, tag=61, gc=False):
    """What the sender holds now."""

    query_id: int
    inventory: Inventory


Query = ResourcesAsked | ResourcesReported | InventoryAsked | InventoryReported
