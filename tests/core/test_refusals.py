"""Frames that can be decoded and still make no sense: their sender is named, and the job ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcfut.core.effects import Effect, EndJob, SendMessage, SendObject, StartRead
from hpcfut.core.events import Event, FrameReceived, FrameRefused, ObjectPut, RefsAdded
from hpcfut.model.errors import FrameRefusedError
from hpcfut.model.ids import Rank
from hpcfut.wire import messages as m
from tests.core.cores import GENERATOR, PAIR, PLAIN, Hand, foreign, of, only, sent, takes
from tests.wire.made_up import KINDS, SIMPLE, strategy_of

N_RANKS = 3


def test_rank_0_ends_the_job_and_names_who_sent_it() -> None:
    hand = Hand(0)
    with pytest.raises(FrameRefusedError) as caught:
        hand.get(2, m.TaskDone(hand.own(5), b"result of no task"))
    assert caught.value.rank == 2
    effects = hand.tell(FrameRefused(caught.value.rank, caught.value.reason))
    failure = only(effects, EndJob).failure
    assert failure.startswith("Rank 2 on host host2 (process 102) sent rank 0 something that cannot be accepted.")
    assert "A TaskDone does not fit what was said before (KeyError in Tasks.on_done" in failure
    assert [rank for rank, message in sent(effects) if isinstance(message, m.JobEnded)] == [1]
    # It falls silent: what it has missed cannot be made up for.
    assert not hand.get(2, m.TaskDone(hand.own(5), b"again"))


def test_another_rank_tells_rank_0_and_ends() -> None:
    hand = Hand(1)
    effects = hand.tell(FrameRefused(2, "It is damaged."))
    assert [(rank, type(message)) for rank, message in sent(effects)] == [(0, m.RankFailed)]
    assert only(effects, m.RankFailed).rank == 2
    assert only(effects, EndJob).failure == only(effects, m.RankFailed).failure
    assert not hand.tell(FrameRefused(0, "It is damaged as well."))


def test_rank_0_ends_the_job_when_its_own_frame_is_refused() -> None:
    message = only(Hand(1).tell(FrameRefused(0, "It is damaged.")), m.RankFailed)
    effects = Hand(0).get(1, message)
    assert only(effects, EndJob).failure.startswith("Rank 0 on host host0 (process 100) sent rank 1 something")
    assert len(of(effects, m.JobEnded)) == 2


@takes("membership", ("dead", "die"))
def test_a_second_refusal_is_only_counted() -> None:
    hand = Hand(0)
    hand.tell(FrameRefused(1, "It is damaged."))
    assert not hand.tell(FrameRefused(1, "It is damaged."))
    assert hand.stale("second death of a rank") == 1


def test_what_was_decided_before_is_not_lost() -> None:
    hand = Hand(0)
    with pytest.raises(FrameRefusedError) as caught:
        hand.get(2, m.RankFailed(1, "It is out of memory."), m.RankFailed(7, "It is not there."))
    assert only(end_turn(hand, caught.value), EndJob).failure == "It is out of memory."


def test_only_rank_0_ends_the_session() -> None:
    with pytest.raises(FrameRefusedError):
        Hand(1).get(2, m.JobEnded(0, "", True))


@pytest.mark.parametrize(
    "message",
    [
        m.TaskPushed(foreign(0, 9), 1, PLAIN.template_id, b"", nested=(foreign(7, 1),)),
        m.TaskPushed(foreign(0, 9), 1, PLAIN.template_id, b"", (m.Argument(foreign(0, 3), None, 7, 10),)),
        m.TaskPushed(foreign(0, 9), 5, PLAIN.template_id, b"", (m.Argument(foreign(0, 3), None, 7, 10, offset=0),)),
        m.BorrowAdded(foreign(1, 1), 7),
        m.CancelAsked(foreign(7, 1), False),
        m.BorrowConfirmed(foreign(0, 77)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_ranks_that_are_not_there_are_refused(message: m.Message) -> None:
    hand = Hand(1)
    hand.lend()
    with pytest.raises(FrameRefusedError):
        hand.get(0, message)


# -- anything ----------------------------------------------------------------------------------------------------------


def busy_driver() -> Hand:
    """Rank 0 with tasks in all states, objects of all kinds, leases and borrowers."""
    hand = Hand(0, N_RANKS)
    hand.push_to_1(1)
    hand.grant(1, 3)
    hand.submit(2, PAIR)
    hand.submit(10, GENERATOR)
    for n in range(20, 24):
        hand.submit(n, arguments=(hand.own(1),))
    hand.tell(ObjectPut(hand.own(40), m.Result(b"small", 5)), ObjectPut(hand.own(41), m.Result(None, 10**6)))
    hand.tell(RefsAdded([foreign(1, 1), foreign(2, 1)]))
    hand.get(1, m.BorrowAdded(hand.own(40), 2), m.ObjectAsked(hand.own(1)), m.ReadRequested(hand.own(41), 1))
    hand.start_waiting(foreign(1, 1), foreign(2, 1))
    return hand


def busy_worker() -> Hand:
    """Rank 1 with a run, some that wait for arguments or their turn, and what a run has put and borrowed."""
    hand = Hand(1, N_RANKS)
    hand.lend()
    hand.lend(GENERATOR, lease_id=2)
    hand.accept(1, nested=(foreign(0, 50), foreign(2, 50)))
    hand.accept(2, arguments=(m.Argument(foreign(0, 51), None, 2, 1000, (foreign(2, 51),)),))
    hand.accept(3, GENERATOR, lease_id=2, item_ids=(foreign(0, 4), foreign(0, 5)))
    hand.accept(6)
    hand.tell(RefsAdded([foreign(0, 50)]), ObjectPut(foreign(1, 40), m.Result(None, 500, (foreign(0, 50),))))
    hand.start_waiting(foreign(0, 50), parent=foreign(0, 1))
    return hand


IDS = st.one_of(
    st.builds(foreign, st.integers(0, N_RANKS), st.one_of(st.integers(1, 60), st.integers(2**37, 2**38 - 1))),
    st.integers(-2, 12),
    st.sampled_from([PLAIN.template_id, PAIR.template_id, GENERATOR.template_id]),
    st.integers(-(2**63), 2**64 - 1),
)
LIKELY = {**SIMPLE, int: IDS, Rank: st.one_of(st.integers(0, N_RANKS), st.integers(0, 2**20 - 1))}
MESSAGES = st.one_of(*(strategy_of(kind, LIKELY) for kind in KINDS))


def turn(hand: Hand, *events: Event, seconds: float = 0.0) -> list[Effect]:
    effects: list[Effect] = []
    hand.core.turn(events, hand.now + seconds, effects.extend)
    return effects


def end_turn(hand: Hand, refused: FrameRefusedError) -> list[Effect]:
    effects: list[Effect] = []
    hand.core.end_turn(refused, hand.now, effects.extend)
    return effects


def check_effects(effects: list[Effect]) -> None:
    """The edges can do all of it."""
    for effect in effects:
        if isinstance(effect, SendMessage | StartRead | SendObject):
            assert 0 <= effect.rank < N_RANKS, effect
        if isinstance(effect, StartRead):
            assert effect.nbytes >= 0, effect


@pytest.mark.parametrize("make", [busy_driver, busy_worker])
def test_any_messages_are_handled_or_refused(make: Callable[[], Hand]) -> None:
    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(st.integers(0, N_RANKS - 1), st.lists(MESSAGES, min_size=1, max_size=4))
    def check(source: int, messages: list[m.Message]) -> None:
        hand = make()
        if source == hand.rank:
            source = 2
        try:
            check_effects(turn(hand, FrameReceived(source, 0, messages)))
            for seconds in (0.1, 1.0):
                check_effects(turn(hand, seconds=seconds))
        except FrameRefusedError as error:
            effects = end_turn(hand, error)
            check_effects(effects)
            # Unless the session had been ended before.
            failure = only(effects, EndJob).failure
            assert failure.startswith(f"Rank {source} on host") or any(
                isinstance(message, m.JobEnded | m.RankFailed) and failure == message.failure for message in messages
            )
            assert not turn(hand, seconds=10.0)

    check()
