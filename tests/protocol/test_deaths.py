"""Deaths of ranks that hold, own, store or read what others use: each test is a small user program, told above it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcfut.model.failure import OWNER_DIED, UNRECOVERABLE, Failure
from hpcfut.wire.messages import BorrowAdded, DeathNoted, LoanRequested, TaskPushed
from tests.protocol.wired import Ranks

MakeRanks = Callable[..., Ranks]


@pytest.fixture
def ranks(make_ranks: MakeRanks) -> Ranks:
    """Three ranks on three hosts, in a job that survives deaths."""
    return make_ranks(survives_deaths=True)


@pytest.fixture
def four(make_ranks: MakeRanks) -> Ranks:
    """Four of them."""
    return make_ranks(4, survives_deaths=True)


@pytest.fixture
def near(make_ranks: MakeRanks) -> Ranks:
    """Three ranks on one host."""
    return make_ranks(survives_deaths=True, hosts="aaa")


def failure_of(ranks: Ranks, rank: int, object_id: int) -> Failure:
    """What ``get`` raises."""
    failure = ranks.value(rank, object_id)
    assert isinstance(failure, Failure)
    return failure


def borrow(ranks: Ranks, owner: int, *borrowers: int, is_large: bool = False) -> int:
    """A rank puts a value, and returns a ref to it to the driver, which hands it to others; each of them keeps it."""
    outer = ranks.call(ranks.function(on=owner))
    x = ranks.put(owner, b"x", is_large=is_large)
    ranks.returns(outer, b"[x]", (x,))
    ranks.drop(owner, x)
    assert ranks.value(0, outer) == b"[x]"
    ranks.hold(0, x)
    ranks.drop(0, outer)
    for borrower in borrowers:
        task = ranks.call(ranks.function(on=borrower), nested=(x,))
        ranks.hold(borrower, x)
        ranks.returns(task)
        ranks.drop(0, task)
    return x


# -- what the dead had borrowed ----------------------------------------------------------------------------------------


def test_what_a_dead_borrower_held_is_collected(ranks: Ranks) -> None:
    # def keep(refs): kept.append(refs[0]) runs on rank 1, which dies; the driver has dropped its ref.
    x = ranks.put(0, b"x")
    task = ranks.call(ranks.function(on=1), nested=(x,))
    ranks.hold(1, x)
    ranks.returns(task)
    ranks.drop(0, x, task)
    assert ranks.knows(0, x)
    ranks.kill(1, unaware=(2,))
    assert ranks.knows(0, x), "Rank 1 may have handed it to rank 2."
    ranks.hear(2, 1)
    ranks.settle()
    assert not ranks.knows(0, x)


@pytest.mark.parametrize("late", [0, 2])
def test_what_a_dead_executor_has_handed_on_lives(ranks: Ranks, late: int) -> None:
    # def outer(refs): inner.remote(refs) on rank 1; def inner(refs): kept.append(refs[0]) on rank 2; rank 1 dies.
    x = ranks.put(0, b"x")
    outer = ranks.call(ranks.function(on=1), nested=(x,))
    ranks.hold(1, x)
    inner = ranks.call(ranks.function(1, on=2), nested=(x,), parent=outer)
    ranks.hold(2, x)
    ranks.kill(1, unaware=(late,))
    ranks.drop(0, x, outer)
    assert ranks.knows(0, x)
    ranks.hear(late, 1)
    ranks.settle()
    assert ranks.interrupted == [inner]
    ranks.returns(inner)
    assert ranks.value(2, x) == b"x"
    ranks.drop(2, x)
    assert not ranks.knows(0, x)


def test_what_was_inside_an_argument_of_a_dead_executor(ranks: Ranks) -> None:
    # x = put([y]); outer.remote(x) on rank 1 hands y to rank 2; rank 1 dies, and the driver drops x and y.
    y = ranks.put(0, b"y")
    x = ranks.put(0, b"[y]", (y,))
    outer = ranks.call(ranks.function(on=1), (x,))
    ranks.hold(1, y)
    inner = ranks.call(ranks.function(1, on=2), nested=(y,), parent=outer)
    ranks.hold(2, y)
    ranks.kill(1, unaware=(2,))
    ranks.drop(0, x, y, outer)
    ranks.hear(2, 1)
    ranks.settle()
    ranks.returns(inner)
    assert ranks.value(2, y) == b"y"
    ranks.drop(2, y)
    assert not ranks.knows(0, y)


def test_the_caller_of_a_dead_executor_is_not_the_owner(four: Ranks) -> None:
    # Rank 3 owns x. The driver calls outer.remote([x]) on rank 1, which hands x to rank 2 and dies; the driver drops x.
    ranks = four
    x = borrow(ranks, 3)
    outer = ranks.call(ranks.function(on=1), nested=(x,))
    ranks.hold(1, x)
    inner = ranks.call(ranks.function(1, on=2), nested=(x,), parent=outer)
    ranks.hold(2, x)
    ranks.held.append((2, 3))
    ranks.kill(1)
    ranks.drop(0, x, outer)
    assert not ranks.knows(0, x)
    assert ranks.knows(3, x), "The driver has let go; what rank 2 holds has not been heard of."
    ranks.held.clear()
    ranks.settle()
    ranks.returns(inner)
    assert ranks.value(2, x) == b"x"
    ranks.drop(2, x)
    assert not ranks.knows(3, x)


def test_a_report_that_never_arrives(four: Ranks) -> None:
    # Rank 1 holds x of rank 3 and returns [x] to the driver; its report does not arrive, because it dies.
    ranks = four
    x = borrow(ranks, 3, 1)
    ranks.drop(0, x)
    task = ranks.call(ranks.function(on=1))
    ranks.held.append((1, 3))
    ranks.returns(task, b"[x]", (x,))
    ranks.hold(0, x)
    ranks.kill(1, unaware=(0,))
    assert ranks.knows(3, x)
    ranks.hear(0, 1)
    ranks.settle()
    assert DeathNoted(1, (x,)) in ranks.sent(DeathNoted, 0)
    ranks.drop(0, task)
    assert ranks.value(0, x) == b"x"
    ranks.drop(0, x)
    assert not ranks.knows(3, x)


def test_a_borrower_that_let_go_before_it_heard(four: Ranks) -> None:
    # The same, but the driver drops x before it hears that rank 1 is dead.
    ranks = four
    x = borrow(ranks, 3, 1)
    ranks.drop(0, x)
    task = ranks.call(ranks.function(on=1))
    ranks.held.append((1, 3))
    ranks.returns(task, b"[x]", (x,))
    ranks.kill(1, unaware=(0,))
    ranks.drop(0, task)
    assert ranks.knows(3, x)
    ranks.hear(0, 1)
    ranks.settle()
    assert not ranks.knows(3, x)


@pytest.mark.parametrize("first", [1, 2])
def test_two_deaths_are_buried_together(make_ranks: MakeRanks, first: int) -> None:
    # The driver hands x to rank 1, which hands it to rank 2, which hands it to rank 3; ranks 1 and 2 die, and rank 3
    # hears of one before it hears of the other.
    ranks = make_ranks(5, survives_deaths=True)
    x = borrow(ranks, 4)
    one = ranks.call(ranks.function(on=1), nested=(x,))
    ranks.hold(1, x)
    two = ranks.call(ranks.function(1, on=2), nested=(x,), parent=one)
    ranks.hold(2, x)
    three = ranks.call(ranks.function(2, on=3), nested=(x,), parent=two)
    ranks.hold(3, x)
    ranks.kill(1, 2, unaware=(3,))
    ranks.drop(0, x, one)
    ranks.hear(3, first)
    ranks.settle()
    assert ranks.knows(4, x)
    ranks.hear(3, 3 - first)
    ranks.settle()
    ranks.returns(three)
    assert ranks.value(3, x) == b"x"
    ranks.drop(3, x)
    assert not ranks.knows(4, x)


def test_a_rank_dies_that_has_noted_a_death_before(make_ranks: MakeRanks) -> None:
    # Rank 3 notes the death of rank 1 before rank 2, which has x from rank 1, hands it to rank 3 and dies as well.
    ranks = make_ranks(5, survives_deaths=True)
    x = borrow(ranks, 4)
    one = ranks.call(ranks.function(on=1), nested=(x,))
    ranks.hold(1, x)
    two = ranks.call(ranks.function(1, on=2), nested=(x,), parent=one)
    ranks.hold(2, x)
    ranks.kill(1, unaware=(2,))
    ranks.drop(0, x, one)
    ranks.held.append((2, 4))
    three = ranks.call(ranks.function(2, on=3), nested=(x,), parent=two)
    ranks.hold(3, x)
    ranks.kill(2, unaware=(3,))
    assert ranks.knows(4, x)
    ranks.hear(3, 2)
    ranks.settle()
    ranks.returns(three)
    assert ranks.value(3, x) == b"x"
    ranks.drop(3, x)
    assert not ranks.knows(4, x)


def test_a_note_that_comes_before_the_news(ranks: Ranks) -> None:
    # Rank 2 has x from rank 1, which dies; the driver, its owner, is the last to hear of it.
    x = ranks.put(0, b"x")
    task = ranks.call(ranks.function(on=1), nested=(x,))
    ranks.hold(1, x)
    inner = ranks.call(ranks.function(1, on=2), nested=(x,), parent=task)
    ranks.hold(2, x)
    ranks.kill(1, unaware=(0,))
    assert ranks.hands[0].core.statistics().n_deaths == 1
    ranks.returns(inner)
    ranks.drop(2, x)
    ranks.hear(0, 1)
    ranks.settle()
    assert ranks.hands[0].core.statistics().n_deaths == 0
    ranks.drop(0, x, task)
    assert not ranks.knows(0, x)


def test_a_report_of_a_rank_that_has_been_buried(four: Ranks) -> None:
    # Rank 1 has called a task on rank 2, and dies; that task returns [x] of rank 3 all the same.
    ranks = four
    x = borrow(ranks, 3, 2)
    outer = ranks.call(ranks.function(on=1))
    inner = ranks.call(ranks.function(1, on=2), parent=outer)
    ranks.held.append((0, 2))
    ranks.kill(1)
    n_reports = len(ranks.sent(BorrowAdded))
    ranks.returns(inner, b"[x]", (x,))
    assert len(ranks.sent(BorrowAdded)) == n_reports + 1
    assert ranks.hands[3].stale("report of a dead borrower") == 1
    ranks.held.clear()
    ranks.settle()
    ranks.drop(0, x, outer)
    ranks.drop(2, x)
    assert not ranks.knows(3, x)


def test_what_is_returned_to_a_rank_that_has_been_buried(near: Ranks) -> None:
    # Rank 1 has called a task on rank 2, and dies; it returns a large value with a ref inside all the same.
    outer = near.call(near.function(on=1))
    function = near.function(1, on=2)
    one = near.call(function, parent=outer)
    near.kill(1)
    y = near.put(2, b"y")
    near.returns(one, b"[y]", (y,), is_large=True)
    near.drop(2, y)
    assert not near.knows(2, y)
    assert not near.segments
    near.drop(0, outer)


# -- what the dead owned -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("is_known", [False, True])
def test_what_a_dead_rank_owned_raises_everywhere(near: Ranks, is_large: bool, is_known: bool) -> None:
    # ref = get(make.remote())[0], which rank 1 has put; rank 1 dies; get(ref)
    x = borrow(near, 1, 2, is_large=is_large)
    if is_known:
        assert near.value(0, x) == b"x"
    waiter = near.get(2, x)
    assert waiter in near.woken
    near.kill(1)
    for rank in (0, 2):
        failure = failure_of(near, rank, x)
        assert failure.kind == OWNER_DIED
        assert "1.101 is gone with its owner. Rank 1 on host host1 (process 101) died: It was killed." in failure.text
        near.drop(rank, x)


def test_who_waits_for_an_owner_is_told(ranks: Ranks) -> None:
    # Rank 1 calls slow.remote() and returns [ref]; the driver and a task on rank 2 call get(ref); rank 1 dies.
    outer = ranks.call(ranks.function(on=1))
    slow = ranks.call(ranks.function(1, on=2), parent=outer)
    ranks.returns(outer, b"[ref]", (slow,))
    assert ranks.value(0, outer) == b"[ref]"
    ranks.hold(0, slow)
    ranks.drop(0, outer)
    waiter = ranks.get(0, slow)
    result = ranks.call(ranks.function(), (slow,))
    assert waiter not in ranks.woken
    ranks.kill(1)
    (value,) = ranks.woken[waiter].values
    assert isinstance(value, Failure)
    assert value.kind == OWNER_DIED
    assert failure_of(ranks, 0, result).kind == OWNER_DIED
    ranks.returns(slow)
    ranks.drop(0, slow, result)


def test_a_ref_that_is_handed_on_after_the_death_of_its_owner(ranks: Ranks) -> None:
    # The driver holds a ref of rank 1, which is dead, and calls f.remote([ref]) on rank 2, which calls get(ref).
    x = borrow(ranks, 1)
    ranks.kill(1)
    task = ranks.call(ranks.function(on=2), nested=(x,))
    ranks.hold(2, x)
    assert failure_of(ranks, 2, x).kind == OWNER_DIED
    ranks.returns(task, b"[x]", (x,))
    assert failure_of(ranks, 0, x).kind == OWNER_DIED
    ranks.drop(0, x, task)
    ranks.drop(2, x)


def test_a_task_that_has_its_arguments_goes_on_without_their_owner(make_ranks: MakeRanks) -> None:
    # f.remote(x) runs on rank 2 when rank 1, which has put x, dies; g.remote(x), which is queued, fails.
    ranks = make_ranks(survives_deaths=True, hosts="aaa", lease_depth_max=1)
    x = borrow(ranks, 1, is_large=True)
    function = ranks.function(on=2)
    f, g = ranks.call(function, (x,)), ranks.call(function, (x,))
    assert ranks.running == {f: 2}
    ranks.kill(1)
    assert ranks.running == {f: 2}
    assert failure_of(ranks, 0, g).kind == OWNER_DIED
    ranks.returns(f, b"f(x)")
    assert ranks.value(0, f) == b"f(x)"
    ranks.drop(0, x, f, g)


def test_who_waits_for_bytes_is_told_that_their_owner_died(near: Ranks) -> None:
    # Rank 1 returns [make.remote()], which rank 2 has stored; the driver has asked rank 2 for it when rank 1 dies.
    outer = near.call(near.function(on=1))
    made = near.call(near.function(1, on=2), parent=outer)
    near.returns(made, b"made", is_large=True)
    near.returns(outer, b"[ref]", (made,))
    assert near.value(0, outer) == b"[ref]"
    near.hold(0, made)
    near.drop(0, outer)
    near.drop(1, made)
    near.held.append((0, 2))
    waiter = near.get(0, made)
    assert waiter not in near.woken
    near.kill(1)
    (value,) = near.woken[waiter].values
    assert isinstance(value, Failure)
    assert value.kind == OWNER_DIED
    near.drop(0, made)


def test_a_report_to_a_dead_owner_counts_as_confirmed(ranks: Ranks) -> None:
    # Rank 2 returns [x] of rank 1 to the driver, and rank 1 dies before it has confirmed the report.
    x = borrow(ranks, 1, 2)
    ranks.drop(0, x)
    task = ranks.call(ranks.function(on=2))
    ranks.held.append((1, 2))
    ranks.returns(task, b"[x]", (x,))
    ranks.drop(2, x)
    assert ranks.knows(2, x)
    ranks.kill(1)
    assert not ranks.knows(2, x)
    ranks.drop(0, task)


def test_what_a_dead_rank_owned_is_freed_where_it_is_stored(ranks: Ranks) -> None:
    # Rank 1 calls make.remote() on rank 2, whose result is large; rank 1 dies.
    outer = ranks.call(ranks.function(on=1))
    made = ranks.call(ranks.function(1, on=2), parent=outer)
    ranks.returns(made, b"made", is_large=True)
    assert (2, made) in ranks.segments
    ranks.kill(1)
    assert (2, made) not in ranks.segments
    assert failure_of(ranks, 0, outer).text
    ranks.drop(0, outer)


# -- what the dead stored ----------------------------------------------------------------------------------------------


def test_what_a_dead_rank_stored_is_made_again(make_ranks: MakeRanks) -> None:
    # a = make.remote(); b = change.remote(a), both on rank 1, which dies; get(b)
    ranks = make_ranks(survives_deaths=True, lease_depth_max=1)
    function = ranks.function(n_retries_max=3)
    a = ranks.call(function)
    ranks.returns(a, b"a", is_large=True)
    b = ranks.call(function, (a,))
    other = ranks.call(function)  # So there is room on rank 2.
    assert ranks.running == {b: 1, other: 2}
    ranks.returns(b, b"b", is_large=True)
    ranks.returns(other)
    n_pushed = len(ranks.sent(TaskPushed))
    ranks.kill(1)
    waiter = ranks.get(0, b)
    for value in (b"a", b"b"):
        assert waiter not in ranks.woken
        (task_id,) = ranks.running
        ranks.returns(task_id, value, is_large=True)
    assert len(ranks.sent(TaskPushed)) == n_pushed + 2, "Nobody looks for a where it was."
    assert ranks.value(0, b) == b"b"
    assert ranks.value(0, a) == b"a"
    ranks.drop(0, a, b, other)


def test_what_cannot_be_made_again_says_who_died(ranks: Ranks) -> None:
    # ref = make.remote() on rank 1, with max_retries=0; rank 1 dies; get(ref), here and on rank 2
    ref = ranks.call(ranks.function(on=1))
    ranks.returns(ref, b"value", is_large=True)
    task = ranks.call(ranks.function(on=2), nested=(ref,))
    ranks.hold(2, ref)
    ranks.kill(1)
    for rank in (0, 2):
        failure = failure_of(ranks, rank, ref)
        assert failure.kind == UNRECOVERABLE
        assert "Rank 1 on host host1 (process 101) died: It was killed." in failure.text
        assert "has had its 0 retries" in failure.text
    ranks.drop(2, ref)
    ranks.returns(task)
    ranks.drop(0, ref, task)


def test_a_reader_that_finds_out_first(ranks: Ranks) -> None:
    # Rank 2 calls get(ref) of what rank 1 stored; it knows that rank 1 is dead, and the driver does not yet.
    ref = ranks.call(ranks.function(n_retries_max=2))
    ranks.returns(ref, b"value", is_large=True)
    task = ranks.call(ranks.function(on=2), nested=(ref,))
    ranks.hold(2, ref)
    ranks.kill(1, unaware=(0,))  # So it has it made again on rank 1 first.
    waiter = ranks.get(2, ref, parent=task)
    assert waiter not in ranks.woken
    ranks.hear(0, 1)
    ranks.settle()
    (again,) = (task_id for task_id in ranks.running if task_id != task)
    ranks.returns(again, b"value", is_large=True)
    assert ranks.value(2, ref) == b"value"
    ranks.drop(2, ref)
    ranks.returns(task)
    ranks.drop(0, ref, task)


def test_what_is_read_in_place_outlives_its_holder(near: Ranks) -> None:
    # array = get(make.remote()) of rank 1, which dies; the driver reads the array, also anew; then it drops the ref.
    ref = near.call(near.function(on=1, n_retries_max=3))
    near.returns(ref, b"array", is_large=True)
    assert near.value(0, ref) == b"array"
    near.kill(1)
    assert not near.running, "Nobody needs it again."
    assert near.value(0, ref) == b"array"
    assert near.forgotten == [(2, 1)]
    near.drop(0, ref)
    assert near.forgotten == [(2, 1), (0, 1)]


def test_what_is_read_in_place_is_made_again_for_others(near: Ranks) -> None:
    # The same, but f.remote(ref) is called after the death.
    ref = near.call(near.function(n_retries_max=3))
    near.returns(ref, b"array", is_large=True)
    assert near.value(0, ref) == b"array"
    near.kill(1)
    task = near.call(near.function(on=2), (ref,))
    (again,) = near.running
    assert again != task
    near.returns(again, b"array", is_large=True)
    assert near.running == {task: 2}
    near.returns(task)
    near.drop(0, ref, task)


def test_a_rank_dies_that_makes_again_what_was_lost(four: Ranks) -> None:
    # ref = make.remote() on rank 1, which dies; it is made again on another rank, which dies as well.
    ranks = four
    ref = ranks.call(ranks.function(n_retries_max=3))
    ranks.returns(ref, b"value", is_large=True)
    waiter = 0
    for _ in range(2):
        dead = next(iter(ranks.running.values()), 1)
        ranks.kill(dead)
        waiter = waiter or ranks.get(0, ref)
    assert waiter not in ranks.woken
    (again,) = ranks.running
    ranks.returns(again, b"value", is_large=True)
    assert ranks.value(0, ref) == b"value"
    ranks.drop(0, ref)


# -- what the dead were to read ----------------------------------------------------------------------------------------


def test_what_a_dead_rank_was_lent_is_returned(near: Ranks) -> None:
    # f.remote(x) runs on rank 1, which reads x of the driver in place, and dies; the driver drops x.
    x = near.put(0, b"x", is_large=True)
    task = near.call(near.function(on=1), (x,))
    assert near.running == {task: 1}
    near.drop(0, x)
    near.kill(1)
    assert (0, x) not in near.segments
    near.drop(0, task)


def test_a_loan_that_is_asked_of_the_dead(near: Ranks) -> None:
    # Rank 2 has asked rank 1 for what it stores for the driver when rank 1 dies.
    ref = near.call(near.function(n_retries_max=1))
    near.returns(ref, b"value", is_large=True)
    near.held.append((2, 1))
    task = near.call(near.function(on=2), nested=(ref,))
    near.hold(2, ref)
    waiter = near.get(2, ref, parent=task)
    near.kill(1)
    assert not near.sent(LoanRequested)
    (again,) = (task_id for task_id in near.running if task_id != task)
    near.returns(again, b"value", is_large=True)
    assert waiter in near.woken
    near.drop(2, ref)
    near.returns(task)
    near.drop(0, ref, task)


def test_a_reader_dies_while_others_are_redirected_to_it(make_ranks: MakeRanks) -> None:
    # x of the driver is read by rank 1 for its host; rank 2 of that host asks for it, and rank 1 dies.
    ranks = make_ranks(4, survives_deaths=True, hosts="abbc")
    x = ranks.put(0, b"x", is_large=True)
    ranks.jammed.append((0, 1))
    function = ranks.function(on=1)
    first = ranks.call(function, (x,))
    second = ranks.call(ranks.function(on=2), (x,))
    assert not ranks.running
    ranks.kill(1)
    assert ranks.running == {second: 2}
    assert ranks.sends == [(0, 1), (0, 2)]
    ranks.returns(second)
    ranks.drop(0, x, first, second)


def test_a_rank_dies_that_waits_for_what_another_one_reads(make_ranks: MakeRanks) -> None:
    # x of the driver is read by rank 1 for its host; rank 2 of that host asks for it, and dies.
    ranks = make_ranks(4, survives_deaths=True, hosts="abbc")
    x = ranks.put(0, b"x", is_large=True)
    ranks.jammed.append((0, 1))
    first = ranks.call(ranks.function(on=1), (x,))
    second = ranks.call(ranks.function(on=2), (x,))
    ranks.kill(2)
    ranks.unjam()
    ranks.returns(first)
    ranks.drop(0, x, first, second)


def test_a_rank_dies_that_waits_for_a_result(ranks: Ranks) -> None:
    # def wait(refs): return get(refs[0]) runs on rank 2, for slow.remote() on rank 1; rank 2 dies.
    slow = ranks.call(ranks.function(on=1))
    task = ranks.call(ranks.function(on=2), nested=(slow,))
    ranks.hold(2, slow)
    ranks.get(2, slow, parent=task)
    ranks.kill(2)
    inner = ranks.put(1, b"inner")
    ranks.returns(slow, b"[inner]", (inner,))
    ranks.drop(1, inner)
    ranks.drop(0, slow, task)


def test_the_holder_dies_from_whom_a_read_was_redirected(make_ranks: MakeRanks) -> None:
    # Rank 1 stores ref for the driver; rank 2 has read it for its host, and keeps it for others; rank 1 dies.
    ranks = make_ranks(4, survives_deaths=True, hosts="abcc")
    ref = ranks.call(ranks.function(on=1))
    ranks.returns(ref, b"value", is_large=True)
    task = ranks.call(ranks.function(on=2), (ref,))
    ranks.returns(task)
    assert (2, ref) in ranks.segments
    ranks.kill(1)
    assert (2, ref) not in ranks.segments, "Nobody is redirected to it any more."
    ranks.drop(0, ref, task)
