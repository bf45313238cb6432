"""``isolation="process"``: what user code may do to its process, and what it has of hpcfut there."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import hpcfut
from hpcfut.exceptions import OutOfMemoryError, RayError, TaskCancelledError, TaskError, WorkerCrashedError
from tests.mpi.support import WAIT_S, Gate, assert_nothing_left, on_rank, own_session, pass_gate, raised, same, until

MIB = 1 << 20
Ref = hpcfut.ObjectRef[Any]


def some(n_ranks: int) -> list[int]:
    """Each rank has a process of its own that makes the others, which takes a while to start: these are enough."""
    return sorted({0, n_ranks - 1})


@hpcfut.remote(isolation="process")
def pids() -> tuple[int, int]:
    """Of this process, and of the one above the one that made it, which is the rank."""
    parent = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1]
    return os.getpid(), int(parent)


@hpcfut.remote
def pid_of_rank() -> int:
    return os.getpid()


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(3)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def close_everything() -> None:
    os.closerange(3, 1000)


@hpcfut.remote(isolation="process")
def fail(how: Any, marks: Path) -> None:
    """Leave a mark for each attempt, and end this process."""
    (marks / f"{os.getpid()}-{time.monotonic_ns()}").touch()
    # What the kernel and Python say of it is for people, and not for the log of the tests.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    how()


def case_the_code_runs_in_a_child_of_the_rank(n_ranks: int) -> None:
    for rank in some(n_ranks):
        own = hpcfut.get(on_rank(pid_of_rank, rank).remote())
        first = hpcfut.get(on_rank(pids, rank).remote())
        assert first[0] != own
        assert first[1] == own
        assert hpcfut.get(on_rank(pids, rank).remote()) == first, "It is used again."


def case_whatever_ends_the_process_costs_this_task_alone(n_ranks: int) -> None:
    for rank in (n_ranks - 1,):
        for how, said in ((crash, "SIGSEGV"), (leave, "status is 3"), (kill, "SIGKILL")):
            with Gate() as gate:
                failing = on_rank(fail, rank, max_retries=1)
                error = raised(WorkerCrashedError, hpcfut.get, failing.remote(how, gate.folder), timeout=WAIT_S)
                assert f"Task fail on rank {rank}" in str(error)
                assert said in str(error)
                assert isinstance(error, RayError)
                assert not isinstance(error, TaskError)
                assert len(list(gate.folder.glob("*-*"))) == 2, "It was tried again, as often as was allowed."
            assert hpcfut.get(on_rank(same, rank).remote(rank)) == rank


def case_a_process_that_closes_its_connection_has_crashed() -> None:
    with Gate() as gate:
        ref = on_rank(fail, 0, max_retries=0).remote(close_everything, gate.folder)
        raised(WorkerCrashedError, hpcfut.get, ref, timeout=WAIT_S)


@hpcfut.remote(isolation="process")
def wait_for_gate(gate: Gate, pids: Path, nbytes: int = 0) -> Any:
    """Wait for a task on the same rank; meanwhile a thread takes memory as soon as that task has begun."""

    def take() -> None:
        until(lambda: any(gate.folder.glob("arrived-*")))
        vars(sys)["hpcfut_test_taken"] = b"1" * nbytes

    (pids / str(os.getpid())).touch()
    if nbytes:
        threading.Thread(target=take, daemon=True).start()
    rank = int(hpcfut.get_runtime_context().get_node_id())
    return hpcfut.get(on_rank(pass_gate, rank).remote(gate, os.getpid()))


def case_the_end_of_the_process_ends_what_it_waits_for(n_ranks: int) -> None:
    for rank in some(n_ranks):
        with Gate() as gate, Gate() as pids:
            ref = on_rank(wait_for_gate, rank, max_retries=0).remote(gate, pids.folder)
            # The rank waits in the name of the process, or what that waits for could not have begun there.
            gate.until_arrived(1, [ref])
            (pid,) = [int(path.name) for path in pids.folder.glob("[0-9]*")]
            os.kill(pid, signal.SIGKILL)
            # Earlier than the gate lets go of whoever waits too long.
            assert "SIGKILL" in str(raised(WorkerCrashedError, hpcfut.get, ref, timeout=WAIT_S / 2))


def case_memory_is_watched_while_the_code_waits() -> None:
    with Gate() as gate, Gate() as pids:
        limited = on_rank(wait_for_gate, 0, memory=100 * MIB, max_retries=0)
        ref = limited.remote(gate, pids.folder, 150 * MIB)
        assert "100.0 MiB" in str(raised(OutOfMemoryError, hpcfut.get, ref, timeout=WAIT_S / 2))


def case_a_retry_may_succeed() -> None:
    @hpcfut.remote(isolation="process")
    def at_third(marks: Path) -> int:
        (marks / f"attempt-{os.getpid()}").touch()
        n = len(list(marks.glob("attempt-*")))
        if n < 3:
            os._exit(0)
        return n

    with Gate() as gate:
        assert hpcfut.get(on_rank(at_third, 0).remote(gate.folder), timeout=WAIT_S) == 3


def case_an_exception_is_the_task_s_own() -> None:
    @hpcfut.remote(isolation="process", retry_exceptions=[KeyError], max_retries=1)
    def fail_with(error: BaseException, marks: Path) -> None:
        (marks / f"attempt-{time.monotonic_ns()}").touch()
        raise error

    for error, n_attempts in ((ValueError("this"), 1), (KeyError("that"), 2), (SystemExit(4), 1)):
        with Gate() as gate:
            ref = fail_with.remote(error, gate.folder)
            told = raised(TaskError, hpcfut.get, ref, timeout=WAIT_S)
            assert type(told.cause) is type(error)
            assert told.cause.args == error.args
            assert "in fail_with" in str(told)
            assert "hpcfut/runtime" not in str(told), "Only the user's own frames are told."
            assert len(list(gate.folder.glob("attempt-*"))) == n_attempts


def case_more_memory_than_asked_for_ends_it(n_ranks: int) -> None:
    @hpcfut.remote(isolation="process", memory=100 * MIB, max_retries=1)
    def collect(marks: Path, n: int) -> int:
        (marks / f"attempt-{os.getpid()}").touch()
        found = bytearray(n * MIB)
        if n > 100:
            time.sleep(2 * WAIT_S)
        return len(found)

    for rank in some(n_ranks):
        with Gate() as gate:
            here = on_rank(collect, rank)
            error = raised(OutOfMemoryError, hpcfut.get, here.remote(gate.folder, 150), timeout=WAIT_S)
            assert "its option memory is 100.0 MiB" in str(error)
            assert len(list(gate.folder.glob("attempt-*"))) == 2
            assert hpcfut.get(here.remote(gate.folder, 10)) == 10 * MIB


def case_memory_that_earlier_tasks_have_left_is_not_counted() -> None:
    @hpcfut.remote(isolation="process", memory=100 * MIB, max_retries=0)
    def keep() -> int:
        vars(sys).setdefault("hpcfut_test_kept", []).append(b"1" * (40 * MIB))
        time.sleep(0.1)  # The memory is looked at meanwhile.
        return os.getpid()

    here = on_rank(keep, 0)
    assert len({hpcfut.get(here.remote(), timeout=WAIT_S) for _ in range(5)}) == 1


def case_arguments_in_the_store_are_no_memory_of_the_task(n_ranks: int) -> None:
    @hpcfut.remote(isolation="process", memory=40 * MIB, max_retries=0)
    def total(array: Any) -> float:
        value = float(array.sum())
        time.sleep(0.1)  # The memory is looked at meanwhile.
        return value

    ref = hpcfut.put(np.ones(8 * MIB))
    for rank in some(n_ranks):
        assert hpcfut.get(on_rank(total, rank).remote(ref)) == 8 * MIB


def case_max_calls_changes_the_process(n_ranks: int) -> None:
    limited = pids.options(max_calls=2)
    for rank in some(n_ranks):
        here = on_rank(limited, rank)
        seen = [hpcfut.get(here.remote())[0] for _ in range(6)]
        assert seen[0::2] == seen[1::2]
        assert len(set(seen)) == 3


def case_large_values_are_viewed_and_come_back(n_ranks: int) -> None:
    @hpcfut.remote(isolation="process")
    def double(array: Any, small: list[int]) -> tuple[Any, bool, list[int], bytes]:
        return array * 2, array.flags.writeable, small, b"x" * MIB

    array = np.arange(MIB, dtype="i8")
    ref = hpcfut.put(array)
    for rank in some(n_ranks):
        here = on_rank(double, rank)
        for argument in (ref, array, on_rank(same, rank).remote(array)):
            doubled, is_writeable, small, text = hpcfut.get(here.remote(argument, [1, 2]))
            assert np.array_equal(doubled, 2 * array)
            assert not is_writeable
            assert (small, text) == ([1, 2], b"x" * MIB)


def case_several_results_and_none() -> None:
    @hpcfut.remote(isolation="process", num_returns=3)
    def three(n: int) -> list[Any]:
        return [np.full(MIB, 7, "u1"), n, np.full(MIB, 8, "u1")][:n]

    first, second, third = hpcfut.get(three.remote(3))
    assert (int(first.sum()), second, int(third.sum())) == (7 * MIB, 3, 8 * MIB)
    wrong = raised(ValueError, hpcfut.get, three.remote(2)[0])
    assert "num_returns=3, but it returned 2 values" in str(wrong)
    assert same.options(isolation="process", num_returns=0).remote(1) is None


def case_a_view_that_the_process_keeps_stays_as_it_is() -> None:
    @hpcfut.remote(isolation="process")
    def keep(array: Any) -> tuple[int, float]:
        kept = vars(sys).setdefault("hpcfut_test_kept", [])
        kept.append(array)
        return os.getpid(), float(sum(each[0] for each in kept))

    here = on_rank(keep, 0)
    pid, _ = hpcfut.get(here.remote(np.full(MIB, 1.0)))
    # Room for these is found where nothing is kept.
    for number in range(2, 5):
        again, total = hpcfut.get(here.remote(np.full(MIB, float(number))))
        assert again == pid
        assert total == sum(range(1, number + 1))
    # The process ends when the function is forgotten, and what it has kept goes with it.


def case_the_code_may_use_hpcfut(n_ranks: int) -> None:
    @hpcfut.remote
    def add(a: Any, b: Any) -> Any:
        return a + b

    @hpcfut.remote(isolation="process")
    def use(refs: list[Ref], rank: int, gate: Gate) -> list[Any]:
        one = hpcfut.get(refs[0])
        local = hpcfut.remote(lambda value: value + one)
        big = hpcfut.put(np.ones(MIB))
        summed = add.remote(big, np.ones(MIB))
        ready, others = hpcfut.wait([summed, refs[0]], num_returns=2)
        assert len(ready) == 2
        assert not others
        draft = hpcfut.empty(3, "i8")
        draft[:] = 5
        late = pass_gate.remote(gate, "late")
        raised(hpcfut.exceptions.GetTimeoutError, hpcfut.get, late, timeout=0.01)
        gate.open()
        assert hpcfut.get(late) == "late"
        raised(ZeroDivisionError, hpcfut.get, hpcfut.remote(lambda: 1 // 0).remote())
        assert hpcfut.get_runtime_context().get_node_id() == str(rank)
        return [
            *hpcfut.get([local.remote(2), add.remote(refs[0], 1)]),
            float(hpcfut.get(summed).sum()),
            hpcfut.get(hpcfut.remote(isolation="process")(os.getpid).remote()) != os.getpid(),
            big,
            refs[0],
            draft,
        ]

    refs = [hpcfut.put(1)]
    for rank in some(n_ranks):
        with Gate() as gate:
            ref = on_rank(use, rank).remote(refs, rank, gate)
            *values, is_other, big, given, draft = hpcfut.get(ref, timeout=WAIT_S)
            assert values == [3, 2, 2 * MIB]
            assert is_other
            assert float(hpcfut.get(big).sum()) == MIB
            assert given == refs[0]
            assert draft.tolist() == [5] * 3


def case_what_it_may_not_use_is_said() -> None:
    @hpcfut.remote(isolation="process")
    def use() -> None:
        next(hpcfut.as_completed([hpcfut.put(1)]))

    assert 'isolation="process"' in str(raised(hpcfut.exceptions.HpcfutError, hpcfut.get, use.remote()))


def case_mpi_cannot_be_imported(n_ranks: int) -> None:
    @hpcfut.remote(isolation="process")
    def use() -> Any:
        from mpi4py import MPI

        return MPI.COMM_WORLD.size

    for rank in some(n_ranks):
        assert "no part of the MPI job" in str(raised(ImportError, hpcfut.get, on_rank(use, rank).remote()))


def case_refs_and_functions_that_the_process_keeps_go_with_it(n_ranks: int) -> None:
    @hpcfut.remote(isolation="process")
    def keep(refs: list[Ref]) -> int:
        kept = vars(sys).setdefault("hpcfut_test_kept_refs", [])
        kept.extend(refs)
        kept.append(hpcfut.remote(lambda: 1).remote())
        return int(sum(hpcfut.get(kept)))

    for rank in some(n_ranks):
        here = on_rank(keep, rank)
        assert hpcfut.get(here.remote([hpcfut.put(10)])) == 11
        assert hpcfut.get(here.remote([hpcfut.put(20)])) == 32
        del here
    del keep
    assert_nothing_left()


def case_environment_variables_and_threads(n_ranks: int) -> None:
    name = "HPCFUT_TEST_OF_ISOLATION"

    @hpcfut.remote(isolation="process")
    def seen() -> tuple[str | None, str | None, bool]:
        is_rank = any(variable.startswith(("PMI", "OMPI_COMM", "PMIX")) for variable in os.environ)
        return os.environ.get(name), os.environ.get("OMP_NUM_THREADS"), is_rank

    get_variable = hpcfut.remote(os.getenv)
    n_threads = [hpcfut.get(on_rank(get_variable, rank).remote("OMP_NUM_THREADS")) for rank in range(n_ranks)]
    for rank in some(n_ranks):
        setting = on_rank(seen, rank, runtime_env={"env_vars": {name: "set"}})
        assert hpcfut.get(setting.remote()) == ("set", n_threads[rank], False)
        assert hpcfut.get(on_rank(seen, rank).remote()) == (None, n_threads[rank], False)


@hpcfut.remote(isolation="process")
def spin(gate: Gate) -> None:
    gate.arrive()
    while True:
        pass


@hpcfut.remote(isolation="process")
def sleep(gate: Gate) -> None:
    gate.arrive()
    time.sleep(3 * WAIT_S)


@hpcfut.remote(isolation="process")
def catch_all(gate: Gate) -> None:
    while True:
        try:
            gate.arrive()
            time.sleep(3 * WAIT_S)
        except BaseException:  # And once more.
            continue


@hpcfut.remote(isolation="process")
def get_in_task(gate: Gate, arrivals: Gate) -> Any:
    ref = pass_gate.remote(gate)
    arrivals.arrive()
    return hpcfut.get(ref, timeout=3 * WAIT_S)


def case_cancelling_interrupts_the_process(n_ranks: int) -> None:
    for rank in some(n_ranks):
        for code in (spin, sleep):
            with Gate() as gate:
                ref = on_rank(code, rank).remote(gate)
                gate.until_arrived(1, [ref])
                hpcfut.cancel(ref)
                error = raised(TaskCancelledError, hpcfut.get, ref, timeout=WAIT_S)
                assert f"was cancelled on rank {rank}" in str(error)


def case_cancelling_interrupts_a_get_in_the_process() -> None:
    with Gate() as gate, Gate() as arrivals:
        ref = get_in_task.remote(gate, arrivals)
        arrivals.until_arrived(1, [ref])
        hpcfut.cancel(ref, recursive=False)
        raised(TaskCancelledError, hpcfut.get, ref, timeout=WAIT_S)


def case_a_cancellation_comes_while_the_process_starts() -> None:
    @hpcfut.remote(isolation="process")
    def work() -> None:
        time.sleep(3 * WAIT_S)

    # The core and the child are met by it at different moments.
    for pause_s in (0.0, 0.003, 0.02):
        with own_session():  # Which has no process yet.
            ref = on_rank(work, 0).remote()
            hpcfut.wait([ref], timeout=pause_s)
            hpcfut.cancel(ref)
            raised(TaskCancelledError, hpcfut.get, ref, timeout=WAIT_S)


def case_force_ends_the_process(n_ranks: int) -> None:
    for rank in some(n_ranks):
        with Gate() as gate:
            ref = on_rank(catch_all, rank, max_retries=3).remote(gate)
            gate.until_arrived(1, [ref])
            hpcfut.cancel(ref)
            gate.until_arrived(2, [ref])  # It goes on.
            hpcfut.cancel(ref, force=True)
            raised(TaskCancelledError, hpcfut.get, ref, timeout=WAIT_S)
            hpcfut.cancel(ref, force=True)  # It has ended.
    with Gate() as gate:
        ref = pass_gate.remote(gate)
        assert 'isolation="process"' in str(raised(ValueError, hpcfut.cancel, ref, force=True))
        gate.open()
        hpcfut.get(ref)


@hpcfut.remote
def kill_and_wait(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")


def case_a_process_that_is_killed_without_work_costs_nothing(n_ranks: int) -> None:
    for rank in some(n_ranks):
        here = on_rank(pids, rank, max_retries=0)
        pid, _ = hpcfut.get(here.remote())
        hpcfut.get(on_rank(kill_and_wait, rank).remote(pid))
        assert hpcfut.get(here.remote())[0] != pid


def case_a_fork_server_that_is_killed_is_made_again(n_ranks: int) -> None:
    @hpcfut.remote(isolation="process")
    def kill_server() -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(WAIT_S)

    for rank in some(n_ranks):
        ref = on_rank(kill_server, rank, max_retries=0).remote()
        raised(WorkerCrashedError, hpcfut.get, ref, timeout=WAIT_S)
        assert hpcfut.get(on_rank(pids, rank).remote())


def case_options_that_do_not_fit_are_refused() -> None:
    def generate() -> Iterator[int]:
        yield 1

    assert "generator" in str(raised(ValueError, hpcfut.remote(isolation="process"), generate))
    for options in ({"isolation": "thread"}, {"max_calls": 3}, {"isolation": "process", "max_calls": -1}):
        raised(ValueError, same.options, **options)


def case_a_copy_that_the_code_forks_does_no_harm() -> None:
    @hpcfut.remote(isolation="process")
    def fork() -> int:
        if os.fork() == 0:
            return 1
        return 2 * os.waitstatus_to_exitcode(os.wait()[1])

    assert hpcfut.get(fork.remote(), timeout=WAIT_S) == 0


def case_a_later_session_has_processes_of_its_own(n_ranks: int) -> None:
    @hpcfut.remote(isolation="process")
    def total(array: Any) -> tuple[int, int]:
        return int(array.sum()), os.getpid()

    here = on_rank(total, n_ranks - 1)
    before, old = hpcfut.get(here.remote(np.ones(MIB, "u1")))
    with own_session():
        after, new = hpcfut.get(here.remote(hpcfut.put(np.ones(MIB, "u1"))))
        assert before == after == MIB
        assert old != new


def case_a_session_ends_although_the_code_goes_on(n_ranks: int) -> None:
    with Gate() as gate, own_session():
        ref = on_rank(catch_all, n_ranks - 1).remote(gate)
        gate.until_arrived(1, [ref])
    # The job goes on as well.
    with own_session():
        assert hpcfut.get(on_rank(same, n_ranks - 1).remote(1)) == 1


def case_a_copy_finds_nothing_of_hpcfut() -> None:
    @hpcfut.remote(isolation="process")
    def fork(ref: list[Ref]) -> int:
        if os.fork() == 0:
            try:
                hpcfut.get(ref)
            except RuntimeError:
                os._exit(7)
            os._exit(8)
        return os.waitstatus_to_exitcode(os.wait()[1])

    assert hpcfut.get(fork.remote([hpcfut.put(1)]), timeout=WAIT_S) == 7


def case_threads_of_the_code_may_use_hpcfut() -> None:
    @hpcfut.remote(isolation="process")
    def use(n: int) -> list[Any]:
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda number=number: found.append(hpcfut.get(same.remote(number))))
            for number in range(n)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(found)

    assert hpcfut.get(use.remote(5), timeout=WAIT_S) == list(range(5))


def case_a_thread_that_outlives_its_task_harms_no_other() -> None:
    def put_often(n: int) -> None:
        for number in range(n):
            with suppress(hpcfut.exceptions.HpcfutError):  # There may be no task at the moment.
                hpcfut.put([number] * 10)

    @hpcfut.remote(isolation="process")
    def leave_thread(n: int) -> int:
        threading.Thread(target=put_often, args=(200,)).start()
        return n

    here = on_rank(leave_thread, 0)
    for number in range(20):
        assert hpcfut.get(here.remote(number), timeout=WAIT_S) == number


@hpcfut.remote(isolation="process", max_retries=0)
def leave_a_copy(pid_file: Path) -> None:
    copy = os.fork()
    if copy == 0:
        time.sleep(3 * WAIT_S)
    pid_file.write_text(str(copy))
    os.kill(os.getpid(), signal.SIGKILL)


def case_a_copy_that_outlives_the_process_hides_no_crash() -> None:
    with Gate() as gate:
        crashed = leave_a_copy.remote(gate.folder / "copy")
        try:
            raised(WorkerCrashedError, hpcfut.get, crashed, timeout=WAIT_S)
        finally:
            os.kill(int((gate.folder / "copy").read_text()), signal.SIGKILL)


class Bomb:
    """Ends its process when it goes."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.values = np.ones(MIB, "u1")

    def __reduce__(self) -> Any:
        return np.copy, (self.values,)

    def __del__(self) -> None:
        os._exit(3)


def case_a_process_that_ends_with_its_results_told_costs_nothing() -> None:
    @hpcfut.remote(isolation="process", max_retries=0)
    def make() -> Any:
        return Bomb()

    ref = on_rank(make, 0).remote()
    assert int(hpcfut.get(ref, timeout=WAIT_S).sum()) == MIB
    assert hpcfut.get(on_rank(pids, 0).remote(), timeout=WAIT_S)
    del ref, make
    assert_nothing_left()


def case_many_calls_at_once() -> None:
    square = hpcfut.remote(isolation="process")(lambda x: x * x)
    assert hpcfut.get([square.remote(x) for x in range(30)], timeout=2 * WAIT_S) == [x * x for x in range(30)]


def case_programs_that_the_code_starts_die_of_ctrl_c() -> None:
    if not Path("/bin/sh").exists():
        raise unittest.SkipTest("There is no /bin/sh.")

    @hpcfut.remote(isolation="process")
    def run() -> int:
        return subprocess.run(["/bin/sh", "-c", "kill -INT $$; exit 0"], check=False).returncode

    assert hpcfut.get(run.remote(), timeout=WAIT_S) == -signal.SIGINT


def case_an_isolated_task_cannot_call_actors() -> None:
    class Sleeper:
        def call(self) -> None: ...

    def call(actors: list[Any]) -> None:
        actors[0].call.remote()

    isolated: Any = hpcfut.remote(isolation="process", max_retries=0)(call)
    actor = hpcfut.remote(Sleeper).remote()
    assert "is not there in a task with isolation" in str(raised(RayError, hpcfut.get, isolated.remote([actor])))
