"""``cancel``: of tasks that wait, run, are blocked or have ended, and of what they submitted."""

from __future__ import annotations

import itertools
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpcfut
from hpcfut.exceptions import GetTimeoutError, NotARefError, TaskCancelledError, TaskError
from tests.mpi.support import WAIT_S, Gate, assert_nothing_left, on_rank, pass_gate, raised, same

Ref = hpcfut.ObjectRef[Any]


@hpcfut.remote
def touch(path: Path) -> None:
    path.touch()


@hpcfut.remote
def spin(gate: Gate) -> None:
    gate.arrive()
    while True:
        pass


@hpcfut.remote
def get_what_is_there(gate: Gate) -> None:
    ref = hpcfut.put([0])
    gate.arrive()
    while True:
        # Nobody has to be waited for, and each time it is a value of its own.
        assert hpcfut.get(ref) is not hpcfut.get(ref)


@hpcfut.remote
def sleep(gate: Gate, seconds: float) -> None:
    gate.arrive()
    time.sleep(seconds)


@hpcfut.remote
def get_in_task(gate: Gate, arrivals: Gate) -> Any:
    ref = pass_gate.remote(gate)
    arrivals.arrive()
    # Without a timeout it could run, on its own stack, the task that it waits for, and not end before that.
    return hpcfut.get(ref, timeout=WAIT_S)


@hpcfut.remote
def get_for_long_in_task(gate: Gate, refs: list[Ref]) -> Any:
    gate.arrive()
    return hpcfut.get(refs)


@hpcfut.remote
def wait_in_task(gate: Gate, arrivals: Gate) -> Any:
    ref = pass_gate.remote(gate)
    arrivals.arrive()
    return hpcfut.wait([ref])


def cancelled(ref: Ref) -> TaskCancelledError:
    """What ``get`` raises, which must come soon."""
    return raised(TaskCancelledError, hpcfut.get, ref, timeout=WAIT_S)


def case_a_queued_task_never_runs(n_ranks: int) -> None:
    with Gate() as gate:
        path = gate.folder / "touched"
        busy = [on_rank(pass_gate, rank).remote(gate) for rank in range(n_ranks)]
        gate.until_arrived(n_ranks, busy)
        refs = [on_rank(touch, rank).remote(path) for rank in range(n_ranks) for _ in range(5)]
        kept = [on_rank(same, rank).remote(rank) for rank in range(n_ranks)]
        for ref in refs:
            hpcfut.cancel(ref)
        for ref in refs:
            assert "before it started" in str(cancelled(ref))
        assert not path.exists()
        gate.open()
        assert hpcfut.get(kept) == list(range(n_ranks))
    hpcfut.get(busy)


def case_a_task_that_waits_for_an_argument_never_runs() -> None:
    with Gate() as gate:
        first = pass_gate.remote(gate, 1)
        second = same.remote(first)
        third = same.remote(second)
        hpcfut.cancel(second)
        cancelled(second)
        # Its dependents end with it, and what it waited for goes on.
        cancelled(third)
        raised(GetTimeoutError, hpcfut.get, first, timeout=0)
        gate.open()
        assert hpcfut.get(first) == 1


def case_a_running_task_is_interrupted(n_ranks: int) -> None:
    for rank, code in itertools.product(range(n_ranks), (spin, get_what_is_there)):
        with Gate() as gate:
            ref = on_rank(code, rank).remote(gate)
            gate.until_arrived(1, [ref])
            hpcfut.cancel(ref)
            error = cancelled(ref)
            assert f"was cancelled on rank {rank}" in str(error)
            assert not isinstance(error, TaskError)
            # The rank goes on.
            assert hpcfut.get(on_rank(same, rank).remote(rank)) == rank


def case_a_sleep_on_the_main_thread_is_interrupted(n_ranks: int) -> None:
    for rank in range(1, n_ranks):
        with Gate() as gate:
            ref = on_rank(sleep, rank).remote(gate, 3 * WAIT_S)
            gate.until_arrived(1, [ref])
            hpcfut.cancel(ref)
            cancelled(ref)


def case_a_blocked_task_is_interrupted() -> None:
    for block in (get_in_task, wait_in_task):
        with Gate() as gate, Gate() as arrivals:
            ref = block.remote(gate, arrivals)
            arrivals.until_arrived(1, [ref])
            hpcfut.cancel(ref, recursive=False)
            cancelled(ref)


def case_a_task_that_is_blocked_for_long_is_interrupted(n_ranks: int) -> None:
    if n_ranks == 1:
        raise unittest.SkipTest("On one rank a task runs what it waits for on its own stack.")
    with Gate() as gate, Gate() as arrivals:
        first = on_rank(pass_gate, 0).remote(gate)
        gate.until_arrived(1, [first])
        ref = on_rank(get_for_long_in_task, 1).remote(arrivals, [first])
        arrivals.until_arrived(1, [ref])
        hpcfut.cancel(ref)
        cancelled(ref)


def case_a_task_that_has_ended_keeps_its_result() -> None:
    ref = same.remote(5)
    assert hpcfut.get(ref) == 5
    hpcfut.cancel(ref)
    assert hpcfut.get(ref) == 5
    put = hpcfut.put(6)
    hpcfut.cancel(put)
    assert hpcfut.get(put) == 6
    failed = hpcfut.remote(lambda: 1 / 0).remote()
    raised(ZeroDivisionError, hpcfut.get, failed)
    hpcfut.cancel(failed)
    raised(ZeroDivisionError, hpcfut.get, failed)


def submit_below(gate: Gate, arrivals: Gate, depth: int) -> list[Ref]:
    @hpcfut.remote
    def below(depth: int) -> list[Ref]:
        refs = [below.remote(depth - 1)] if depth else [pass_gate.remote(gate, "child")]
        hpcfut.wait(refs, num_returns=1, timeout=0.001)
        if not depth:
            arrivals.wait()
        return hpcfut.get(refs) and refs

    return [below.remote(depth)]


def case_what_a_task_submitted_is_cancelled_with_it() -> None:
    with Gate() as gate, Gate() as arrivals:
        (ref,) = submit_below(gate, arrivals, 2)
        arrivals.until_arrived(1, [ref])
        arrivals.open()
        hpcfut.cancel(ref)
        cancelled(ref)
        del ref
        # All of them end although the gate is closed: at the end of a case no table may have an entry.
        assert_nothing_left()


def case_what_a_task_submitted_may_be_kept() -> None:
    @hpcfut.remote
    def child(gate: Gate, box: Path) -> None:
        gate.wait()
        box.touch()

    @hpcfut.remote
    def parent(gate: Gate, box: Path) -> None:
        hpcfut.get(child.remote(gate, box), timeout=WAIT_S)

    with Gate() as gate:
        box = gate.folder.parent / f"{gate.folder.name}-box"
        ref = parent.remote(gate, box)
        gate.until_arrived(1, [ref])
        hpcfut.cancel(ref, recursive=False)
        cancelled(ref)
        assert not box.exists()
        gate.open()
        deadline = time.monotonic() + WAIT_S
        while not box.exists():
            assert time.monotonic() < deadline
            hpcfut.wait([same.remote(0)], timeout=0.01)
        box.unlink()


def case_a_cancelled_task_is_not_tried_again() -> None:
    @hpcfut.remote(max_retries=5, retry_exceptions=True)
    def count(gate: Gate, path: Path) -> None:
        with path.open("a") as file:
            file.write("x")
        gate.arrive()
        while True:
            pass

    with Gate() as gate:
        path = gate.folder / "count"
        ref = count.remote(gate, path)
        gate.until_arrived(1, [ref])
        hpcfut.cancel(ref)
        cancelled(ref)
        assert path.read_text() == "x"


def case_a_task_that_catches_it_goes_on() -> None:
    @hpcfut.remote
    def stubborn(gate: Gate) -> Any:
        gate.arrive()
        try:
            while True:
                pass
        except TaskCancelledError:
            return hpcfut.get(same.remote("went on"), timeout=WAIT_S)

    with Gate() as gate:
        ref = stubborn.remote(gate)
        gate.until_arrived(1, [ref])
        hpcfut.cancel(ref, recursive=False)
        assert hpcfut.get(ref, timeout=WAIT_S) == "went on"


def case_who_borrows_a_ref_can_cancel(n_ranks: int) -> None:
    if n_ranks == 1:
        raise unittest.SkipTest("On one rank nobody borrows.")

    @hpcfut.remote
    def cancel(refs: list[Ref]) -> None:
        hpcfut.cancel(refs[0])

    with Gate() as gate:
        ref = on_rank(spin, 0).remote(gate)
        gate.until_arrived(1, [ref])
        done = on_rank(cancel, n_ranks - 1).remote([ref])
        cancelled(ref)
        hpcfut.get(done)


def case_a_parent_may_catch_that_its_child_was_cancelled() -> None:
    @hpcfut.remote
    def parent(gate: Gate, *, is_catching: bool) -> str:
        ref = spin.remote(gate)
        hpcfut.wait([ref], timeout=0.01)
        hpcfut.cancel(ref)
        try:
            hpcfut.get(ref)
        except TaskCancelledError as error:
            if is_catching:
                return str(error)
            raise
        return "nothing was raised"

    with Gate() as gate:
        assert "cancelled" in hpcfut.get(parent.remote(gate, is_catching=True), timeout=WAIT_S)
        error = raised(TaskError, hpcfut.get, parent.remote(gate, is_catching=False), timeout=WAIT_S)
        # The parent raised it; it was not cancelled itself.
        assert isinstance(error, TaskCancelledError)
        assert "parent raised on rank" in str(error)


def case_cancelling_twice_is_no_more_than_once() -> None:
    with Gate() as gate:
        ref = spin.remote(gate)
        gate.until_arrived(1, [ref])
        for _ in range(3):
            hpcfut.cancel(ref)
        cancelled(ref)
        hpcfut.cancel(ref)
        cancelled(ref)


def case_cancelling_never_strikes_inside_hpcfut(n_ranks: int) -> None:
    @hpcfut.remote
    def use(gate: Gate, action: Callable[[int], object]) -> None:
        gate.arrive()
        number = 0
        while True:
            action(number)
            number += 1

    actions: list[Callable[[int], object]] = [
        lambda number: hpcfut.put(number),
        lambda number: hpcfut.put(bytes(200_000)),
        lambda number: hpcfut.get(hpcfut.put([number])),
        lambda number: [same.remote(number) for _ in range(3)],
        lambda number: hpcfut.get(same.remote(number)),
        lambda number: hpcfut.wait([same.remote(number)], timeout=0),
    ]
    for rank in (0, n_ranks - 1):
        for turn in range(2 * len(actions)):
            with Gate() as gate:
                ref = on_rank(use, rank).remote(gate, actions[turn % len(actions)])
                gate.until_arrived(1, [ref])
                hpcfut.wait([ref], timeout=0.003 * (turn // len(actions)))
                hpcfut.cancel(ref)
                cancelled(ref)


def case_tasks_that_end_as_they_are_cancelled() -> None:
    refs = []
    for number in range(300):
        refs.append(same.remote(number))
        if number >= 10:
            hpcfut.cancel(refs[number - number % 10])
    for number, ref in enumerate(refs):
        try:
            assert hpcfut.get(ref, timeout=WAIT_S) == number
        except TaskCancelledError:
            assert number % 10 == 0


def case_cancel_of_what_is_no_ref() -> None:
    for wrong in (1, "text", None, [same.remote(1)], same):
        error = raised(NotARefError, hpcfut.cancel, wrong)
        assert isinstance(error, TypeError)
        assert isinstance(error, ValueError)


def case_force_needs_a_process_of_its_own() -> None:
    with Gate() as gate:
        ref = pass_gate.remote(gate, 1)
        assert 'isolation="process"' in str(raised(ValueError, hpcfut.cancel, ref, force=True))
        gate.open()
        assert hpcfut.get(ref) == 1
    hpcfut.cancel(ref, force=True)  # It has ended.
