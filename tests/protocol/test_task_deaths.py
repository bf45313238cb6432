"""Deaths between ranks: each test is a small user program, told above it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.protocol.wired import Ranks

MakeRanks = Callable[..., Ranks]


@pytest.fixture
def ranks(make_ranks: MakeRanks) -> Ranks:
    """Three ranks on three hosts, in a job that survives deaths."""
    return make_ranks(survives_deaths=True)


def test_a_task_runs_again_elsewhere(ranks: Ranks) -> None:
    # ref = f.remote(); get(ref)        # its rank dies meanwhile
    ref = ranks.call(ranks.function(n_retries_max=1))
    waiter = ranks.get(0, ref)
    assert ranks.running == {ref: 1}
    ranks.kill(1)
    assert ranks.running == {ref: 2} or ranks.running == {ref: 0}
    ranks.returns(ref, b"42")
    assert ranks.woken[waiter].values == [b"42"]
    ranks.drop(0, ref)
