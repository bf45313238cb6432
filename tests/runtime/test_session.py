"""The public API on one rank, in this process: loopback edges, no MPI."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpcfut
from hpcfut.api import session
from hpcfut.api.remote import N_VARIANTS_MAX
from hpcfut.runtime.job import Job
from hpcfut.runtime.runtime import Runtime


@pytest.fixture(autouse=True)
def one_session() -> Iterator[None]:
    hpcfut.init()
    runtime = session.current()
    yield
    gc.collect()
    if hpcfut.is_initialized() and session.current() is runtime:
        assert hpcfut.get(hpcfut.put(0)) == 0  # One turn, so that all refs dropped so far are told.
        gc.collect()
        runtime.engine.hear_now()
        core = runtime.engine.core
        core.check()
        statistics = core.statistics()
        assert statistics.n_owned + statistics.n_tasks + statistics.n_runs + statistics.n_copies == 0, statistics
        assert runtime.engine.core.copies.arena.n_segments == 0
        assert not core.waits.waits
    hpcfut.shutdown()
    assert not hpcfut.is_initialized()


def test_nobody_looks_for_tasks_before_the_api_knows_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    # A task that came with the opening of the session could else call hpcfut, and find no session.
    hpcfut.shutdown()
    open_session, were_running = Job.open_session, []

    def open_and_look(job: Job, *args: Any) -> Runtime:
        runtime = open_session(job, *args)
        were_running.append(runtime.helper.is_running)
        return runtime

    monkeypatch.setattr(Job, "open_session", open_and_look)
    hpcfut.init()
    assert were_running == [False]
    assert session.current().helper.is_running


def test_what_the_script_leaves_behind_may_use_hpcfut(tmp_path: Path) -> None:
    # Python waits for threads and pools, and then calls what was registered; hpcfut, which was there first, ends last.
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import atexit, concurrent.futures, threading
            import hpcfut

            @hpcfut.remote
            def same(x):
                return x

            def work_on():
                threading.main_thread().join()
                print(hpcfut.get(same.remote("a thread")))

            def use(pool):
                print(hpcfut.get(same.remote("a pool")))

            pool = concurrent.futures.ThreadPoolExecutor(1)
            pool.submit(use, pool).result()
            atexit.register(lambda: print(hpcfut.get(hpcfut.put("at exit"))))
            threading.Thread(target=work_on).start()
            print("end")
            raise SystemExit(3)
            """
        )
    )
    job = subprocess.run(
        [sys.executable, "-m", "hpcfut", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (job.returncode, job.stderr) == (3, "")
    assert job.stdout.splitlines() == ["a pool", "end", "a thread", "at exit"]


def test_nothing_begins_anew_after_the_end_of_the_job(tmp_path: Path) -> None:
    # On several ranks this would meet an MPI that has been finalised.
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import atexit

            def use():
                try:
                    hpcfut.put(1)
                except hpcfut.exceptions.SessionEndedError as error:
                    print(error)

            atexit.register(use)
            import hpcfut
            hpcfut.init()
            """
        )
    )
    job = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (job.returncode, job.stderr) == (0, "")
    assert "the job is over" in job.stdout


def test_mpi_is_not_loaded() -> None:
    assert "mpi4py.MPI" not in sys.modules


def test_a_call_and_its_arguments() -> None:
    @hpcfut.remote
    def join(a: Any, b: Any = 2, *, c: Any = 3) -> tuple[Any, Any, Any]:
        return a, b, c

    assert hpcfut.get(join.remote(1)) == (1, 2, 3)
    assert hpcfut.get(join.remote(hpcfut.put(7), c=join.remote(0))) == (7, 2, (0, 2, 3))


def test_nested_gets_run_on_the_waiter() -> None:
    @hpcfut.remote
    def fib(n: int) -> int:
        return n if n < 2 else sum(hpcfut.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert hpcfut.get(fib.remote(12)) == 144


def test_a_deep_recursion_of_gets() -> None:
    @hpcfut.remote
    def depth(n: int) -> int:
        return 0 if n == 0 else 1 + int(hpcfut.get(depth.remote(n - 1)))

    assert hpcfut.get(depth.remote(400)) == 400


def test_wait_runs_tasks_on_other_threads() -> None:
    main = threading.get_ident()

    @hpcfut.remote
    def thread() -> int:
        return threading.get_ident()

    refs = [thread.remote() for _ in range(20)]
    rest = list(refs)
    while rest:
        done, rest = hpcfut.wait(rest)
        assert len(done) == 1
    assert main not in hpcfut.get(refs)


def test_values_are_snapshots_and_read_only() -> None:
    array = np.arange(100_000)
    ref = hpcfut.put(array)
    array[0] = 9
    again = hpcfut.get(ref)
    assert again[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 1


def test_errors_keep_the_users_type() -> None:
    class Odd(Exception):
        pass

    @hpcfut.remote
    def fail() -> None:
        raise Odd("nine")

    with pytest.raises(Odd, match="nine") as caught:
        hpcfut.get(fail.remote())
    assert isinstance(caught.value, hpcfut.exceptions.TaskError)
    assert 'raise Odd("nine")' in str(caught.value)


def test_timeouts() -> None:
    release = threading.Event()

    @hpcfut.remote
    def plain() -> int:
        return 1

    slow, held = plain.remote(), _pending(release)
    with pytest.raises(hpcfut.exceptions.GetTimeoutError):
        hpcfut.get([slow, held], timeout=0)
    assert hpcfut.get(slow, timeout=20) == 1
    release.set()
    assert hpcfut.get(held, timeout=20) is True


def _pending(release: threading.Event) -> Any:
    """A ref that is not ready before ``release`` is set: the function is found by name in this process."""
    _EVENTS[id(release)] = release

    @hpcfut.remote
    def hold(key: int) -> bool:
        from tests.runtime import test_session

        return bool(test_session._EVENTS.pop(key).wait(20))

    return hold.remote(id(release))


_EVENTS: dict[int, threading.Event] = {}


def test_refs_of_an_old_session_are_refused() -> None:
    ref = hpcfut.put(1)
    hpcfut.shutdown()
    with pytest.raises(hpcfut.exceptions.SessionEndedError):
        hpcfut.get(ref)
    hpcfut.init()
    with pytest.raises(hpcfut.exceptions.SessionEndedError):
        hpcfut.get(ref)
    assert hpcfut.get(hpcfut.put(2)) == 2


def test_many_threads_of_a_driver() -> None:
    @hpcfut.remote
    def double(x: int) -> int:
        return 2 * x

    results: dict[int, list[int]] = {}

    def drive(number: int) -> None:
        results[number] = hpcfut.get([double.remote(number * 100 + k) for k in range(50)])

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {n: [2 * (n * 100 + k) for k in range(50)] for n in range(6)}


class _PicklesSlowly:
    def __reduce__(self) -> Any:
        threading.Event().wait(0.2)
        return _PicklesSlowly, ()


def test_two_threads_that_call_a_function_first_register_it_once() -> None:
    held = _PicklesSlowly()

    @hpcfut.remote
    def is_held() -> bool:
        return held is not None

    core = session.current().engine.core
    n_before = len(core.templates.own)
    both, refs = threading.Barrier(2), []

    def call() -> None:
        both.wait(20)
        refs.append(is_held.remote())

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert hpcfut.get(refs) == [True, True]
    assert len(core.templates.own) == n_before + 1


def test_options_in_a_loop_register_a_function_once() -> None:
    templates = session.current().engine.core.templates.own
    add = hpcfut.remote(lambda a, b: a + b)
    n_before = len(templates)
    here = hpcfut.NodeAffinitySchedulingStrategy
    for number in range(5):
        assert hpcfut.get(add.options(num_cpus=1, scheduling_strategy=here(0)).remote(number, 1)) == number + 1
        assert hpcfut.get(add.options(resources={}).remote(number, 2)) == number + 2, "What has no hash goes as before."
    gc.collect()
    session.current().engine.hear_now()
    assert len(templates) == n_before + 1
    assert add.options(num_cpus=1) is add.options(num_cpus=1)
    assert add.options(num_cpus=1) is not add.options(num_cpus=2)
    with pytest.raises(ValueError, match="num_cpus cannot be True"):
        add.options(num_cpus=True)
    for number in range(2 * N_VARIANTS_MAX):
        assert hpcfut.get(add.options(name=f"add{number}").remote(1, 2)) == 3
    gc.collect()
    session.current().engine.hear_now()
    assert len(templates) <= n_before + N_VARIANTS_MAX


def test_a_wait_may_end_by_an_exception_of_a_signal_handler() -> None:
    release = threading.Event()

    def strike(number: int, frame: Any) -> None:
        raise LookupError("struck")

    before = signal.signal(signal.SIGALRM, strike)
    held = _pending(release)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(LookupError, match="struck"):
            hpcfut.get(held, timeout=20)
    finally:
        signal.signal(signal.SIGALRM, before)
    release.set()
    assert hpcfut.get(held, timeout=20) is True
    assert not session.current().engine.core.waits.waits


def test_threads_may_print_while_sessions_come_and_go() -> None:
    script = textwrap.dedent(
        """
        import threading
        import hpcfut
        is_over = threading.Event()
        def talk():
            while not is_over.is_set():
                print("x" * 50, flush=True)
        threads = [threading.Thread(target=talk) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(30):
            hpcfut.init()
            hpcfut.shutdown()
        is_over.set()
        for thread in threads:
            thread.join()
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert set(ended.stdout) == {"x", "\n"}


def test_debug_mode_names_what_was_changed_after_it_was_stored() -> None:
    script = textwrap.dedent(
        """
        import hpcfut
        array = hpcfut.empty(100_000)
        array[:] = 0
        part = array[5:]
        ref = hpcfut.put(array)
        print(hpcfut.get(ref)[5])
        part[0] = 1
        try:
            hpcfut.get(ref)
        except hpcfut.exceptions.ObjectLostError as error:
            print(error)
        """
    )
    environ = {**os.environ, "HPCFUT_DEBUG": "1"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environ)
    assert ended.returncode == 0, ended.stderr
    zero, sentence = ended.stdout.splitlines()
    assert zero == "0.0"
    assert "of 800064 bytes in the memory of rank 0 was changed after it was stored" in sentence
    plain = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (plain.stdout, plain.stderr) == ("0.0\n", "")


def test_a_leak_is_found_by_the_line_that_made_it(tmp_path: Path) -> None:
    script = tmp_path / "leaks.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            import hpcfut

            LEAKED = []

            @hpcfut.remote
            def work(n):
                LEAKED.append(hpcfut.put(bytes(n)))  # the leak
                return bytes(n // 2)

            kept = work.remote(700_000)
            hpcfut.get(kept)
            array = hpcfut.empty(50_000)
            view = hpcfut.get(hpcfut.put(np.zeros(200_000)))[:10]
            more = [hpcfut.put(number) for number in range(150)]
            inside = hpcfut.put([kept])
            print(hpcfut.memory_summary())
            """
        )
    )
    environ = {**os.environ, "HPCFUT_RECORD_REF_CREATION_SITES": "1"}
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environ)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == "155 objects are held by 1 rank"
    by_line = [line.split(None, 3) for line in lines[lines.index("") + 4 :]]
    by_line = by_line[: by_line.index([])]
    assert [(" ".join(words[:3]), words[3]) for words in by_line] == [
        ("objects size made", "at"),
        ("1 1.6 MB", f"{script}:15 in <module>"),
        ("1 700.1 kB", f"{script}:9 in work"),
        ("1 400.1 kB", f"{script}:14 in <module>"),
        ("1 350.1 kB", f"{script}:12 in <module>"),
        ("150 0 B", f"{script}:16 in <listcomp>"),
        ("1 0 B", f"{script}:17 in <module>"),
    ]
    told = {line.partition("  ")[0]: line for line in lines}
    (leak,) = (line for line in told.values() if "700.1 kB" in line and "'" in line)
    assert f"{script}:9 in work" in leak
    assert "stored " in leak
    assert "1 ref on rank 0" in leak
    (result,) = (line for line in told.values() if "350.1 kB" in line and "'" in line)
    assert f"{script}:12 in <module>" in result
    assert "hold of" not in result, "It is said what holds it."
    (draft,) = (line for line in told.values() if "400.1 kB" in line and "'" in line)
    assert "draft" in draft
    assert "1 view on rank 0" in draft
    # Nobody has a ref to it any more.
    (viewed,) = (line for line in told.values() if "1.6 MB" in line and "'" in line)
    assert "dropped" in viewed
    assert lines[-1] == "and 55 more of 0 B: memory_summary(n_objects=155) tells of all."


def test_a_get_that_is_over_at_once_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = session.current().engine
    ref = hpcfut.put(np.arange(100_000))
    value = hpcfut.get(ref)
    turns: list[object] = []
    turn = engine._turn

    def counted(now: float, **how: Any) -> bool:
        if threading.current_thread() is threading.main_thread():
            turns.append(how)
        return turn(now, **how)

    monkeypatch.setattr(engine, "_turn", counted)
    for _ in range(5):
        assert np.shares_memory(hpcfut.get(ref), value)
    assert len(turns) < 5, "One may be taken while the helper has the lock."


def test_an_array_that_no_thread_can_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "hpcfut-reading":
            raise RuntimeError("can't start new thread")
        start(thread)

    ref = hpcfut.lazy_array(lambda array: array.fill(7), 1000, "i8")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(hpcfut.exceptions.ObjectLostError, match=r"no thread.*can't start new thread"):
            hpcfut.get(ref, timeout=20)
    assert hpcfut.get(ref).sum() == 7000, "It is tried again."


def test_what_does_not_end_with_the_session_is_waited_for_once(capfd: pytest.CaptureFixture[str]) -> None:
    grace_s = session.current().config.stop_grace_s

    def work(array: Any) -> None:
        over_at = time.monotonic() + 3 * grace_s
        while time.monotonic() < over_at:
            with contextlib.suppress(BaseException):
                time.sleep(0.01)

    task, lazy = hpcfut.remote(work).remote(None), hpcfut.lazy_array(work, 1000, "f8")
    hpcfut.wait([task], timeout=0.2)
    with pytest.raises(hpcfut.exceptions.GetTimeoutError):
        hpcfut.get(lazy, timeout=0.2)
    started = time.monotonic()
    hpcfut.shutdown()
    # Others wait for this rank only a little longer, and then end the job.
    assert grace_s <= time.monotonic() - started < 1.75 * grace_s
    assert "is abandoned" in capfd.readouterr().err
