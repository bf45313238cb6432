"""The engine: what is certain when ``hear_now`` and ``post_now`` return."""

from __future__ import annotations

from hpcfut.core.effects import RunTask
from hpcfut.core.events import RefsAdded, ResourcesQueried, StopRequested
from hpcfut.core.rank import RankCore
from hpcfut.edges.host.heap_window import HeapWindow
from hpcfut.model.config import Config
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.ids import first_id
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.runtime.engine import Engine
from hpcfut.wire.messages import JobEnded, ObjectFailed, ResourcesAsked
from tests.runtime.test_full_window import StubTransport

OBJECT = first_id(1, 0)


class StoppedClock:
    """All happens in one instant."""

    def now(self) -> float:
        return 1.0


def make_engine() -> tuple[Engine, StubTransport]:
    roster = [RankRecord(rank, 0, "h", "h", rank, {"CPU": RESOURCE_UNIT}, {}, "") for rank in range(2)]
    core = RankCore(0, roster, Config(), is_driver=True)
    transport = StubTransport()
    return Engine(core, transport, HeapWindow(1000), StoppedClock(), session=0, may_spin=False), transport


def test_the_end_leaves_at_once_even_while_tasks_wait_for_a_thread() -> None:
    engine, transport = make_engine()
    engine.post_now(ResourcesQueried(1))
    assert transport.sent == [ResourcesAsked(1)]
    engine.runs.append(RunTask(1, 1, b"", (), (), (), 0))
    engine.post_now(StopRequested(0, "", True))
    assert transport.sent[1:] == [JobEnded(0, "", True)]


def test_dropped_refs_are_heard_even_if_a_frame_comes_meanwhile() -> None:
    engine, transport = make_engine()
    engine.post_now(RefsAdded([OBJECT]))
    assert engine.core.statistics().n_borrowed == 1
    engine.mailbox.append(OBJECT)
    poll = transport.poll

    def poll_again() -> list[tuple[int, bytes]]:
        transport.comes.append(ObjectFailed(first_id(1, 0) + 1, Failure(LOST)))
        return poll()

    engine.frames._poll = poll_again
    engine.hear_now()
    assert engine.core.statistics().n_borrowed == 0
