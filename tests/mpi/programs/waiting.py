"""Waiting: timeouts, partial results, several threads of a driver."""

from __future__ import annotations

import threading
import time
import unittest
from typing import Any

import hpcfut
from hpcfut.exceptions import GetTimeoutError, NotARefError
from tests.mpi.support import WAIT_S, Gate, on_rank, pass_gate, raised, same

Ref = hpcfut.ObjectRef[Any]


@hpcfut.remote
def fail() -> None:
    raise LookupError("failed")


def case_get_with_a_timeout() -> None:
    with Gate() as gate:
        ref = pass_gate.remote(gate, "through")
        started = time.monotonic()
        error = raised(GetTimeoutError, hpcfut.get, ref, timeout=0.05)
        assert time.monotonic() - started >= 0.05
        assert isinstance(error, TimeoutError)
        assert "0.05 s" in str(error)
        raised(GetTimeoutError, hpcfut.get, [same.remote(1), ref], timeout=0.05)
        gate.open()
        assert hpcfut.get(ref, timeout=WAIT_S) == "through"


def case_a_timeout_of_zero_asks_without_waiting() -> None:
    with Gate() as gate:
        ref, ready = pass_gate.remote(gate), hpcfut.put(5)
        for _ in range(3):
            raised(GetTimeoutError, hpcfut.get, ref, timeout=0)
            raised(GetTimeoutError, hpcfut.get, [ready, ref], timeout=0)
        assert hpcfut.get(ready, timeout=0) == 5
        assert hpcfut.wait([ref, ready], timeout=0) == ([ready], [ref])
        assert hpcfut.wait([ref], timeout=0) == ([], [ref])
        gate.open()
        assert hpcfut.get(ref) is None
        assert hpcfut.get([ref, ready], timeout=0) == [None, 5]


def case_a_timeout_of_zero_takes_what_is_ready() -> None:
    for value in (1, bytes(200_000)):
        ref = same.remote(value)
        assert hpcfut.wait([ref], timeout=WAIT_S) == ([ref], [])
        assert hpcfut.get(ref, timeout=0) == value


def case_wrong_timeouts() -> None:
    ref = hpcfut.put(1)
    for timeout in (-1, -0.001, float("nan"), "1"):
        assert "timeout" in str(raised(ValueError, hpcfut.get, ref, timeout=timeout))
        assert "timeout" in str(raised(ValueError, hpcfut.wait, [ref], timeout=timeout))
    assert hpcfut.get(ref, timeout=float("inf")) == 1
    assert hpcfut.get(same.remote(2), timeout=float("inf")) == 2


def case_wait_gives_what_is_ready_in_order() -> None:
    with Gate() as gate:
        slow = [pass_gate.remote(gate, number) for number in range(2)]
        fast = [hpcfut.put(number) for number in range(4)]
        refs = [slow[0], fast[0], fast[1], slow[1], fast[2], fast[3]]
        assert hpcfut.wait(refs, num_returns=4, timeout=WAIT_S) == (fast, slow)
        # No more than were asked for.
        ready, pending = hpcfut.wait(refs, num_returns=2, timeout=WAIT_S)
        assert ready == fast[:2]
        assert pending == [slow[0], slow[1], fast[2], fast[3]]
        # Fewer, if the time is over.
        assert hpcfut.wait(refs, num_returns=6, timeout=0.05) == (fast, slow)
        assert hpcfut.wait(slow, num_returns=2, timeout=0.05) == ([], slow)
        gate.open()
        assert hpcfut.wait(refs, num_returns=6, timeout=WAIT_S) == (refs, [])


def case_wait_without_options() -> None:
    refs = [same.remote(number) for number in range(5)]
    seen = []
    pending = refs
    while pending:
        ready, pending = hpcfut.wait(pending)
        assert len(ready) == 1
        seen += hpcfut.get(ready)
    assert sorted(seen) == list(range(5))


def case_a_failed_task_is_ready() -> None:
    ref = fail.remote()
    assert hpcfut.wait([ref], timeout=WAIT_S) == ([ref], [])
    dependent = same.remote(ref)
    assert hpcfut.wait([dependent], timeout=WAIT_S) == ([dependent], [])
    raised(LookupError, hpcfut.get, dependent)


def case_wait_that_does_not_fetch() -> None:
    ref = same.remote(bytes(300_000))
    assert hpcfut.wait([ref], fetch_local=False, timeout=WAIT_S) == ([ref], [])
    assert hpcfut.wait([ref], fetch_local=True, timeout=WAIT_S) == ([ref], [])
    assert len(hpcfut.get(ref)) == 300_000


def case_wrong_waits() -> None:
    ref, other = hpcfut.put(1), hpcfut.put(2)
    assert "twice" in str(raised(ValueError, hpcfut.wait, [ref, other, ref]))
    for num_returns in (0, -1, 3, 1.0, True, None):
        raised(ValueError, hpcfut.wait, [ref, other], num_returns=num_returns)
    for wrong in (ref, 5, None, [5], [ref, None], {"a": ref}):
        error = raised(NotARefError, hpcfut.wait, wrong)
        assert isinstance(error, TypeError)
        assert isinstance(error, ValueError)


def case_a_dependent_is_pending_until_its_argument_is_there() -> None:
    with Gate() as gate:
        first = pass_gate.remote(gate, 1)
        dependent = same.remote(first)
        assert hpcfut.wait([dependent], timeout=0.05) == ([], [dependent])
        gate.open()
        assert hpcfut.get(dependent, timeout=WAIT_S) == 1


def case_a_timeout_inside_a_task() -> None:
    @hpcfut.remote
    def impatient(gates: list[Gate]) -> tuple[bool, int, str]:
        ref = pass_gate.remote(gates[0], "through")
        try:
            hpcfut.get(ref, timeout=0.05)
            was_late = False
        except TimeoutError:
            was_late = True
        ready, _ = hpcfut.wait([ref], timeout=0)
        gates[0].open()
        return was_late, len(ready), hpcfut.get(ref)

    with Gate() as gate:
        assert hpcfut.get(impatient.remote([gate]), timeout=WAIT_S) == (True, 0, "through")


def case_tasks_run_while_a_driver_waits_with_a_timeout() -> None:
    refs = [same.remote(number) for number in range(20)]
    assert hpcfut.get(refs, timeout=WAIT_S) == list(range(20))
    refs = [same.remote(number) for number in range(20)]
    assert hpcfut.wait(refs, num_returns=20, timeout=WAIT_S) == (refs, [])


def case_all_ranks_work_at_once(n_ranks: int) -> None:
    with Gate() as gate:
        refs = [on_rank(pass_gate, rank).remote(gate, rank) for rank in range(n_ranks)]
        gate.until_arrived(n_ranks, refs)
        gate.open()
        assert hpcfut.get(refs, timeout=WAIT_S) == list(range(n_ranks))


def case_one_task_at_a_time_on_a_rank(n_ranks: int) -> None:
    rank = n_ranks - 1
    with Gate() as gate:
        first = on_rank(pass_gate, rank).remote(gate)
        gate.until_arrived(1, [first])
        second = on_rank(same, rank).remote(2)
        assert hpcfut.wait([second], timeout=0.1) == ([], [second])
        gate.open()
        assert hpcfut.get([first, second], timeout=WAIT_S) == [None, 2]


def case_a_blocked_task_gives_its_slot_back(n_ranks: int) -> None:
    rank = n_ranks - 1

    @hpcfut.remote
    def blocked(refs: list[Ref]) -> Any:
        return hpcfut.get(refs[0])

    with Gate() as gate, Gate() as other:
        first = on_rank(pass_gate, rank).remote(gate)
        gate.until_arrived(1, [first])
        # All three are queued on one rank, and the first to run waits for the last.
        elsewhere = on_rank(pass_gate, 0).remote(other, "late") if rank else None
        refs: list[Ref] = []
        target = on_rank(same, rank).remote(elsewhere)
        refs = [on_rank(blocked, rank).remote([target]) for _ in range(3)]
        gate.open()
        assert hpcfut.wait(refs, timeout=0.05) == ([], refs) if rank else True
        other.open()
        assert hpcfut.get(refs, timeout=WAIT_S) == ["late" if rank else None] * 3


def case_several_threads_of_a_driver() -> None:
    n_threads = 6
    outcomes: dict[int, Any] = {}

    def work(number: int) -> None:
        try:
            total = 0
            for step in range(15):
                refs = [same.remote(number * 1000 + step + part) for part in range(4)]
                ready, pending = hpcfut.wait(refs, num_returns=2, timeout=WAIT_S)
                total += sum(hpcfut.get([*ready, *pending], timeout=WAIT_S if step % 2 else None))
                total += hpcfut.get(hpcfut.put(step))
            outcomes[number] = total
        except BaseException as error:
            outcomes[number] = repr(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    expected = {number: sum(4 * (number * 1000 + step) + 6 + step for step in range(15)) for number in range(n_threads)}
    assert outcomes == expected


def case_threads_share_a_remote_function_and_a_ref() -> None:
    function = hpcfut.remote(lambda value, number: len(value) + number)
    shared = same.remote(bytes(200_000))
    start = threading.Barrier(4)
    got: list[int] = []

    def work(number: int) -> None:
        start.wait(WAIT_S)
        got.extend(hpcfut.get([function.remote(shared, number) for _ in range(5)]))

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(got) == sorted(200_000 + number for number in range(4) for _ in range(5))


def case_a_thread_waits_while_the_main_thread_computes() -> None:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(hpcfut.get(same.remote("done"))), daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert got == ["done"]


def case_threads_inside_a_task(n_ranks: int) -> None:
    if n_ranks == 1:
        raise unittest.SkipTest("A task that joins its threads keeps its slot, and there is no other rank.")

    @hpcfut.remote
    def fan_out(n: int) -> list[int]:
        got: list[int] = []
        threads = [
            threading.Thread(target=lambda number=number: got.append(hpcfut.get(same.remote(number))))
            for number in range(n)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        return sorted(got)

    assert hpcfut.get(fan_out.remote(4), timeout=WAIT_S) == [0, 1, 2, 3]
