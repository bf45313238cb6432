"""Cores for the tests; in the end each is checked, and every row that the test speaks of has been taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.core.cores import Hand, MakeCore


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "takes(rows): the test takes these rows of the transition tables")


@pytest.fixture
def make_core(request: pytest.FixtureRequest) -> Iterator[MakeCore]:
    """Makes cores: ``make_core(rank, n_ranks, **config)``. Unless ``may_keep`` is set, they end with empty tables."""
    hands: list[Hand] = []

    def make(*args: int, **keywords: Any) -> Hand:
        hands.append(Hand(*args, **keywords))
        return hands[-1]

    yield make
    taken = {row for hand in hands for row in hand.rows}
    for marker in request.node.iter_markers("takes"):
        missed = [row for row in marker.args[0] if row not in taken]
        assert not missed, f"The test says that it takes these rows, and does not: {missed}"
    for hand in hands:
        hand.core.check()
        if not hand.may_keep:
            hand.note_deaths()
            hand.free_kept()
            hand.give_leases_back()
            hand.assert_empty()
