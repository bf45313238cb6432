"""A rank learns whether the doorbell hears what comes from other hosts, and sleeps accordingly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hpcfut.runtime.hearing import N_HEARD_MIN, N_VAIN_MAX, TELLING_S, Hearing


class Bell:
    """Of a rank that some others cannot ring."""

    reaches_all = False
    called_by: Sequence[int] = ()
    heard: Sequence[int] = (3, 5)

    def hear(self, queues: Sequence[int]) -> None:
        self.heard = queues


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def hearing(bell: Bell) -> Hearing:
    return Hearing(bell)  # type: ignore[arg-type]


def sleep(
    hearing: Hearing,
    bell: Bell,
    *looks: int,
    was_called: bool = True,
    is_rung: bool = False,
    timeout_s: float = 2 * TELLING_S,
) -> None:
    """A sleep, and what the looks after it found."""
    bell.called_by = (3,) if was_called else ()
    hearing.note_sleep(timeout_s, is_rung=is_rung)
    for n_frames in looks:
        if hearing.is_open:
            hearing.note_look(n_frames)


def test_sleeps_are_long_when_frames_have_ended_some_in_a_row(hearing: Hearing, bell: Bell) -> None:
    for _ in range(N_HEARD_MIN):
        assert not hearing.is_good
        sleep(hearing, bell, 1)
    assert hearing.is_good


def test_a_frame_that_nobody_heard_makes_them_short_again(hearing: Hearing, bell: Bell) -> None:
    for _ in range(N_HEARD_MIN):
        sleep(hearing, bell, 1)
    sleep(hearing, bell, 0, was_called=False)
    assert hearing.is_good, "Nothing had come."
    sleep(hearing, bell, 2, was_called=False, timeout_s=TELLING_S / 2)
    assert hearing.is_good, "It may have come while the thread got up."
    sleep(hearing, bell, 2, was_called=False)
    assert not hearing.is_good


def test_what_an_event_brought_may_be_found_by_the_second_look(hearing: Hearing, bell: Bell) -> None:
    for _ in range(N_HEARD_MIN):
        sleep(hearing, bell, 0, 1)
    assert hearing.is_good


def test_a_ring_says_nothing_of_the_network(hearing: Hearing, bell: Bell) -> None:
    for _ in range(N_HEARD_MIN):
        sleep(hearing, bell, 1, was_called=False, is_rung=True)
    assert not hearing.is_good


def test_short_sleeps_last_longer_each_time_that_a_frame_is_not_heard(hearing: Hearing, bell: Bell) -> None:
    for n_needed in (N_HEARD_MIN, 2 * N_HEARD_MIN, 4 * N_HEARD_MIN):
        for _ in range(n_needed):
            assert not hearing.is_good
            sleep(hearing, bell, 1)
        assert hearing.is_good
        sleep(hearing, bell, 1, was_called=False)


def test_a_queue_that_ends_sleeps_for_nothing_is_heard_no_more(hearing: Hearing, bell: Bell) -> None:
    for _ in range(N_HEARD_MIN):
        sleep(hearing, bell, 1)
    for _ in range(N_VAIN_MAX):
        assert bell.heard == (3, 5)
        sleep(hearing, bell, 0, 0)
    sleep(hearing, bell)
    assert bell.heard == [5], "The other one may be that of MPI."


def test_a_rank_that_all_can_ring_learns_nothing(hearing: Hearing, bell: Bell) -> None:
    bell.reaches_all = True
    sleep(hearing, bell, 1)
    assert hearing.is_good
    assert not hearing.is_open
