"""Replacements for ranks that have died: what rank 0 wants, what each rank does, and what comes too late."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hpcfut.core import replacements
from hpcfut.core.effects import Announce, DeclareDead, Effect, LinkRank, OpenPort, SpawnRank, UseLink
from hpcfut.core.events import LinkMade, PortReady, RankArrived, RankLost, SpawnFailed
from hpcfut.core.replacements import IDLE, N_IN_VAIN_MAX, OVER
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.joining import (
    AllLinked,
    DeathTold,
    LinkWanted,
    PortOpened,
    RankActivated,
    RankIntroduced,
    RankLinked,
)
from hpcfut.wire.messages import DeathNoted, TaskDone, TaskPushed
from tests.core.cores import Hand, MakeCore, of, only, sent, takes

REPLACED: dict[str, Any] = {"survives_deaths": True, "n_respawns_minute_max": 30}


def wanted(effects: list[Effect]) -> RankRecord:
    """The replacement that rank 0 wants."""
    return only(effects, SpawnRank).record


def arrive(hand: Hand, record: RankRecord) -> list[Effect]:
    """It is there, as a process of its own."""
    return hand.tell(RankArrived(msgspec.structs.replace(record, pid=9), is_neighbour=False))


def active(hand: Hand) -> tuple[int, ...]:
    """Who may be given tasks."""
    return hand.core.membership.active


def alive(hand: Hand) -> tuple[int, ...]:
    """Who is alive."""
    return hand.core.membership.alive


def note(hand: Hand, dead: int, *ranks: int) -> None:
    """Other ranks have noted a death."""
    for rank in ranks:
        hand.get(rank, DeathNoted(dead, ()))


@takes(
    "replacements",
    ("idle", "spawn"),
    ("spawning", "arrive"),
    ("linking", "link all"),
    ("activating", "activate"),
)
def test_rank_0_introduces_a_replacement_to_one_rank_after_another(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, **REPLACED)
    record = wanted(hand.tell(RankLost(2, "killed")))
    assert (record.rank, record.replaces, record.pid) == (4, 2, 0)
    effects = arrive(hand, record)
    assert only(effects, UseLink) == UseLink(4)
    to_it = [message for rank, message in sent(effects) if rank == 4]
    assert [type(message) for message in to_it] == [DeathNoted, DeathTold, LinkWanted]
    assert isinstance(to_it[1], DeathTold)
    assert to_it[1].reason == "killed"
    assert to_it[2] == LinkWanted(1)
    ((rank, introduced),) = sent(hand.get(4, PortOpened(1, "port")))
    assert isinstance(introduced, RankIntroduced)
    assert (rank, introduced.record.pid, introduced.port) == (1, 9, "port")
    assert hand.get(1, RankLinked(4)) == []
    assert sent(hand.get(4, RankLinked(1))) == [(4, LinkWanted(3))]
    assert active(hand) == (0, 1, 3)
    hand.get(3, RankLinked(4))
    assert sent(hand.get(4, RankLinked(3))) == [(4, AllLinked())]
    hand.get(4, RankActivated())
    assert active(hand) == (0, 1, 3, 4)
    assert hand.core.deaths.replacements.state == IDLE
    assert hand.get(4, RankActivated()) == []
    assert hand.stale("second activation of a rank") == 1
    note(hand, 2, 1, 3, 4)


@takes("replacements", ("linking", "die"))
def test_a_replacement_that_dies_is_told_of_and_replaced(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=3, **REPLACED)
    arrive(hand, wanted(hand.tell(RankLost(2, "killed"))))
    effects = hand.tell(RankLost(3, "killed"))
    assert [message.record.rank for rank, message in sent(effects) if isinstance(message, DeathTold)] == [3]
    assert (wanted(effects).rank, wanted(effects).replaces) == (4, 2)
    assert hand.get(1, RankLinked(3)) == []
    assert hand.stale("link of a rank that is dead") == 1
    note(hand, 2, 1)
    note(hand, 3, 1)


@takes("replacements", ("activating", "die"))
def test_one_that_dies_when_all_are_linked_is_replaced(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=2, **REPLACED)
    assert AllLinked() in [message for _, message in sent(arrive(hand, wanted(hand.tell(RankLost(1, "killed")))))]
    assert wanted(hand.tell(RankLost(2, "killed"))).rank == 3


@takes("replacements", ("spawning", "fail"), ("idle", "give up"))
def test_what_cannot_be_started_is_given_up_after_some_times(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=2, **REPLACED)
    effects = hand.tell(RankLost(1, "killed"))
    for _ in range(N_IN_VAIN_MAX + 1):
        assert wanted(effects).rank == 2
        effects = hand.tell(SpawnFailed(2, "No room."))
    assert not of(effects, SpawnRank)
    assert "1 ranks" in of(effects, Announce)[-1].sentence
    assert hand.core.deaths.replacements.state == OVER


def test_who_dies_before_it_was_linked_is_passed_over(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, **REPLACED)
    arrive(hand, wanted(hand.tell(RankLost(2, "killed"))))
    effects = hand.tell(RankLost(1, "killed"))
    to_it = [message for rank, message in sent(effects) if rank == 4]
    assert [type(message) for message in to_it] == [DeathNoted, DeathTold, LinkWanted]
    assert to_it[2] == LinkWanted(3)
    assert hand.get(4, PortOpened(1, "port")) == []
    assert hand.stale("port for a rank that is dead") == 1
    note(hand, 1, 3, 4)
    note(hand, 2, 3, 4)


def test_another_rank_connects_and_says_so(make_core: MakeCore) -> None:
    hand = make_core(1, **REPLACED)
    hand.tell(RankLost(2, "killed"))
    record = msgspec.structs.replace(hand.core.membership.roster[2], rank=3, replaces=2, pid=9)
    effects = hand.get(0, RankIntroduced(record, "port"))
    assert only(effects, LinkRank) == LinkRank(record, "port")
    assert alive(hand) == (0, 1)
    effects = hand.tell(LinkMade(3, is_neighbour=True))
    assert sent(effects) == [(3, DeathNoted(2, ())), (0, RankLinked(3))]
    assert alive(hand) == (0, 1, 3)
    assert active(hand) == (0, 1)
    hand.get(3, RankActivated())
    assert active(hand) == (0, 1, 3)
    assert hand.get(0, DeathTold(record, "killed")) == []
    assert hand.stale("death of a rank that the edge will tell of") == 1
    note(hand, 2, 0, 3)
    note(hand, 2, 3)
    assert hand.stale("note of a death that is settled") == 1


def test_a_replacement_that_died_before_it_was_linked_is_dead_here_as_well(make_core: MakeCore) -> None:
    hand = make_core(1, **REPLACED)
    hand.tell(RankLost(2, "killed"))
    record = msgspec.structs.replace(hand.core.membership.roster[2], rank=3, replaces=2, pid=9)
    hand.get(0, RankIntroduced(record, "port"))
    effects = hand.get(0, DeathTold(record, "killed"))
    assert only(effects, DeclareDead) == DeclareDead(3, "killed")
    assert sent(effects) == [(0, DeathNoted(3, ()))]
    assert hand.tell(RankLost(3, "killed")) == []
    assert hand.stale("second death of a rank") == 1
    assert hand.tell(LinkMade(3, is_neighbour=True)) == []
    assert hand.stale("link with a rank that is dead") == 1
    note(hand, 2, 0)
    note(hand, 3, 0)


def test_a_replacement_opens_ports_and_is_activated(make_core: MakeCore) -> None:
    before = make_core(n_ranks=3).core.membership.roster
    record = msgspec.structs.replace(before[2], rank=3, replaces=2)
    hand = make_core(3, joins=(*before, record), **REPLACED)
    effects = hand.get(0, DeathTold(before[2], "killed"))
    assert only(effects, DeclareDead) == DeclareDead(2, "killed")
    assert sent(effects) == [(0, DeathNoted(2, ()))]
    assert hand.tell(RankLost(2, "killed")) == []
    assert hand.get(0, LinkWanted(1)) == [OpenPort(1)]
    assert sent(hand.tell(PortReady(1, "port"))) == [(0, PortOpened(1, "port"))]
    assert sent(hand.tell(LinkMade(1, is_neighbour=False))) == [(1, DeathNoted(2, ())), (0, RankLinked(1))]
    assert active(hand) == (0, 1)
    assert sent(hand.get(0, AllLinked())) == [(0, RankActivated()), (1, RankActivated())]
    assert active(hand) == (0, 1, 3)


def test_a_replacement_in_a_job_of_two_says_nothing_to_the_dead(make_core: MakeCore) -> None:
    # Rank 0 has nobody to introduce it to, so it hears of the death and that all are linked in one frame.
    before = make_core(n_ranks=2).core.membership.roster
    hand = make_core(2, joins=(*before, msgspec.structs.replace(before[1], rank=2, replaces=1)), **REPLACED)
    effects = hand.get(0, DeathTold(before[1], "killed"), AllLinked())
    assert sent(effects) == [(0, DeathNoted(1, ())), (0, RankActivated())]
    assert active(hand) == (0, 2)


def test_a_soft_wish_for_a_replacement_never_counts(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=3, **REPLACED)
    hand.define(softly := TaskTemplate(26, "softly", b"", affinity=3, affinity_soft=True))
    arrive(hand, wanted(hand.tell(RankLost(2, "killed"))))
    hand.submit(1, softly)
    only(hand.grant(), TaskPushed)
    hand.get(1, RankLinked(3))
    hand.get(3, RankLinked(1))
    hand.get(3, RankActivated())
    assert hand.core.membership.candidates(softly.key) == (0, 1, 3)
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.release(hand.own(1))
    note(hand, 2, 1, 3)


def test_no_more_ranks_come_than_there_are_bells_for(make_core: MakeCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacements, "N_REPLACEMENTS_MAX", 1)
    hand = make_core(n_ranks=3, **REPLACED)
    record = wanted(hand.tell(RankLost(1, "killed")))
    arrive(hand, record)
    hand.get(2, RankLinked(3))
    hand.get(3, RankLinked(2))
    hand.get(3, RankActivated())
    effects = hand.tell(RankLost(2, "killed"))
    assert not of(effects, SpawnRank)
    assert only(effects, Announce).sentence.startswith("1 ranks that died have been replaced, which is the most, so ")
    assert hand.core.deaths.replacements.state == OVER
