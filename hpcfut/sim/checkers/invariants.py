"""Every core agrees with itself after every turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Invariants:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def after_turn(self, rank: SimRank) -> None:
        """Only the rank that took the turn can have changed."""
        rank.core.check()
