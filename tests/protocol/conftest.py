"""Wired cores for the tests; in the end nothing is left anywhere, unless the session was ended with tasks under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.protocol.wired import Ranks


@pytest.fixture
def make_ranks() -> Iterator[Callable[..., Ranks]]:
    made: list[Ranks] = []

    def make(n_ranks: int = 3, **config: Any) -> Ranks:
        made.append(Ranks(n_ranks, **config))
        return made[-1]

    yield make
    for ranks in made:
        if not ranks.ended:
            ranks.end()


@pytest.fixture
def ranks(make_ranks: Callable[..., Ranks]) -> Ranks:
    """Three ranks."""
    return make_ranks()
