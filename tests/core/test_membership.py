"""Who is in the job, how it ends, and what is free where."""

from __future__ import annotations

from hpcfut.core.effects import AnswerQuery, EndJob
from hpcfut.core.events import (
    DriverEnded,
    RankLost,
    RefsAdded,
    RefsReleased,
    ResourcesQueried,
    RunReturned,
    StopRequested,
    WaitAbandoned,
)
from hpcfut.core.membership import DEAD, STOPPING
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.wire.messages import DriverDone, JobEnded, RankFailed, TaskDone
from hpcfut.wire.queries import ResourcesAsked, ResourcesReported
from tests.core.cores import SMALL, MakeCore, foreign, of, only, sent, takes

CPUS = {"CPU": 4 * RESOURCE_UNIT}


@takes("membership", ("alive", "stop"))
def test_rank_0_ends_the_session_for_all(make_core: MakeCore) -> None:
    hand = make_core()
    effects = hand.tell(StopRequested(3, "", False))
    assert sent(effects) == [(1, JobEnded(3, "", False)), (2, JobEnded(3, "", False))]
    assert of(effects, EndJob) == [EndJob(3, "", False)]
    assert hand.core.membership.states[0] == STOPPING
    assert hand.tell(StopRequested(0, "", False)) == []
    assert hand.stale("second end of the session") == 1


def test_others_end_when_rank_0_says_so(make_core: MakeCore) -> None:
    hand = make_core(1)
    assert hand.get(0, JobEnded(0, "", True)) == [EndJob(0, "", True)]
    assert hand.get(0, TaskDone(foreign(1, 1), b"")) == []
    assert hand.core.next_deadline() is None


@takes("membership", ("alive", "die"), ("dead", "die"))
def test_rank_0_is_told_who_died(make_core: MakeCore) -> None:
    hand = make_core(1)
    ((rank, message),) = sent(hand.tell(RankLost(2, "its connection was closed")))
    assert isinstance(message, RankFailed)
    assert (rank, message.rank) == (0, 2)
    assert "Rank 2 on host host2 (process 102) died: its connection was closed" in message.failure
    assert hand.tell(RankLost(2, "again")) == []
    assert hand.stale("second death of a rank") == 1
    assert hand.core.membership.states[2] == DEAD


def test_the_death_of_a_rank_ends_the_job(make_core: MakeCore) -> None:
    hand = make_core()
    effects = hand.get(1, RankFailed(2, "Rank 2 died."))
    assert sent(effects) == [(1, JobEnded(1, "Rank 2 died.", True))], "Nobody writes to the dead."
    assert only(effects, EndJob) == EndJob(1, "Rank 2 died.", True)


def test_the_death_of_rank_0_ends_every_rank_by_itself(make_core: MakeCore) -> None:
    hand = make_core(2)
    (end,) = hand.tell(RankLost(0, "the launcher says so"))
    assert isinstance(end, EndJob)
    assert (end.status, end.is_final) == (1, True)


def test_what_is_free_is_asked_of_everyone(make_core: MakeCore) -> None:
    hand = make_core()
    assert sent(hand.tell(ResourcesQueried(5))) == [(1, ResourcesAsked(5)), (2, ResourcesAsked(5))]
    assert hand.get(2, ResourcesReported(5, {"CPU": 1})) == []
    assert hand.get(1, ResourcesReported(5, {"CPU": 2})) == [AnswerQuery(5, {0: CPUS, 1: {"CPU": 2}, 2: {"CPU": 1}})]
    assert hand.get(1, ResourcesReported(5, {"CPU": 2})) == []
    assert hand.stale("answer to a finished query") == 1


def test_what_is_free_does_not_count_what_runs(make_core: MakeCore) -> None:
    hand = make_core(1)
    hand.lend()
    hand.accept(1)
    assert sent(hand.get(2, ResourcesAsked(5))) == [(2, ResourcesReported(5, {"CPU": 3 * RESOURCE_UNIT}))]
    hand.tell(RefsAdded([foreign(2, 7)]))
    hand.start_waiting(foreign(2, 7), parent=foreign(0, 1))
    assert sent(hand.get(2, ResourcesAsked(6))) == [(2, ResourcesReported(6, CPUS))], "A task that waits holds no CPU."
    hand.tell(WaitAbandoned(1), RefsReleased([foreign(2, 7)]), RunReturned(foreign(0, 1), (SMALL,)))


def test_a_rank_that_dies_twice_in_different_words_is_dead_once(make_core: MakeCore) -> None:
    hand = make_core()
    hand.tell(RankLost(2, "one"))
    assert hand.get(1, RankFailed(2, "two")) == []
    assert hand.stale("second end of the session") == 1


def test_only_rank_0_tells_the_others(make_core: MakeCore) -> None:
    hand = make_core(1)
    assert hand.tell(StopRequested(0, "", True)) == [EndJob(0, "", True)]


def test_a_session_of_several_drivers_ends_with_the_last_of_them(make_core: MakeCore) -> None:
    hand = make_core(0)
    assert hand.tell(DriverEnded(0, True)) == []
    assert hand.get(2, DriverDone(7, True)) == []
    effects = hand.get(1, DriverDone(3, False))
    assert sent(effects) == [(1, JobEnded(3, "", False)), (2, JobEnded(3, "", False))], "Rank 1 wants another session."
    assert only(effects, EndJob) == EndJob(3, "", False)


def test_one_of_several_drivers_tells_rank_0(make_core: MakeCore) -> None:
    hand = make_core(1)
    assert sent(hand.tell(DriverEnded(4, True))) == [(0, DriverDone(4, True))]
    assert hand.get(0, JobEnded(4, "", True)) == [EndJob(4, "", True)]
