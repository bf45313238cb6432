"""What becomes of tasks when ranks die: each test is a small user program, told above it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcfut.core.events import CancelRequested, ResourcesQueried, RunHeldBack, StreamAdvanced, WaitStarted
from hpcfut.model.failure import CANCELLED, CRASHED, ENDED, RAISED, UNRECOVERABLE, UNSCHEDULABLE, Failure
from hpcfut.model.template import RESOURCE_UNIT, STREAMING
from hpcfut.wire.messages import BorrowAdded, LeaseRequested, TaskCancelled, TaskPushed, TasksHandedBack
from hpcfut.wire.standstills import WaitersAsked
from tests.protocol.wired import Ranks

MakeRanks = Callable[..., Ranks]
GPU = (("CPU", RESOURCE_UNIT), ("GPU", RESOURCE_UNIT))


@pytest.fixture
def ranks(make_ranks: MakeRanks) -> Ranks:
    """Three ranks on three hosts, in a job that survives deaths."""
    return make_ranks(survives_deaths=True)


def failure_of(ranks: Ranks, ref: int, rank: int = 0) -> Failure:
    value = ranks.value(rank, ref)
    assert isinstance(value, Failure)
    return value


def test_a_task_runs_again_elsewhere(ranks: Ranks) -> None:
    # ref = f.remote(); get(ref)
    ref = ranks.call(ranks.function(n_retries_max=1))
    assert ranks.running == {ref: 1}
    ranks.kill(1)
    assert ranks.running == {ref: 2}
    waiter = ranks.get(0, ref)
    ranks.returns(ref, b"42")
    assert ranks.woken[waiter].values == [b"42"]
    ranks.drop(0, ref)


def test_a_task_that_may_not_be_tried_again_fails(ranks: Ranks) -> None:
    # ref = f.options(max_retries=0).remote(); get(ref)
    ref = ranks.call(ranks.function())
    waiter = ranks.get(0, ref)
    ranks.kill(1)
    (failure,) = ranks.woken[waiter].values
    assert isinstance(failure, Failure)
    assert failure.kind == CRASHED
    assert "(function) was on rank 1 when that died. Rank 1 on host host1 (process 101) died: It was" in failure.text
    assert "It may not be tried again. Allow more: @remote(max_retries=N)" in failure.text
    assert not ranks.running
    ranks.drop(0, ref)


def test_each_death_counts_as_a_retry(make_ranks: MakeRanks) -> None:
    # ref = f.options(max_retries=1).remote(); get(ref)
    ranks = make_ranks(4, survives_deaths=True)
    ref = ranks.call(ranks.function(n_retries_max=1))
    ranks.kill(ranks.running[ref])
    ranks.kill(ranks.running[ref])
    failure = failure_of(ranks, ref)
    assert failure.kind == CRASHED
    assert "It has had its 1 retries." in failure.text
    ranks.drop(0, ref)


def test_two_ranks_at_once(make_ranks: MakeRanks) -> None:
    # ref = f.remote(); get(ref)        # rank 1 dies, and the rank that the task is sent to next is dead, too
    ranks = make_ranks(4, survives_deaths=True)
    ref = ranks.call(ranks.function(n_retries_max=3))
    ranks.kill(1, 2)
    assert ranks.running == {ref: 3}
    ranks.returns(ref)
    ranks.drop(0, ref)


def test_a_retry_goes_to_a_rank_whose_death_is_not_known_yet(make_ranks: MakeRanks) -> None:
    # ref = f.remote(); get(ref)
    ranks = make_ranks(4, survives_deaths=True)
    ref = ranks.call(ranks.function(n_retries_max=3))
    assert ranks.running == {ref: 1}
    ranks.kill(2, unaware=(0, 3))
    ranks.kill(1)
    assert not ranks.running, "It was sent to rank 2."
    for rank in (0, 3):
        ranks.hear(rank, 2)
    ranks.settle()
    assert ranks.running == {ref: 3}
    ranks.returns(ref)
    ranks.drop(0, ref)


def test_what_stands_behind_comes_back_in_order(ranks: Ranks) -> None:
    # refs = [f.options(NodeAffinity(1, soft=True)).remote() for _ in range(4)]; get(refs)
    f = ranks.function(on=1, affinity_soft=True, n_retries_max=1)
    first = ranks.call(f)
    ranks.returns(first)
    refs = [ranks.call(f) for _ in range(4)]
    assert len(ranks.running) == 1
    n_pushed = len(ranks.sent(TaskPushed))
    assert n_pushed == 5, "Three of them wait on rank 1."
    ranks.kill(1)
    order = []
    while ranks.running:
        (ref,) = ranks.running
        order.append(ref)
        ranks.returns(ref)
    assert order == refs
    ranks.drop(0, first, *refs)


def test_what_was_handed_back_before_is_no_retry(ranks: Ranks) -> None:
    # a, b = f.remote(), f.remote()     # b is handed back, because a takes long; then the rank dies
    f = ranks.function(on=1, affinity_soft=True)
    first = ranks.call(f)
    ranks.returns(first)
    a, b = ranks.call(f), ranks.call(f)
    assert ranks.running == {a: 1}
    ranks.pass_time(1.0)
    assert len(ranks.sent(TasksHandedBack, 1)) == 1
    ranks.kill(1)
    assert failure_of(ranks, a).kind == CRASHED
    assert ranks.running == {b: 2}
    ranks.returns(b)
    ranks.drop(0, first, a, b)


def test_a_cancelled_task_ends_as_cancelled(ranks: Ranks) -> None:
    # ref = f.remote(); cancel(ref); get(ref)
    ref = ranks.call(ranks.function(n_retries_max=3))
    ranks.held.append((0, 1))
    ranks.tell(0, CancelRequested(ref, False))
    ranks.kill(1)
    assert failure_of(ranks, ref).kind == CANCELLED
    assert not ranks.running
    ranks.drop(0, ref)


def test_what_has_ended_before_stays(ranks: Ranks) -> None:
    # ref = f.remote(); get(ref)        # f has returned when its rank dies
    ref = ranks.call(ranks.function())
    ranks.returns(ref, b"42")
    ranks.kill(1)
    assert ranks.value(0, ref) == b"42"
    ranks.drop(0, ref)


def test_a_result_that_was_under_way_is_made_again(ranks: Ranks) -> None:
    # ref = f.remote(); get(ref)        # f has returned when its rank dies, and nobody has heard
    ref = ranks.call(ranks.function(n_retries_max=1))
    ranks.held.append((1, 0))
    ranks.returns(ref, b"lost")
    ranks.kill(1)
    assert ranks.running == {ref: 2}
    ranks.returns(ref, b"found")
    assert ranks.value(0, ref) == b"found"
    ranks.drop(0, ref)


def test_children_of_a_lost_parent_are_cancelled_and_made_anew(ranks: Ranks) -> None:
    # @remote
    # def outer(): return get([inner.remote(), inner.remote()])
    # get(outer.remote())               # the rank of outer dies
    outer, inner = ranks.function(on=1, affinity_soft=True, n_retries_max=1), ranks.function(1, on=2)
    task = ranks.call(outer)
    children = [ranks.call(inner, parent=task) for _ in range(2)]
    ranks.get(1, *children, parent=task)
    assert ranks.running == {task: 1, children[0]: 2}
    ranks.kill(1)
    assert ranks.interrupted == [children[0]]
    ranks.raises(children[0], Failure(CANCELLED))
    assert ranks.running == {task: 2}
    again = ranks.call(ranks.function(2, on=2), parent=task)
    ranks.get(2, again, parent=task)
    ranks.returns(again)
    ranks.drop(2, again)
    ranks.returns(task, b"both")
    assert ranks.value(0, task) == b"both"
    ranks.drop(0, task)


def test_what_orphans_have_called_is_cancelled_as_well(make_ranks: MakeRanks) -> None:
    # @remote
    # def outer(): return get(middle.remote())
    # def middle(): return get(inner.remote())      # outer on rank 1, which dies, middle on 2, inner on 3
    ranks = make_ranks(4, survives_deaths=True)
    outer, middle, inner = ranks.function(on=1), ranks.function(1, on=2), ranks.function(2, on=3)
    a = ranks.call(outer)
    b = ranks.call(middle, parent=a)
    c = ranks.call(inner, parent=b)
    ranks.get(2, c, parent=b)
    ranks.kill(1)
    assert len(ranks.sent(TaskCancelled, 2)) == 1
    assert sorted(ranks.interrupted) == sorted([b, c])
    ranks.raises(c, Failure(CANCELLED))
    ranks.drop(2, c)
    ranks.raises(b, Failure(CANCELLED))
    ranks.drop(0, a)


def test_an_orphan_that_returns_all_the_same_tells_nobody(ranks: Ranks) -> None:
    # @remote
    # def outer(): return inner.remote()            # inner stores a large value, with a ref inside
    outer, inner = ranks.function(on=1), ranks.function(1, on=2)
    a = ranks.call(outer)
    b = ranks.call(inner, parent=a)
    child = ranks.call(ranks.function(2, on=2), parent=b)
    ranks.kill(1)
    own = ranks.put(2)
    ranks.returns(b, b"large", (own,), is_large=True)
    ranks.drop(2, own, child)
    assert not [place for place in ranks.segments if place[0] == 2]
    assert failure_of(ranks, a).kind == CRASHED
    ranks.drop(0, a)


def test_a_generator_goes_on_where_it_was(ranks: Ranks) -> None:
    # for item in g.remote(): …         # the rank dies after one item
    g = ranks.function(n_returns=STREAMING, n_retries_max=1)
    task = ranks.call(g, n_ahead=1)
    first = ranks.yields(task, b"first")
    assert ranks.value(0, first) == b"first"
    ranks.kill(1)
    assert ranks.running == {task: 2}
    assert ranks.yields(task, b"first") == 0
    second = ranks.new_id(0)
    ranks.tell(0, StreamAdvanced(task, (second,)))
    ranks.settle()
    # The name that tells the end was kept back, and is given out now.
    item = ranks.yields(task, b"second")
    assert ranks.value(0, item) == b"second"
    ranks.ends(task)
    assert failure_of(ranks, second).kind == ENDED
    ranks.drop(0, first, item, second)


def test_a_generator_of_a_dead_consumer_ends(ranks: Ranks) -> None:
    # @remote
    # def consume(): for item in g.remote(): …      # its rank dies while g waits for it to take items
    outer, g = ranks.function(on=1), ranks.function(1, on=2, n_returns=STREAMING)
    a = ranks.call(outer)
    b = ranks.call(g, n_ahead=1, parent=a)
    ranks.yields(b)
    ranks.tell(2, RunHeldBack(b))
    ranks.kill(1)
    assert ranks.interrupted == [b]
    ranks.raises(b, Failure(CANCELLED))
    ranks.drop(0, a)


def test_a_thread_that_waits_runs_what_comes_back(make_ranks: MakeRanks) -> None:
    # get(f.remote())                   # on two ranks, one of which dies
    ranks = make_ranks(2, survives_deaths=True)
    ref = ranks.call(ranks.function(n_retries_max=1))
    assert ranks.running == {ref: 1}
    waiter = ranks.get(0, ref, may_run=True)
    ranks.kill(1)
    assert ranks.running == {ref: 0}
    ranks.returns(ref, b"42")
    assert ranks.woken[waiter].values == [b"42"]
    ranks.drop(0, ref)


def test_a_lease_that_the_dead_would_have_granted(make_ranks: MakeRanks) -> None:
    # ref = f.remote(); get(ref)        # the rank dies before it grants the lease
    ranks = make_ranks(3, survives_deaths=True)
    ranks.held.append((1, 0))
    ref = ranks.call(ranks.function())
    assert not ranks.running
    ranks.kill(1)
    assert ranks.running == {ref: 2}
    ranks.returns(ref)
    ranks.drop(0, ref)


def test_all_leases_were_on_ranks_that_die(make_ranks: MakeRanks) -> None:
    # refs = [f.remote() for _ in range(6)]; get(refs)
    ranks = make_ranks(4, survives_deaths=True)
    f = ranks.function(n_retries_max=1)
    refs = [ranks.call(f) for _ in range(6)]
    assert sorted(ranks.running.values()) == [1, 2, 3]
    ranks.kill(1, 2, 3)
    assert not ranks.running, "The driver does not wait."
    waiter = ranks.get(0, *refs)
    while ranks.running:
        (ref,) = ranks.running
        ranks.returns(ref)
    assert ranks.woken[waiter].object_ids == refs
    ranks.drop(0, *refs)


def test_tasks_bound_to_a_dead_rank(ranks: Ranks) -> None:
    # a, b = f.options(NodeAffinity(1)).remote(), g.options(NodeAffinity(1)).remote(h.remote())
    # the rank dies; c = f.remote(); get(a), get(b), get(c)
    f, h = ranks.function(on=1, n_retries_max=3), ranks.function(on=2)
    a, queued = ranks.call(f), ranks.call(f)
    needed = ranks.call(h)
    b = ranks.call(f, (needed,))
    ranks.kill(1)
    c = ranks.call(f)
    for ref in (a, queued, b, c):
        failure = failure_of(ranks, ref)
        assert failure.kind == UNSCHEDULABLE
        assert "is bound to rank 1. Rank 1 on host host1 (process 101) died: It was killed." in failure.text
    ranks.returns(needed)
    ranks.drop(0, a, queued, b, c, needed)


def test_resources_that_only_the_dead_had(make_ranks: MakeRanks) -> None:
    # ref = f.options(num_gpus=1).remote(); get(ref)
    ranks = make_ranks(survives_deaths=True, extra={1: {"GPU": 1}})
    f = ranks.function(resources=GPU, n_retries_max=3)
    a, b = ranks.call(f), ranks.call(f)
    ranks.kill(1)
    for ref in (a, b):
        failure = failure_of(ranks, ref)
        assert failure.kind == UNSCHEDULABLE
        assert "asks for CPU 1, GPU 1; of the ranks that are left none can ever give it that. Rank 1" in failure.text
    ranks.drop(0, a, b)


def test_a_spare_takes_part_when_another_rank_has_died(make_ranks: MakeRanks) -> None:
    # refs = [f.remote() for _ in range(2)]; get(refs)
    ranks = make_ranks(4, n_spares=1, survives_deaths=True)
    f = ranks.function(n_retries_max=1)
    refs = [ranks.call(f) for _ in range(3)]
    assert sorted(ranks.running.values()) == [1, 2]
    ranks.kill(2)
    assert sorted(ranks.running.values()) == [1, 3]
    while ranks.running:
        ranks.returns(next(iter(ranks.running)))
    ranks.drop(0, *refs)


def test_queued_tasks_find_a_spare_at_once(make_ranks: MakeRanks) -> None:
    # a, b = f.remote(), f.remote()     # rank 1 is busy; rank 2, on which b waits for a lease, dies
    ranks = make_ranks(4, n_spares=1, survives_deaths=True)
    f = ranks.function(n_retries_max=1)
    refs = [ranks.call(f) for _ in range(4)]
    ranks.kill(2)
    assert LeaseRequested in [type(message) for source, rank, message in ranks.log if (source, rank) == (0, 3)]
    assert 3 in ranks.running.values()
    while ranks.running:
        ranks.returns(next(iter(ranks.running)))
    ranks.drop(0, *refs)


def test_the_death_of_a_spare_changes_nothing(make_ranks: MakeRanks) -> None:
    # ref = f.remote(); get(ref)
    ranks = make_ranks(4, n_spares=2, survives_deaths=True)
    ref = ranks.call(ranks.function())
    ranks.kill(3)
    assert ranks.running == {ref: 1}
    ranks.returns(ref)
    assert ranks.hands[0].core.membership.active == (0, 1)
    ranks.drop(0, ref)


def test_others_have_the_room_of_a_dead_owner_at_once(make_ranks: MakeRanks) -> None:
    # rank 2 runs a task of rank 1, behind which another one waits, when rank 1 dies; rank 0 wants rank 2
    ranks = make_ranks(survives_deaths=True)
    outer, f, g = ranks.function(on=1), ranks.function(1, on=2), ranks.function(on=2)
    a = ranks.call(outer)
    first = ranks.call(f, parent=a)
    ranks.returns(first)
    b = [ranks.call(f, parent=a) for _ in range(3)]
    c = ranks.call(g)
    assert b[0] in ranks.running
    assert c not in ranks.running
    ranks.kill(1)
    assert ranks.interrupted == [b[0]]
    ranks.raises(b[0], Failure(CANCELLED))
    assert ranks.running == {c: 2}
    ranks.returns(c)
    ranks.drop(0, a, c)


def test_a_wait_that_was_covered_goes_on(make_ranks: MakeRanks) -> None:
    # @remote
    # def outer(): return get(inner.remote())       # of rank 1, on rank 2, which runs inner on its own stack
    ranks = make_ranks(survives_deaths=True)
    top, outer, inner = ranks.function(on=1), ranks.function(1, on=2), ranks.function(2, on=2)
    a = ranks.call(top)
    b = ranks.call(outer, parent=a)
    c = ranks.call(inner, parent=b)
    ranks.get(2, c, parent=b, may_run=True)
    assert ranks.running[c] == 2
    ranks.kill(1)
    assert sorted(ranks.interrupted) == sorted([b, c])
    ranks.raises(c, Failure(CANCELLED))
    ranks.drop(2, c)
    ranks.raises(b, Failure(RAISED))
    ranks.drop(0, a)


def test_arguments_that_were_stored_there_are_made_again_first(ranks: Ranks) -> None:
    # a = make.remote(); b = use.remote(a); get(b)      # a is stored where b runs; that rank dies
    make, use = (ranks.function(on=1, affinity_soft=True, n_retries_max=1) for _ in range(2))
    a = ranks.call(make)
    ranks.returns(a, b"a", is_large=True)
    b = ranks.call(use, (a,))
    assert ranks.running == {b: 1}
    n_pushed = len(ranks.sent(TaskPushed))
    ranks.kill(1)
    (again,) = ranks.running
    assert again not in (a, b)
    assert len(ranks.sent(TaskPushed)) == n_pushed + 1
    ranks.returns(again, b"a", is_large=True)
    assert list(ranks.running) == [b]
    ranks.returns(b, b"b")
    assert ranks.value(0, b) == b"b"
    assert ranks.value(0, a) == b"a"
    ranks.drop(0, a, b)


def test_arguments_that_cannot_be_made_again(ranks: Ranks) -> None:
    # a = make.options(max_retries=0).remote(); b = use.remote(a); get(b)
    make = ranks.function(on=1)
    a = ranks.call(make)
    ranks.returns(a, b"a", is_large=True)
    b = ranks.call(ranks.function(on=1, affinity_soft=True, n_retries_max=3), (a,))
    ranks.kill(1)
    failure = failure_of(ranks, b)
    assert failure.kind == UNRECOVERABLE
    assert "Rank 1 on host host1 (process 101) died: It was killed." in failure.text
    ranks.drop(0, a, b)


def test_a_rank_dies_while_what_another_had_is_made_again(make_ranks: MakeRanks) -> None:
    # a = make.remote(); b = use.remote(a); get(b)
    ranks = make_ranks(4, survives_deaths=True)
    make, use = (ranks.function(n_retries_max=3) for _ in range(2))
    a = ranks.call(make)
    ranks.returns(a, b"a", is_large=True)
    b = ranks.call(use, (a,))
    ranks.kill(1)
    (again,) = ranks.running
    ranks.kill(ranks.running[again])
    assert list(ranks.running) == [again]
    ranks.returns(again, b"a", is_large=True)
    assert list(ranks.running) == [b]
    ranks.kill(ranks.running[b])
    waiter = ranks.get(0, b)
    (again,) = ranks.running
    ranks.returns(again, b"a", is_large=True)
    ranks.returns(b, b"b")
    assert ranks.woken[waiter].values == [b"b"]
    ranks.drop(0, a, b)


def test_items_that_were_stored_there_are_made_again(ranks: Ranks) -> None:
    # for item in g.remote(): …         # the rank dies after one large item, which is still wanted
    g = ranks.function(n_returns=STREAMING, n_retries_max=3)
    task = ranks.call(g, n_ahead=2)
    (first,) = ranks.names[task][:1]
    ranks.yields(task, b"first", is_large=True)
    ranks.kill(1)
    waiter = ranks.get(0, first)
    runs = list(ranks.running)
    assert task in runs
    while ranks.running:
        run = next(iter(ranks.running))
        ranks.yields(run, b"first", is_large=True)
        if run == task:
            ranks.yields(task, b"second")
        if run in ranks.running:
            ranks.ends(run)
    assert ranks.woken[waiter].object_ids == [first]
    ranks.drop(0, *(first + n for n in range(3)))


def test_what_a_task_was_covered_for_may_have_been_handed_on(make_ranks: MakeRanks) -> None:
    # x = put(…); f.remote([x]); del x              # f hands x on to g, on another rank, and dies
    ranks = make_ranks(4, survives_deaths=True)
    f, g = ranks.function(on=1), ranks.function(1, on=2)
    x = ranks.put(0)
    a = ranks.call(f, nested=(x,))
    ranks.drop(0, x)
    ranks.hold(1, x)
    b = ranks.call(g, nested=(x,), parent=a)
    ranks.hold(2, x)
    ranks.kill(1, unaware=(2,))
    assert ranks.knows(0, x), "Rank 2 has it, and has not noted the death."
    ranks.hear(2, 1)
    ranks.settle()
    assert ranks.value(2, x) == b"value"
    ranks.raises(b, Failure(CANCELLED))
    ranks.drop(2, x)
    assert not ranks.knows(0, x)
    ranks.drop(0, a)


def test_what_many_tasks_were_covered_for_is_reported_once(make_ranks: MakeRanks) -> None:
    # Rank 1 puts x, and calls f.remote([x]) on rank 3, which calls g.remote([x]) three times on rank 2.
    ranks = make_ranks(4, survives_deaths=True)
    x = ranks.put(1)
    outer = ranks.call(ranks.function(1, on=3), nested=(x,))
    ranks.hold(3, x)
    function = ranks.function(3, on=2, affinity_soft=True, n_retries_max=1)
    first = ranks.call(function, parent=outer)
    ranks.returns(first)
    inner = [ranks.call(function, nested=(x,), parent=outer) for _ in range(3)]
    assert len(ranks.sent(TaskPushed, 3)) == 4
    ranks.log.clear()
    ranks.kill(2)
    assert len(ranks.sent(BorrowAdded, 3)) == 1
    while not all(isinstance(ranks.hands[3].core.ownership.objects[task].payload, bytes) for task in inner):
        for task in list(ranks.running):
            if task != outer:
                ranks.returns(task)
        ranks.pass_time(1.0)
    ranks.drop(3, x, first, *inner)
    ranks.returns(outer)
    ranks.drop(1, x, outer)


def test_children_of_an_orphan_that_were_on_the_dead_rank_are_not_tried_again(make_ranks: MakeRanks) -> None:
    # Rank 1 calls f on rank 2, which calls g twice, on ranks 3 and 1; g returns on rank 3, and rank 1 dies.
    ranks = make_ranks(4, survives_deaths=True)
    outer = ranks.call(ranks.function(1, on=2))
    ranks.tell(2, ResourcesQueried(1))  # So it hears that rank 0 is busy.
    ranks.settle()
    function = ranks.function(2, n_retries_max=1)
    inner = [ranks.call(function, parent=outer) for _ in range(2)]
    assert ranks.running == {outer: 2, inner[0]: 3, inner[1]: 1}
    ranks.returns(inner[0])
    ranks.log.clear()
    ranks.kill(1)
    assert not ranks.sent(TaskPushed), "There is room on rank 3."
    assert ranks.running == {outer: 2}
    ranks.drop(2, *inner)
    ranks.returns(outer)


def test_a_death_while_somebody_asks_for_a_place_on_an_idle_rank(make_ranks: MakeRanks) -> None:
    # on rank 2: refs = [f.remote() for _ in range(3)]; rank 1 dies before it has answered anything
    ranks = make_ranks(4, survives_deaths=True)
    outer = ranks.call(ranks.function(on=2))
    ranks.held += [(1, 2), (3, 2)]
    f = ranks.function(2)
    refs = [ranks.call(f, parent=outer) for _ in range(3)]
    ranks.kill(1)
    ranks.held.clear()
    ranks.settle()
    while len(ranks.running) > 1:
        ranks.returns(next(ref for ref in ranks.running if ref != outer))
    ranks.returns(outer)
    ranks.drop(2, *refs)
    ranks.drop(0, outer)


def test_a_standstill_is_found_although_a_rank_dies_that_was_asked(make_ranks: MakeRanks) -> None:
    # @remote(resources={"tape": 1})
    # def outer(): return get(inner.remote())       # inner wants a tape, too; ranks 1 and 2 have one each
    # a, b = outer.remote(), outer.remote()
    tape = (("CPU", RESOURCE_UNIT), ("tape", RESOURCE_UNIT))
    ranks = make_ranks(extra={1: {"tape": 1}, 2: {"tape": 1}}, n_slots=2, survives_deaths=True)
    outers, inners = [], []
    for rank in (1, 2):
        outers.append(ranks.call(ranks.function(on=rank, resources=tape)))
        inners.append(ranks.call(ranks.function(rank, on=rank, resources=tape), parent=outers[-1]))
        wait = WaitStarted(1000 + rank, inners[-1:], 1, True, False, outers[-1], True)
        ranks.tell(rank, wait)
        ranks.settle()
    ranks.held.append((2, 1))
    ranks.pass_time(ranks.hands[1].core.context.config.standstill_after_s)
    assert ranks.sent(WaitersAsked, 1)
    assert 1001 not in ranks.woken
    ranks.kill(2)
    assert 1001 not in ranks.woken
    ranks.pass_time(ranks.hands[1].core.context.config.standstill_after_s)
    (failure,) = ranks.woken[1001].values
    assert isinstance(failure, Failure)
    assert failure.kind == UNSCHEDULABLE
    assert "function on rank 1 (tape 1)" in failure.text
    ranks.returns(outers[0])
    ranks.drop(1, inners[0])
    ranks.drop(0, *outers)


@pytest.mark.parametrize("has_ended", [True, False])
def test_one_death_is_one_attempt_for_all_items_of_a_generator(make_ranks: MakeRanks, has_ended: bool) -> None:
    # refs = list(g.remote()), five large items on rank 1, which dies; max_retries=1
    ranks = make_ranks(4, survives_deaths=True)
    g = ranks.function(n_returns=STREAMING, n_retries_max=1)
    task = ranks.call(g, n_ahead=6)
    items = [ranks.yields(task, b"%d" % n, is_large=n != 2) for n in range(5)]
    if has_ended:
        ranks.ends(task)
    ranks.kill(1)
    (again,) = ranks.running
    assert (again == task) != has_ended
    for n in range(5):
        assert again in ranks.running, "There are items to be made."
        assert (ranks.yields(again, b"%d" % n, is_large=True) == 0) == (n == 2)
    if not has_ended:
        items.append(ranks.yields(task, b"5"))
        ranks.ends(task)
    else:
        assert ranks.interrupted == [again], "Nothing that comes after them is wanted."
        ranks.raises(again, Failure(CANCELLED))
    assert [ranks.value(0, item) for item in items] == [b"%d" % n for n in range(len(items))]
    ranks.drop(0, *(items[0] + n for n in range(7)))


def test_a_generator_that_makes_items_again_dies_with_some_of_them(make_ranks: MakeRanks) -> None:
    # refs = list(g.remote()); the rank with the items dies, and so does the one that has made two of them again
    ranks = make_ranks(5, survives_deaths=True)
    task = ranks.call(ranks.function(n_returns=STREAMING, n_retries_max=2), n_ahead=4)
    items = [ranks.yields(task, b"%d" % n, is_large=True) for n in range(4)]
    ranks.ends(task)
    for _ in range(2):
        ranks.kill(next(iter(ranks.running.values()), 1))
        (again,) = ranks.running
        for n in range(2):
            assert ranks.yields(again, b"%d" % n, is_large=True)
    for n in range(2, 4):
        assert ranks.yields(again, b"%d" % n, is_large=True)
    ranks.raises(again, Failure(CANCELLED))
    assert [ranks.value(0, item) for item in items] == [b"%d" % n for n in range(4)]
    ranks.drop(0, *(items[0] + n for n in range(5)))


def test_items_fail_with_the_attempt_that_was_to_make_them_again(ranks: Ranks) -> None:
    # refs = list(g.remote()); the rank with the items dies, and g raises when it is run again
    task = ranks.call(ranks.function(n_returns=STREAMING, n_retries_max=1), n_ahead=2)
    items = [ranks.yields(task, b"%d" % n, is_large=True) for n in range(2)]
    ranks.ends(task)
    ranks.kill(1)
    ranks.raises(next(iter(ranks.running)), Failure(RAISED, "No."))
    assert [failure_of(ranks, item) for item in items] == [Failure(RAISED, "No.")] * 2
    ranks.drop(0, *(items[0] + n for n in range(3)))


def test_losses_that_are_found_one_by_one_count_as_one_retry(make_ranks: MakeRanks) -> None:
    # get(refs) on rank 2, of four large items of g.remote() on rank 1, which is dead; the driver hears of it last
    ranks = make_ranks(4, survives_deaths=True)
    task = ranks.call(ranks.function(on=1, affinity_soft=True, n_returns=STREAMING, n_retries_max=2), n_ahead=4)
    items = [ranks.yields(task, b"%d" % n, is_large=True) for n in range(3)]
    ranks.ends(task)
    reader = ranks.call(ranks.function(on=2), nested=tuple(items))
    ranks.hold(2, *items)
    ranks.kill(1, unaware=(0,))
    waiter = ranks.get(2, *items, parent=reader)
    ranks.hear(0, 1)
    ranks.settle()
    while waiter not in ranks.woken:
        again = next(each for each in ranks.running if each != reader)
        if ranks.names[again]:
            ranks.yields(again, b"item", is_large=True)
        else:
            ranks.raises(again, Failure(CANCELLED))
    assert not [value for value in ranks.woken[waiter].values if isinstance(value, Failure)]
    for each in list(ranks.running):
        ranks.raises(each, Failure(CANCELLED))
    ranks.drop(2, *items)
    ranks.drop(0, reader, *(items[0] + n for n in range(5)))
