"""What comes for a session before it is opened here: it is heard first, and told apart by the session itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from hpcfut.core.events import Event, FrameReceived, FrameRefused
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.edges.host.loopback import LoopbackTransport
from hpcfut.edges.host.machine import Cores
from hpcfut.model.config import Config
from hpcfut.model.errors import RankLostError
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.runtime.job import Job, RefHooks
from hpcfut.runtime.runtime import Runtime
from hpcfut.wire.codec import encode_frame, prefix_of
from hpcfut.wire.messages import LeaseReturned
from hpcfut.wire.sessions import EndHindered, SessionOpened, encode_session

AMOUNTS = {"CPU": RESOURCE_UNIT, "memory": (1 << 20) * RESOURCE_UNIT}
MESSAGE = LeaseReturned(1)


class Post(LoopbackTransport):
    """Rank 1 of two, to which everything comes at once."""

    rank = 1
    n_ranks = 2


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def job(post: Post) -> Iterator[Job]:
    roster = [RankRecord(rank, 0, "h", "h", 77, AMOUNTS) for rank in range(2)]
    made = Job(None, post, HostDoorbell(0, 1), HostArena(1, 1 << 20), roster, Cores(), None)
    yield made
    made._output.remove()


def test_what_came_before_a_session_is_heard_first_and_what_is_damaged_names_its_sender(job: Job, post: Post) -> None:
    opening = encode_session(SessionOpened(2, Config(), list(sys.path), list(sys.argv)))
    good, late = (encode_frame(3, [MESSAGE], prefix_of(session)) for session in (2, 1))
    post._frames = [(0, late), (0, opening), (0, good), (0, b"This is no frame."), (0, good[:-1]), (0, good)]
    runtime = job.await_session(RefHooks(object, id, lambda _: object()))
    assert isinstance(runtime, Runtime)
    events: list[Event] = []
    runtime.engine.frames.receive(events)
    assert [type(event) for event in events] == [FrameReceived, FrameRefused, FrameRefused, FrameReceived]
    assert [event.rank for event in events if isinstance(event, FrameRefused)] == [0, 0]
    assert runtime.engine.core.context.stale == {"frame of another session": 1}


def test_a_rank_that_dies_while_others_meet_at_the_end_is_named(
    job: Job, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_dead() -> bool:
        raise RankLostError(0, "moving an object to it failed.")

    monkeypatch.setattr(post, "is_barrier_done", find_dead)
    assert not job.meet(100.0)
    assert job.hindrance == "Rank 0 is dead: moving an object to it failed."


def test_why_a_rank_cannot_leave_a_session_is_noted_and_forgotten_if_it_leaves(job: Job, post: Post) -> None:
    opening = encode_session(SessionOpened(2, Config(), [], []))
    post._frames = [(1, encode_session(EndHindered(text))) for text in ("The first.", "The second.")] + [(0, opening)]
    done = [True, False]
    post.is_barrier_done = lambda: done.pop()  # type: ignore[method-assign]
    assert not job.meet(-1.0)
    assert job.hindrance == "The first."
    assert job._early == [(0, opening)]
    assert job.meet(100.0)
    assert not job.hindrance


@pytest.mark.parametrize(("dead", "aborts"), [([], True), ([0], True), ([2], False)])
def test_of_several_ranks_that_hear_of_a_death_the_lowest_aborts(
    job: Job, post: Post, monkeypatch: pytest.MonkeyPatch, dead: list[int], aborts: bool
) -> None:
    """Two that do so at a time may keep mpiexec of Open MPI 5 from ending, about once in fifteen times."""

    class Ended(Exception):
        pass

    def end(status: int) -> None:
        raise Ended(status)

    statuses: list[int] = []
    monkeypatch.setattr(job, "_world", SimpleNamespace(abort=statuses.append))
    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr(post, "deaths", dict.fromkeys(dead, "killed"))
    with pytest.raises(Ended, match="3"):
        job.abort(3)
    assert statuses == [3] * aborts
