"""Deaths: a rank dies, and the job goes on."""

from __future__ import annotations

from hpcfut.core.events import CancelRequested, RankLost
from hpcfut.core.membership import DEAD
from tests.core.cores import MakeCore, foreign


def test_nothing_is_sent_to_a_rank_that_is_dead(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.tell(RankLost(2, "its connection was closed"))
    assert hand.core.membership.states[2] == DEAD
    assert hand.tell(CancelRequested(foreign(2, 7), True, False)) == []
    assert hand.stale("message to a dead rank") == 1
