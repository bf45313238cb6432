"""Arguments that are fetched ahead: a task that takes long does not keep the next one from its bytes."""

from __future__ import annotations

from collections.abc import Callable

from hpcfut.core.events import CancelRequested, RoomReturned, RoomWanted
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.messages import ArgumentsFollow, ReadRequested
from tests.protocol.wired import NBYTES_LARGE, Ranks

MakeRanks = Callable[..., Ranks]


class Calls:
    """``for ref in refs: tasks.append(f.remote(ref))``, with refs of large objects on rank 0; each task takes long."""

    def __init__(self, ranks: Ranks, function: TaskTemplate) -> None:
        self.ranks = ranks
        self.function = function
        self.objects: list[int] = []
        self.tasks: list[int] = []

    def call(self, n: int = 1) -> None:
        """Call the function with so many objects more."""
        for _ in range(n):
            self.objects.append(self.ranks.put(0, b"large", is_large=True))
            self.tasks.append(self.ranks.call(self.function, (self.objects[-1],)))

    def returns(self, n: int) -> None:
        """The task that was submitted as number ``n`` returns."""
        self.ranks.pass_time(0.015)
        self.ranks.returns(self.tasks[n])

    def cancel(self, n: int) -> None:
        """The task of this number is cancelled, and its argument dropped."""
        self.ranks.tell(0, CancelRequested(self.tasks[n], is_recursive=False))
        self.ranks.settle()
        self.ranks.drop(0, self.objects.pop(n))

    def running(self) -> dict[int, int]:
        """The number of each task that runs, and its rank."""
        return {self.tasks.index(task): rank for task, rank in self.ranks.running.items()}

    def at(self, rank: int) -> list[int]:
        """The numbers of the objects whose bytes a rank has."""
        return [n for n, object_id in enumerate(self.objects) if (rank, object_id) in self.ranks.segments]

    def end(self) -> None:
        """All tasks return, and everything is dropped."""
        while self.ranks.running:
            self.ranks.returns(next(iter(self.ranks.running)))
        self.ranks.drop(0, *self.objects, *self.tasks)
        self.ranks.end()


def test_the_next_argument_comes_while_a_task_runs(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(2, hosts="ab")
    calls = Calls(ranks, ranks.function(on=1))
    calls.call(4)
    for n in range(3):
        assert calls.running() == {n: 1}
        assert calls.at(1) == list(range(n + 2))
        calls.returns(n)
    assert calls.running() == {3: 1}
    assert len(ranks.sends) == 4, "Nothing is read twice."
    calls.end()


def test_a_task_that_comes_during_the_read_waits_for_its_end(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(2, hosts="ab")
    calls = Calls(ranks, ranks.function(on=1))
    calls.call()
    ranks.jammed.append((0, 1))
    calls.call()
    assert len(ranks.sends) == 2
    calls.returns(0)
    assert not ranks.running
    ranks.unjam()
    assert calls.running() == {1: 1}
    assert len(ranks.sends) == 2
    calls.end()


def test_a_rank_without_work_takes_what_stands_ahead_elsewhere(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(3, hosts="abc")
    calls = Calls(ranks, ranks.function())
    calls.call(4)
    assert calls.running() == {0: 1, 1: 2}
    # Those after them wait for the rank that has their bytes, for as long as it may still open a lease.
    ranks.pass_time(0.03)
    assert (calls.at(1), calls.at(2)) == ([0, 3], [1, 2])
    calls.returns(0)
    assert calls.running() == {3: 1, 1: 2}
    calls.returns(3)
    assert calls.running() == {2: 1, 1: 2}
    calls.end()


def test_what_others_take_is_not_what_stands_ahead(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(3, hosts="abc")
    calls = Calls(ranks, ranks.function())
    calls.call(5)
    ranks.pass_time(0.03)
    calls.returns(0)
    calls.returns(2)
    assert calls.running() == {1: 2, 4: 1}, "Number 3 stands ahead on rank 2."
    calls.returns(1)
    assert calls.running() == {4: 1, 3: 2}
    calls.end()


def test_what_waited_near_its_bytes_goes_to_several_ranks_at_once(make_ranks: MakeRanks) -> None:
    # Two ranks run a task each, and have room for one more; the next three wait for rank 0, which has their bytes, and
    # is not lent after all.
    ranks = make_ranks(3, hosts="abc")
    calls = Calls(ranks, ranks.function())
    short = [ranks.call(calls.function) for _ in range(2)]
    ranks.pass_time(0.008)
    for task in short:
        ranks.returns(task)
    before = [ranks.call(calls.function) for _ in range(2)]
    calls.call(3)
    assert list(ranks.running) == before
    ranks.pass_time(0.03)
    for task in before:
        ranks.returns(task)
    assert calls.running() == {0: 2, 1: 1}
    ranks.drop(0, *short, *before)
    calls.end()


def test_what_is_near_or_small_is_not_told(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(2, hosts="aa")
    calls = Calls(ranks, ranks.function(on=1))
    calls.call(2)
    calls.objects.append(ranks.put(0))
    calls.tasks.append(ranks.call(calls.function, (calls.objects[-1],)))
    assert not ranks.sent(ArgumentsFollow)
    calls.end()


def test_nothing_is_moved_but_cached_copies(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(2, hosts="ab", nbytes_store=3 * (NBYTES_LARGE + 64))
    calls = Calls(ranks, ranks.function(on=1))
    calls.call()
    # Values that somebody writes take the rest of the memory.
    own = ranks.new_id(1)
    ranks.tell(1, RoomWanted(9, own, 2 * NBYTES_LARGE))
    calls.call()
    assert len(ranks.sent(ArgumentsFollow)) == 1
    assert calls.at(1) == [0]
    assert len(ranks.sent(ReadRequested)) == 1
    calls.returns(0)
    assert calls.running() == {1: 1}, "It fetches when it comes, and the first one makes way."
    assert calls.at(1) == [1]
    ranks.tell(1, RoomReturned(own))
    calls.call()
    ranks.tell(1, RoomWanted(9, own, NBYTES_LARGE))
    calls.returns(1)
    assert calls.at(1) == [1, 2]
    ranks.drop(0, calls.objects.pop(0))
    calls.call()
    assert calls.at(1) == [1, 2], "What was number 1 has made way for it."
    ranks.tell(1, RoomReturned(own))
    calls.end()


def test_a_task_that_is_cancelled_leaves_nothing(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(2, hosts="ab")
    calls = Calls(ranks, ranks.function(on=1))
    calls.call()
    ranks.jammed.append((0, 1))
    calls.call(2)
    calls.cancel(1)
    ranks.unjam()
    assert calls.at(1) == [0]
    calls.returns(0)
    assert calls.running() == {2: 1}
    calls.end()


def test_the_object_is_freed_before_the_read_begins(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(2, hosts="ab")
    calls = Calls(ranks, ranks.function(on=1))
    calls.call()
    ranks.held.append((0, 1))
    calls.call()
    calls.cancel(1)
    ranks.held.clear()
    ranks.settle()
    assert calls.at(1) == [0]
    calls.end()


def test_what_stood_ahead_on_a_rank_that_dies_goes_elsewhere(make_ranks: MakeRanks) -> None:
    ranks = make_ranks(3, hosts="abc", survives_deaths=True)
    calls = Calls(ranks, ranks.function(n_retries_max=1))
    calls.call(4)
    ranks.pass_time(0.025)  # They do not wait any longer for rank 0, where their arguments are.
    assert calls.running() == {0: 1, 1: 2}
    assert len(calls.at(1)) == len(calls.at(2)) == 2
    ranks.kill(1)
    for _ in range(4):
        ((n, rank),) = calls.running().items()
        assert rank == 2
        calls.returns(n)
    calls.end()


def test_a_rank_that_dies_sends_nothing_ahead(make_ranks: MakeRanks) -> None:
    # refs = [make.options(NodeAffinity(1)).remote() for _ in range(2)]; [use.options(NodeAffinity(2)).remote(r) …]
    ranks = make_ranks(3, hosts="abc", survives_deaths=True)
    make, use = ranks.function(on=1, affinity_soft=True, n_retries_max=1), ranks.function(on=2)
    refs = []
    for _ in range(2):
        refs.append(ranks.call(make))
        ranks.returns(refs[-1], b"large", is_large=True)
    first = ranks.call(use, (refs[0],))
    ranks.jammed.append((1, 2))
    second = ranks.call(use, (refs[1],))
    assert ranks.sent(ArgumentsFollow)
    ranks.kill(1)
    assert ranks.running[first] == 2, "It has its argument."
    ranks.returns(first)
    while second not in ranks.running:
        ranks.returns(next(iter(ranks.running)), b"large", is_large=True)
    for task in list(ranks.running):
        ranks.returns(task, b"large", is_large=task != second)
    ranks.drop(0, *refs, first, second)
