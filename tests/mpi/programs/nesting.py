"""Tasks that submit tasks, and wait for them, to any depth."""

from __future__ import annotations

from typing import Any

import hpcfut
from tests.mpi.support import on_rank


@hpcfut.remote
def one() -> int:
    return 1


@hpcfut.remote
def double(number: int) -> int:
    return 2 * number


@hpcfut.remote
def fib(n: int) -> int:
    if n < 2:
        return n
    return sum(hpcfut.get([fib.remote(n - 1), fib.remote(n - 2)]))


@hpcfut.remote
def fib_one_by_one(n: int) -> int:
    if n < 2:
        return n
    larger, smaller = fib_one_by_one.remote(n - 1), fib_one_by_one.remote(n - 2)
    return int(hpcfut.get(larger)) + int(hpcfut.get(smaller))


@hpcfut.remote
def descend(depth: int) -> int:
    return 0 if not depth else 1 + int(hpcfut.get(descend.remote(depth - 1)))


@hpcfut.remote
def descend_with_wait(depth: int) -> int:
    if not depth:
        return 0
    ready, pending = hpcfut.wait([descend_with_wait.remote(depth - 1)])
    assert not pending
    return 1 + int(hpcfut.get(ready[0]))


@hpcfut.remote
def descend_round(depth: int, n_ranks: int) -> list[int]:
    """Each task waits on one rank for the next, on the next rank."""
    here = hpcfut.get_runtime_context().get_rank()
    if not depth:
        return [here]
    return [here, *hpcfut.get(on_rank(descend_round, depth % n_ranks).remote(depth - 1, n_ranks))]


@hpcfut.remote
def total_of(n: int) -> int:
    return sum(hpcfut.get([double.remote(number) for number in range(n)]))


@hpcfut.remote
def tree(depth: int, breadth: int) -> int:
    if not depth:
        return 1
    return 1 + sum(hpcfut.get([tree.remote(depth - 1, breadth) for _ in range(breadth)]))


def case_fibonacci() -> None:
    assert hpcfut.get(fib.remote(11)) == 89
    assert hpcfut.get(fib_one_by_one.remote(9)) == 34


def case_a_chain_of_thirty() -> None:
    assert hpcfut.get(descend.remote(30)) == 30
    assert hpcfut.get(descend_with_wait.remote(30)) == 30


def case_a_chain_deeper_than_any_stack_of_nested_tasks() -> None:
    assert hpcfut.get(descend.remote(150)) == 150


def case_chains_side_by_side() -> None:
    assert hpcfut.get([descend.remote(12) for _ in range(10)]) == [12] * 10


def case_a_chain_round_the_ranks(n_ranks: int) -> None:
    expected = [(number + 1) % n_ranks for number in range(20, -1, -1)]
    expected[0] = 0
    assert hpcfut.get(on_rank(descend_round, 0).remote(20, n_ranks)) == expected


def case_a_breadth_of_two_hundred() -> None:
    assert hpcfut.get(total_of.remote(200)) == 39_800
    assert hpcfut.get([total_of.remote(50) for _ in range(4)]) == [2450] * 4


def case_a_tree() -> None:
    assert hpcfut.get(tree.remote(3, 5)) == 156


def case_wait_inside_tasks() -> None:
    @hpcfut.remote
    def first_of(n: int) -> tuple[int, int, int]:
        refs = [double.remote(number) for number in range(n)]
        ready, pending = hpcfut.wait(refs, num_returns=n // 2)
        rest, none = hpcfut.wait(pending, num_returns=len(pending))
        assert not none
        return len(ready), len(rest), sum(hpcfut.get(refs))

    assert hpcfut.get([first_of.remote(20) for _ in range(3)]) == [(10, 10, 380)] * 3


def case_every_rank_waits_for_every_other(n_ranks: int) -> None:
    @hpcfut.remote
    def ask_all() -> int:
        return sum(hpcfut.get([on_rank(one, rank).remote() for rank in range(n_ranks)]))

    refs = [on_rank(ask_all, rank).remote() for rank in range(n_ranks) for _ in range(5)]
    assert hpcfut.get(refs) == [n_ranks] * 5 * n_ranks


def case_put_and_get_inside_a_task() -> None:
    @hpcfut.remote
    def round_trip(value: Any) -> Any:
        ref = hpcfut.put(value)
        return hpcfut.get([ref, ref])

    assert hpcfut.get(round_trip.remote({"a": 1})) == [{"a": 1}, {"a": 1}]


def case_a_task_that_waits_for_what_its_driver_waits_for_too() -> None:
    @hpcfut.remote
    def both(refs: list[hpcfut.ObjectRef[int]]) -> int:
        return int(hpcfut.get(refs[0])) + 1

    shared = descend.remote(5)
    refs = [both.remote([shared]) for _ in range(8)]
    assert hpcfut.get(shared) == 5
    assert hpcfut.get(refs) == [6] * 8


def case_submitting_without_waiting() -> None:
    @hpcfut.remote
    def start(depth: int) -> Any:
        return start.remote(depth - 1) if depth else "end"

    ref = start.remote(20)
    for _ in range(20):
        ref = hpcfut.get(ref)
    assert hpcfut.get(ref) == "end"
