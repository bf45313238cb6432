"""A script whose ranks are killed, one or two at a time, until the driver and another one are left."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np

import hpcfut
from hpcfut.exceptions import OwnerDiedError, WorkerCrashedError
from tests.mpi.support import WAIT_S, Gate, assert_nothing_left, on_rank, raised, until

N_LARGE = 300_000


@hpcfut.remote(num_cpus=0)
def process() -> int:
    return os.getpid()


@hpcfut.remote
def square(number: int) -> int:
    return number * number


@hpcfut.remote(max_retries=10)
def make(number: int, gate: Gate | None = None) -> Any:
    if gate is not None:
        gate.wait()
    return np.full(N_LARGE, number)


@hpcfut.remote(max_retries=10)
def double(array: Any, gate: Gate | None = None) -> Any:
    if gate is not None:
        gate.wait()
    return 2 * array


@hpcfut.remote(isolation="process")
def isolated_sum(array: Any) -> int:
    return int(array.sum())


@hpcfut.remote(max_retries=0)
def wait_once(gate: Gate) -> None:
    gate.wait()


@hpcfut.remote
def own() -> list[Any]:
    refs = [hpcfut.put(np.ones(N_LARGE)), square.remote(3)]
    hpcfut.wait(refs, num_returns=2)
    return refs


KEPT: list[Any] = []


@hpcfut.remote
def keep(refs: list[Any]) -> None:
    KEPT.extend(refs)


def near(function: Any, rank: int) -> Any:
    """The remote function on this rank, as long as that lives."""
    return function.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(rank, soft=True))


def living() -> list[int]:
    return [node["Rank"] for node in hpcfut.nodes() if node["Alive"]]


PIDS: list[int] = []


def kill(*ranks: int) -> None:
    """Kills ranks at once; goes on when this rank knows of it."""
    for rank in ranks:
        os.kill(PIDS[rank], signal.SIGKILL)

    def are_known() -> bool:
        hpcfut.wait([near(square, 0).remote(1)], timeout=WAIT_S)
        return not set(ranks) & set(living())

    until(are_known)


def who_executes_dies(retried: int, failed: int) -> None:
    with Gate() as gate:
        again, never = near(make, retried).remote(5, gate), on_rank(wait_once, failed).remote(gate)
        gate.until_arrived(2, [again, never])
        kill(retried, failed)
        gate.open()
        assert hpcfut.get(again, timeout=WAIT_S)[0] == 5
        error = raised(WorkerCrashedError, hpcfut.get, never, timeout=WAIT_S)
        assert f"rank {failed}" in str(error), error


def who_holds_dies(rank: int) -> None:
    arrays = [near(make, rank).remote(number) for number in range(5)]
    twice = [near(double, rank).remote(array) for array in arrays]
    hpcfut.wait(twice, num_returns=5, timeout=WAIT_S, fetch_local=False)
    lent = hpcfut.get(arrays[1], timeout=WAIT_S)
    kill(rank)
    # It is still read in place here, but a child process cannot map it any more.
    total = near(isolated_sum, 0).remote(arrays[1])
    assert hpcfut.get(total, timeout=WAIT_S) == lent.sum() == N_LARGE
    for number, array in enumerate(hpcfut.get(twice, timeout=WAIT_S)):
        assert (array == 2 * number).all()


def who_owns_and_borrows_dies(rank: int) -> None:
    mine = hpcfut.put(np.full(N_LARGE, 4))
    hpcfut.get(on_rank(keep, rank).remote([mine]), timeout=WAIT_S)
    theirs = hpcfut.get(on_rank(own, rank).remote(), timeout=WAIT_S)
    of_theirs = near(double, 1).remote(theirs[1])
    assert hpcfut.get(of_theirs, timeout=WAIT_S) == 18
    kill(rank)
    for ref in theirs:
        raised(OwnerDiedError, hpcfut.get, ref, timeout=WAIT_S)
    raised(OwnerDiedError, hpcfut.get, double.remote(theirs[0]), timeout=WAIT_S)
    assert hpcfut.get(of_theirs, timeout=WAIT_S) == 18
    assert hpcfut.get(mine, timeout=WAIT_S)[0] == 4


def one_of_many_dies(rank: int) -> None:
    arrays = [make.remote(number) for number in range(40)]
    sums = [double.remote(array) for array in arrays]
    hpcfut.wait(sums, num_returns=20, timeout=WAIT_S, fetch_local=False)
    kill(rank)
    for number, array in enumerate(hpcfut.get(sums, timeout=WAIT_S)):
        assert (array == 2 * number).all()


def another_dies_while_that_is_made_again(first: int, second: int) -> None:
    with Gate() as gate:
        array = near(make, first).remote(7)
        ref = near(double, first).remote(array)
        hpcfut.wait([ref], timeout=WAIT_S, fetch_local=False)
        del array
        blocked = near(double, second).remote(near(make, second).remote(8), gate)
        gate.until_arrived(1, [blocked])
        kill(first)
        watched = double.remote(ref)
        kill(second)
        gate.open()
        assert (hpcfut.get(watched, timeout=WAIT_S) == 28).all()
        assert (hpcfut.get(blocked, timeout=WAIT_S) == 16).all()


def main() -> None:
    hpcfut.init()
    assert len(living()) == 9
    PIDS.extend(hpcfut.get([on_rank(process, rank).remote() for rank in living()], timeout=WAIT_S))
    who_executes_dies(8, 7)
    who_holds_dies(6)
    who_owns_and_borrows_dies(5)
    one_of_many_dies(4)
    another_dies_while_that_is_made_again(3, 2)
    assert living() == [0, 1]
    assert_nothing_left(is_final=True)
    hpcfut.shutdown()
    hpcfut.init()
    assert hpcfut.get([square.remote(number) for number in range(50)], timeout=WAIT_S)[7] == 49
    assert living() == [0, 1]
    assert_nothing_left(is_final=True)
    print("it ends well")
    sys.exit(7)


if __name__ == "__main__":
    main()
