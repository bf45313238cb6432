"""A rank dies that tasks of this one were sent to, or might have been: leases, templates, queries, spares."""

from __future__ import annotations

from hpcfut.core.effects import AnswerQuery, Effect, RunTask
from hpcfut.core.events import CancelRequested, RankLost, ResourcesQueried, RunReturned, StreamAdvanced, TemplateDropped
from hpcfut.core.task import PUSHED, QUEUED
from hpcfut.model.failure import CANCELLED, CRASHED, UNSCHEDULABLE, Failure
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.wire.messages import (
    ItemYielded,
    LeaseGranted,
    LeaseRequested,
    StreamCredit,
    TaskDone,
    TaskPushed,
    TaskRaised,
    TaskReturned,
    TasksHandedBack,
    TemplateForgotten,
    TemplateRegistered,
)
from hpcfut.wire.queries import ResourcesAsked, ResourcesReported
from tests.core.cores import (
    BROKEN,
    GENERATOR,
    ON_RANK_2,
    PLAIN,
    RETRIED,
    SMALL,
    Hand,
    MakeCore,
    asked,
    of,
    only,
    pushed,
    sent,
)
from tests.core.test_locality import end, lease_on, store

STUBBORN_GENERATOR = TaskTemplate(21, "stubborn", b"", n_returns=GENERATOR.n_returns, n_retries_max=1)
SPREAD = TaskTemplate(22, "spread", b"", spread=True)
SOFTLY = TaskTemplate(23, "softly", b"", affinity=2, affinity_soft=True)
ON_GPU = TaskTemplate(24, "train", b"", resources=(("GPU", RESOURCE_UNIT),))


def lose(hand: Hand, rank: int) -> list[Effect]:
    """A rank dies."""
    return hand.tell(RankLost(rank, "Its connection was closed."))


def failure_of(hand: Hand, n: int) -> Failure:
    failure = hand.owned(n).failure
    assert failure is not None
    return failure


def test_a_task_is_sent_to_the_next_rank(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    task = hand.push_to_1(template=RETRIED)
    assert asked(lose(hand, 1)) == [2]
    assert pushed(hand.grant(2, lease_id=2)) == [(2, task)]
    hand.get(2, TaskDone(task, b"42"))
    hand.release(task)


def test_a_death_is_a_failed_attempt_like_any_other(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    task = hand.push_to_1(template=RETRIED)
    hand.get(1, TaskRaised(task, BROKEN, True))
    assert hand.core.tasks.tasks[task].state == PUSHED
    lose(hand, 1)
    failure = failure_of(hand, 1)
    assert failure.kind == CRASHED
    assert failure.text.startswith(
        "Task 0.1 (retried) was on rank 1 when that died. Rank 1 on host host1 (process 101) died: Its connection was "
        "closed. It has had its 1 retries. Allow more: "
    )
    hand.release(task)


def test_several_results_fail_together(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.define(pair := TaskTemplate(20, "pair", b"", n_returns=2))
    hand.push_to_1(template=pair)
    lose(hand, 1)
    assert failure_of(hand, 1) == failure_of(hand, 2)
    hand.release(hand.own(1), hand.own(2))


def test_a_cancelled_task_is_not_tried_again(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    task = hand.push_to_1(template=RETRIED)
    hand.tell(CancelRequested(task, False))
    lose(hand, 1)
    assert failure_of(hand, 1).kind == CANCELLED
    assert "It had been cancelled." in failure_of(hand, 1).text
    hand.release(task)


def test_tasks_of_a_deep_lease_keep_their_order(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.push_to_1(1, RETRIED)
    hand.grant(depth=3)
    for n in (2, 3, 4):
        hand.submit(n, RETRIED)
    assert [task.state for task in hand.core.tasks.tasks.values()] == [PUSHED, PUSHED, PUSHED, QUEUED]
    lose(hand, 1)
    assert pushed(hand.grant(2, depth=9, lease_id=2)) == [(2, hand.own(n)) for n in (1, 2, 3, 4)]
    for n in (1, 2, 3, 4):
        hand.get(2, TaskDone(hand.own(n), b""))
    hand.release(*map(hand.own, (1, 2, 3, 4)))


def test_a_request_that_nobody_answers_counts_no_more(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.submit(1)
    assert [queue.n_asking for queue in hand.core.leases.queues.values()] == [1]
    assert asked(lose(hand, 1)) == [2]
    assert [queue.n_asking for queue in hand.core.leases.queues.values()] == [1]
    assert pushed(hand.grant(2, lease_id=2)) == [(2, hand.own(1))]
    hand.get(2, TaskDone(hand.own(1), b""))
    hand.release(hand.own(1))


def test_a_shut_lease_of_a_dead_rank(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    task = hand.push_to_1()
    hand.get(1, LeaseGranted(1, 0), TasksHandedBack(1, (task,)))
    assert hand.core.leases.leases[1].is_shut
    lose(hand, 1)
    assert pushed(hand.grant(2, lease_id=2)) == [(2, task)]
    hand.get(2, TaskDone(task, b""))
    hand.release(task)


def test_an_idle_lease_of_a_dead_rank_is_not_returned(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    task = hand.push_to_1()
    hand.get(1, TaskDone(task, b""))
    lose(hand, 1)
    assert not hand.core.leases.leases
    assert hand.wait(10.0) == []
    hand.release(task)


def test_what_stood_in_the_line_of_a_dead_rank_goes_anywhere(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, hosts="abbc", survives_deaths=True)
    large = store(hand, 2)
    for n in range(1, 7):
        hand.submit(n, arguments=(large,))
    near, far = hand.core.leases.leases[2], hand.core.leases.leases[3]
    assert [(near.rank, len(near.line)), (far.rank, len(far.line))] == [(2, 4), (1, 2)], "Both are on its host."
    lose(hand, 1)
    assert [task.awaits for task in hand.core.tasks.tasks.values()] == [2, 2, 2, -1, 2, -1]
    assert pushed(lease_on(hand, 3, 2)) == [(3, hand.own(4)), (3, hand.own(6))]
    assert pushed(lease_on(hand, 2, 8)) == [(2, hand.own(n)) for n in (1, 2, 3, 5)]
    end(hand, *((2, hand.own(n)) for n in (1, 2, 3, 5)), *((3, hand.own(n)) for n in (4, 6)))


def test_who_waits_runs_what_came_back_itself(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=2, n_blocked_max=0, survives_deaths=True)
    task = hand.push_to_1(template=RETRIED)
    hand.start_waiting(task, may_run=True)
    run = only(lose(hand, 1), RunTask)
    assert (run.task_id, run.waiter_id) == (task, 1), "There are too many threads for a lease."
    hand.tell(RunReturned(task, (SMALL,)))
    hand.release(task)


def test_a_task_for_a_dead_rank_alone_fails(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.submit(1, ON_RANK_2)  # Queued.
    hand.submit(2)
    assert pushed(hand.grant(1, lease_id=2)) == [(1, hand.own(2))]
    hand.submit(3, ON_RANK_2, arguments=(hand.own(2),))  # Waiting.
    lose(hand, 2)
    hand.submit(4, ON_RANK_2)
    for n in (1, 3, 4):
        failure = failure_of(hand, n)
        assert failure.kind == UNSCHEDULABLE
        assert failure.text == (
            "Task on rank 2 is bound to rank 2. Rank 2 on host host2 (process 102) died: Its connection was closed. "
            "Bind it to another rank, or softly, so that it runs elsewhere then."
        )
    hand.get(1, TaskDone(hand.own(2), b""))
    hand.release(*map(hand.own, (1, 2, 3, 4)))


def test_a_soft_wish_is_forgotten(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.define(SOFTLY)
    assert asked(hand.submit(1, SOFTLY)) == [2]
    assert asked(lose(hand, 2)) == [1]
    assert pushed(hand.grant(1, lease_id=2)) == [(1, hand.own(1))]
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.release(hand.own(1))


def test_a_soft_wish_for_a_spare_never_counts(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, n_spares=1, survives_deaths=True)
    hand.define(for_spare := TaskTemplate(26, "softly", b"", affinity=3, affinity_soft=True))
    assert asked(hand.submit(1, for_spare)) == [1]
    assert pushed(hand.grant()) == [(1, hand.own(1))]
    lose(hand, 2)
    assert pushed(hand.submit(2, for_spare)) == []
    assert hand.core.membership.candidates(for_spare.key) == (0, 1, 3)
    hand.get(1, TaskDone(hand.own(1), b""))
    hand.get(1, TaskDone(hand.own(2), b""))
    hand.release(hand.own(1), hand.own(2))


def test_what_only_the_dead_had(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True, extra={2: {"GPU": 1}})
    hand.define(ON_GPU)
    assert asked(hand.submit(1, ON_GPU)) == [2]
    lose(hand, 2)
    assert failure_of(hand, 1).text == (
        "Task train asks for GPU 1; of the ranks that are left none can ever give it that. Rank 2 on host host2 "
        "(process 102) died: Its connection was closed; it could. Let several ranks have it, or start the job with "
        "spares."
    )
    hand.release(hand.own(1))


def test_the_items_that_are_known_stay(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.define(STUBBORN_GENERATOR)
    task = hand.push_to_1(template=STUBBORN_GENERATOR)
    hand.get(1, ItemYielded(task, hand.own(1), SMALL))
    lose(hand, 1)
    assert of(hand.tell(StreamAdvanced(task, (hand.own(4),))), StreamCredit) == [], "Nobody runs it now."
    push = only(hand.grant(2, lease_id=2), TaskPushed)
    assert push.item_ids == (0, hand.own(2), hand.own(3)), "The last name is kept back for telling the end."
    hand.get(2, ItemYielded(task, hand.own(2), SMALL), TaskReturned(task, ()))
    hand.release(*map(hand.own, (1, 2, 3, 4)))


def test_the_dead_are_not_told_that_a_function_is_gone(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    task = hand.push_to_1(template=RETRIED)
    lose(hand, 1)
    assert [type(message) for _, message in sent(hand.grant(2, lease_id=2))] == [TemplateRegistered, TaskPushed]
    hand.get(2, TaskDone(task, b""))
    effects = hand.tell(TemplateDropped(RETRIED.template_id))
    assert sent(effects) == [(2, TemplateForgotten(RETRIED.template_id))]
    assert hand.stale("message to a dead rank") == 0
    hand.release(task)


def test_nobody_waits_for_what_the_dead_have_free(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.tell(ResourcesQueried(5))
    assert hand.get(1, ResourcesReported(5, {"CPU": 7})) == []
    (answer,) = of(lose(hand, 2), AnswerQuery)
    assert sorted(answer.answers) == [0, 1]
    assert sent(hand.tell(ResourcesQueried(6))) == [(1, ResourcesAsked(6))]
    (answer,) = of(hand.get(1, ResourcesReported(6, {})), AnswerQuery)
    assert sorted(answer.answers) == [0, 1]


def test_what_the_dead_had_free_is_no_more(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.tell(ResourcesQueried(5))
    hand.get(2, ResourcesReported(5, {"CPU": 7}))
    assert of(lose(hand, 2), AnswerQuery) == []
    (answer,) = of(hand.get(1, ResourcesReported(5, {})), AnswerQuery)
    assert sorted(answer.answers) == [0, 1]


def test_a_spare_is_given_nothing_before_somebody_has_died(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, n_spares=1, survives_deaths=True)
    on_spare = TaskTemplate(25, "on spare", b"", affinity=3)
    hand.define(on_spare)
    hand.submit(1, on_spare)
    assert failure_of(hand, 1).text == (
        "Task on spare is bound to rank 3, a spare, which is given no task before others have died."
    )
    assert asked(hand.submit(2)) == [1]
    assert asked(hand.submit(3)) == [2]
    hand.submit(4)
    hand.submit(5)
    assert [lease.rank for lease in hand.core.leases.leases.values()] == [1, 2, 0]
    assert asked(lose(hand, 2)) == [3]
    assert hand.core.membership.active == (0, 1, 3)
    assert pushed(hand.grant(3, depth=9, lease_id=4)) == [(3, hand.own(n)) for n in (2, 3, 4, 5)]
    for n in (2, 3, 4, 5):
        hand.get(3, TaskDone(hand.own(n), b""))
    assert asked(hand.submit(6, on_spare)) == [3]
    hand.grant(3, lease_id=5)
    hand.get(3, TaskDone(hand.own(6), b""))
    hand.release(*map(hand.own, range(1, 7)))


def test_who_is_active_follows_from_who_is_dead(make_core: MakeCore) -> None:
    one, other = (make_core(n_ranks=7, n_spares=3, survives_deaths=True) for _ in range(2))
    for rank in (5, 2, 1):
        lose(one, rank)
    for rank in (1, 2, 5):
        lose(other, rank)
    for hand in (one, other):
        assert hand.core.membership.active == (0, 3, 4, 6)
        assert hand.core.membership.called == (4, 6)
    lose(one, 6)
    assert one.core.membership.active == other.core.membership.active[:3]


def test_calls_that_are_spread_reach_a_spare_as_well(make_core: MakeCore) -> None:
    hand = make_core(n_ranks=4, n_spares=1, survives_deaths=True)
    hand.define(SPREAD)
    assert asked(hand.submit(1, SPREAD)) == [1]
    hand.grant()
    hand.get(1, TaskDone(hand.own(1), b""))
    assert asked(lose(hand, 2)) == [3]
    hand.release(hand.own(1))


def test_a_death_in_a_job_that_does_not_survive_deaths_changes_no_table(make_core: MakeCore) -> None:
    hand = make_core()
    hand.push_to_1(template=RETRIED)
    hand.may_keep = True
    assert of(lose(hand, 1), LeaseRequested) == []
    assert hand.core.membership.alive == (0, 1, 2)
    assert hand.core.tasks.tasks[hand.own(1)].state == PUSHED


def test_who_dies_twice_is_dead_once(make_core: MakeCore) -> None:
    hand = make_core(survives_deaths=True)
    hand.push_to_1(template=PLAIN)
    lose(hand, 1)
    assert lose(hand, 1) == []
    assert hand.stale("second death of a rank") == 1
    hand.release(hand.own(1))
