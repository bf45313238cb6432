"""Open arguments: the views that the runs of one virtual rank share of stored arguments."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from hpcfut.core.effects import CloseArgument
from hpcfut.model.place import Place

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank


class OpenArgument:
    """One such view."""

    __slots__ = ("is_open", "n_values", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        #: Whether it is given to further runs.
        self.is_open = True
        #: Values of runs that are built over it.
        self.n_values = 0


class OpenArguments:
    """See the module's docstring."""

    def __init__(self, rank: SimRank) -> None:
        self._rank = rank
        self.by_object: dict[int, OpenArgument] = {}

    def take(self, places: Sequence[Place]) -> list[OpenArgument]:
        """A run starts and builds its values."""
        taken = []
        for place in places:
            argument = self.by_object.get(place.object_id)
            if argument is None:
                argument = self.by_object[place.object_id] = OpenArgument(place)
                self._rank.open_views([place])
            assert argument.place == place
            argument.n_values += 1
            taken.append(argument)
        return taken

    def drop_soon(self, arguments: list[OpenArgument], rng: Random) -> None:
        """Such values go away, now or, because something still refers to them, later."""
        if arguments and rng.random() < 0.3:
            world = self._rank.world
            world.schedule(world.now + rng.random() * 0.2, self._drop, arguments)
        else:
            self._drop(arguments)

    def _drop(self, arguments: list[OpenArgument]) -> None:
        for argument in arguments:
            argument.n_values -= 1
            self._close_if_unused(argument)

    def close(self, effect: CloseArgument) -> None:
        """A view is not given to further runs."""
        argument = self.by_object.pop(effect.object_id)
        argument.is_open = False
        self._close_if_unused(argument)

    def _close_if_unused(self, argument: OpenArgument) -> None:
        if not (argument.is_open or argument.n_values):
            self._rank.close_views([argument.place])
