"""What waiting threads may claim of their rank, where several of them, and the tasks on their stacks, come together."""

from __future__ import annotations

from collections.abc import Sequence

from hpcfut.core.effects import Effect, RunTask, StartRead, WakeWaiter
from hpcfut.core.events import (
    Event,
    FrameReceived,
    ReadCompleted,
    RefsAdded,
    RunRaised,
    RunReturned,
    TaskSubmitted,
    TemplateDefined,
    WaitAbandoned,
    WaitStarted,
)
from hpcfut.core.rank import RankCore
from hpcfut.model.config import Config
from hpcfut.model.failure import FULL, RAISED, Failure
from hpcfut.model.ids import first_id
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT, STREAMING, TaskTemplate
from hpcfut.wire.messages import ObjectLocated, Result

PLAIN, RETRIED, GENERATOR = 1, 2, 3
SMALL = (Result(b"value", 5),)
#: A rank with so much to do is not waited for.
BUSY = 10_000


def make_core(n_ranks: int = 1, *, n_slots: int = 1, n_blocked_max: int = 256, nbytes_store: int = 1 << 24) -> RankCore:
    """Rank 0, where a driver has made three functions."""
    cpus = {"CPU": 4 * RESOURCE_UNIT}
    roster = [RankRecord(rank, 0, "host", "host", rank, cpus) for rank in range(n_ranks)]
    config = Config(n_slots=n_slots, n_blocked_max=n_blocked_max)
    core = RankCore(0, roster, config, is_driver=True, nbytes_store=nbytes_store)
    for template in (
        TaskTemplate(PLAIN, "plain", b""),
        TaskTemplate(RETRIED, "retried", b"", n_retries_max=1),
        TaskTemplate(GENERATOR, "generator", b"", n_returns=STREAMING),
    ):
        core.handle(TemplateDefined(template), 0.0)
    return core


def started(effects: Sequence[Effect]) -> list[tuple[int, int]]:
    """(task, waiter on whose stack it runs) of every start."""
    return [(effect.task_id, effect.waiter_id) for effect in effects if isinstance(effect, RunTask)]


def told(core: RankCore, *events: Event, now: float = 0.0) -> list[tuple[int, int]]:
    """Tell the core, and give what it starts."""
    effects: list[Effect] = []
    core.turn(events, now, effects.extend)
    core.check()
    return started(effects)


def wait_for(waiter_id: int, *object_ids: int, n_wanted: int = 0, may_run: bool = True, task_id: int = 0) -> Event:
    return WaitStarted(waiter_id, list(object_ids), n_wanted or len(object_ids), True, may_run, task_id)


def test_a_driver_under_a_task_does_not_claim_its_rank() -> None:
    # first, second = f.remote(), g.remote(); wait([first, second])    # f runs on the driver's stack and then calls
    # get(h.remote()), when g has ended and the driver's wait is over already
    core = make_core(n_slots=2)
    f, g, h = 11, 12, 13
    told(core, TaskSubmitted(f, PLAIN, b"", (f,)), TaskSubmitted(g, PLAIN, b"", (g,)))
    assert told(core, wait_for(1, f, g, n_wanted=1)) == [(f, 1), (g, 0)]
    effects = core.handle(RunReturned(g, SMALL), 0.0)
    assert [effect.waiter_id for effect in effects if isinstance(effect, WakeWaiter)] == [1]
    submitted, waits = TaskSubmitted(h, PLAIN, b"", (h,), parent=f), wait_for(2, h, may_run=False, task_id=f)
    assert told(core, submitted, waits) == [(h, 0)]
    assert told(core, RunReturned(h, SMALL), RunReturned(f, SMALL)) == []
    assert not core.scheduler.n_driver_waits


def test_a_task_under_a_task_does_not_hold_its_slot() -> None:
    # The same one level deeper: the outer task waits, as the driver does above, with f on its stack.
    core = make_core()
    outer, f, g, h = 11, 12, 13, 14
    told(core, TaskSubmitted(outer, PLAIN, b"", (outer,)))
    assert told(core, wait_for(1, outer)) == [(outer, 1)]
    told(core, TaskSubmitted(f, PLAIN, b"", (f,), parent=outer), TaskSubmitted(g, PLAIN, b"", (g,), parent=outer))
    assert told(core, wait_for(2, f, g, n_wanted=1, task_id=outer)) == [(f, 2)]
    told(core, TaskSubmitted(h, PLAIN, b"", (h,), parent=f))
    # f waits for h, and meanwhile g runs and ends: the wait of the outer task is over, but f still stands on it.
    assert set(told(core, wait_for(3, h, may_run=False, task_id=f))) <= {(g, 0), (h, 0)}
    ran = list(core.scheduler.running)
    assert ran in ([g], [h])
    if ran == [g]:
        assert told(core, RunReturned(g, SMALL)) == [(h, 0)]
    told(core, RunReturned(h, SMALL))
    assert list(core.scheduler.running) in ([f], [f, g])


def test_a_wait_of_an_earlier_attempt_does_not_count_for_the_next() -> None:
    # A thread that the first attempt has started still waits while the second runs.
    core = make_core(n_slots=2)
    task, other = 11, 12
    told(core, TaskSubmitted(task, RETRIED, b"", (task,)))
    assert told(core, wait_for(1, task)) == [(task, 1)]
    told(core, TaskSubmitted(other, PLAIN, b"", (other,), parent=task))
    told(core, wait_for(2, other, may_run=False, task_id=task))
    assert [started for started, _ in told(core, RunRaised(task, Failure(RAISED), True))] == [task]
    told(core, WaitAbandoned(2))
    assert core.runs.runs[task].n_waits == 0
    assert core.context.stale["wait that outlived its task"] == 1


def test_a_run_that_came_for_a_waiting_thread_can_be_handed_back() -> None:
    # Two threads of the driver: one waits for what has to be read first, the other runs a long task meanwhile.
    core = make_core(2)
    stored, reads, long = first_id(1, 0), 11, 12
    told(core, RefsAdded([stored]))
    told(core, TaskSubmitted(reads, PLAIN, b"", (reads,), arguments=(stored,)))
    told(core, FrameReceived(1, 0, [ObjectLocated(stored, 1, 10**6)]))
    told(core, wait_for(1, reads))
    effects: list[Effect] = []
    then = core.context.config.hand_back_after_s
    core.turn((), then, effects.extend)
    assert any(isinstance(effect, StartRead) for effect in effects), "The rank that holds the bytes was waited for."
    told(core, TaskSubmitted(long, PLAIN, b"", (long,)), now=then)
    assert told(core, wait_for(2, long), now=then) == [(long, 2)]
    told(core, ReadCompleted(1), now=then)
    now = 2 * then
    while (deadline := core.next_deadline()) is not None and deadline <= now:
        core.turn((), now, lambda effects: None)
        core.check()
        after = core.next_deadline()
        assert after is None or after > deadline, "The same deadline would be due for ever."


def test_a_run_that_came_for_a_waiting_thread_can_fail_at_once() -> None:
    # Only waiting threads may run anything here, and there is no room for what the task has to read first.
    core = make_core(2, nbytes_store=1000, n_blocked_max=0)
    stored, reads = first_id(1, 0), 11
    told(core, RefsAdded([stored]))
    told(core, TaskSubmitted(reads, PLAIN, b"", (reads,), arguments=(stored,)))
    told(core, FrameReceived(1, BUSY, [ObjectLocated(stored, 1, 10**6)]))
    effects: list[Effect] = []
    for events in ((wait_for(1, reads),), ()):
        core.turn(events, 0.0, effects.extend)
        core.check()
    ((failure,),) = (effect.values for effect in effects if isinstance(effect, WakeWaiter))
    assert isinstance(failure, Failure)
    assert failure.kind == FULL


def test_a_generator_gets_no_thread_of_its_own_while_the_driver_works() -> None:
    # A task of the driver's rank waits for a generator, and there are no threads for leases left.
    core = make_core(n_blocked_max=1)
    task, generator, item, spare = 11, 12, 13, 14
    told(core, TaskSubmitted(task, PLAIN, b"", (task,)))
    assert told(core, wait_for(1, task, may_run=False)) == [(task, 0)]
    told(core, WaitAbandoned(1))
    told(core, TaskSubmitted(generator, GENERATOR, b"", (item, spare), parent=task))
    assert told(core, wait_for(2, item, task_id=task)) == []
    assert told(core, wait_for(3, task, may_run=False)) == [(generator, 0)]


def test_who_takes_no_values_keeps_none_here_and_is_told_what_came_when_it_stops() -> None:
    core = make_core(2, nbytes_store=1000)
    first, second, third = (first_id(1, 0) + number for number in range(3))
    told(core, RefsAdded([first, second, third]))
    told(core, WaitStarted(1, [first, second, third], 3, True, False, 0, is_taking=False))
    told(core, FrameReceived(1, BUSY, [ObjectLocated(object_id, 1, 600) for object_id in (first, second)]))
    for number in (1, 2):
        effects: list[Effect] = []
        core.turn((ReadCompleted(number),), 0.0, effects.extend)
        while core.context.put_off:
            core.turn((), 0.0, effects.extend)
        core.check()
        # There is room for one of them at a time.
        assert [effect.object_id for effect in effects if isinstance(effect, StartRead)] == [second] * (number == 1)
    effects = []
    core.turn((WaitAbandoned(1),), 0.0, effects.extend)
    core.check()
    assert [effect for effect in effects if isinstance(effect, WakeWaiter)] == [
        WakeWaiter(1, [first, second], [None, None])
    ]
