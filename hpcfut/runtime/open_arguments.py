"""Open arguments: the views that the runs of a rank share of stored arguments, for as long as the core wants it.

Opening a view, finding out how its value is made, and hearing that it has gone costs more than a short task. So all
that is done once for the runs that follow each other with the same argument. Each of them gets a value of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcfut.core.effects import CloseArgument
from hpcfut.model.errors import ObjectLostError
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.place import Place
from hpcfut.ports import Window


class OpenArgument:
    """One such view, or why there is none."""

    __slots__ = ("load", "view")

    def __init__(self, view: memoryview | Failure) -> None:
        self.view = view
        #: Makes the value; found out by the first run, because nothing is unpickled in a turn.
        self.load: Callable[[], Any] | None = None


class OpenArguments:
    """The open arguments of one rank; used with the engine's lock."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._by_object: dict[int, OpenArgument] = {}

    def of(self, places: Sequence[Place]) -> list[OpenArgument]:
        """The views of a run's arguments; those are opened that are not open."""
        by_object, opened = self._by_object, []
        for place in places:
            argument = by_object.get(place.object_id)
            if argument is None:
                argument = by_object[place.object_id] = OpenArgument(open_view(self._window, place))
            opened.append(argument)
        return opened

    def close(self, effect: CloseArgument) -> None:
        """Keep a view no longer; it goes when nothing lives any more that runs have built over it."""
        argument = self._by_object.pop(effect.object_id)
        if isinstance(argument.view, Failure):
            self._window.released.append(effect.object_id)

    def clear(self) -> None:
        """The session is over."""
        self._by_object.clear()


def open_view(window: Window, place: Place) -> memoryview | Failure:
    """A view of an object, or why there is none; then nobody will hear that it has gone."""
    try:
        return window.view(place)
    except ObjectLostError as error:
        return Failure(LOST, str(error))
