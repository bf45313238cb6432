"""Whole jobs: how they start, and how they end, with nothing left."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mpi.jobs import OPENMPI_SETTINGS, CompletedJob, How, Mpi, run_command, run_job

pytestmark = pytest.mark.mpi

#: Every way in which a script may be started, with a number of ranks.
WAYS: list[tuple[How, int]] = [
    ("python", 1),
    ("mpirun python", 2),
    ("mpirun python -m hpcfut", 2),
    ("hpcfut run", 2),
]
ways = pytest.mark.parametrize(("how", "n_ranks"), WAYS)
#: The ways in which other ranks do not run the script until they meet ``init``.
ways_of_one_script = pytest.mark.parametrize(("how", "n_ranks"), [WAYS[0], *WAYS[2:]])
#: Of the ways that differ in nothing but the start, the one that users take.
main_ways = pytest.mark.parametrize(("how", "n_ranks"), [WAYS[0], WAYS[3]])


class Scripts:
    """Writes scripts and runs them."""

    def __init__(self, mpi: Mpi, folder: Path) -> None:
        self.mpi = mpi
        self.folder = folder
        self.script = folder / "a script.py"

    def run(
        self,
        how: How,
        n_ranks: int,
        text: str,
        *args: object,
        timeout_s: float = 60.0,
        options: Sequence[str] = (),
    ) -> CompletedJob:
        self.script.write_text(textwrap.dedent(text))
        return run_job(self.mpi, n_ranks, self.script, *args, how=how, timeout_s=timeout_s, options=options)


@pytest.fixture
def scripts(mpi: Mpi, tmp_path: Path) -> Scripts:
    return Scripts(mpi, tmp_path)


@ways
def test_a_script(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import hpcfut

        @hpcfut.remote
        def square(number):
            return number * number

        print(sum(hpcfut.get([square.remote(number) for number in range(100)])))
        print(len(hpcfut.nodes()))
        """,
    ).check()
    assert job.stdout.split() == ["328350", str(n_ranks)]


@ways
def test_classes_and_functions_of_the_script(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import hpcfut

        FACTOR = 3
        assert __name__ == "__main__"
        hpcfut.init()

        class OwnError(Exception):
            def __init__(self, code):
                super().__init__(code)
                self.code = code

        class Point:
            made = 0

            def __init__(self, x):
                self.x = x
                type(self).made += 1

            def __eq__(self, other):
                return isinstance(other, Point) and self.x == other.x

        def scale(number):
            return FACTOR * number

        @hpcfut.remote
        def move(point, by):
            return Point(point.x + scale(by))

        @hpcfut.remote
        def fail(code):
            raise OwnError(code)

        @hpcfut.remote
        def factorial(n):
            return n * hpcfut.get(factorial.remote(n - 1)) if n else 1

        @hpcfut.remote
        def is_point(value):
            return isinstance(value, Point)

        moved = hpcfut.get([move.remote(Point(1), number) for number in range(20)])
        assert all(type(point) is Point for point in moved)
        assert moved == [Point(1 + 3 * number) for number in range(20)]
        assert hpcfut.get([is_point.remote(point) for point in moved]) == [True] * 20
        assert hpcfut.get(factorial.remote(10)) == 3628800
        assert hpcfut.get(hpcfut.remote(lambda number: scale(number) + 1).remote(2)) == 7
        for ref in [fail.remote(7), move.remote(fail.remote(7), 1)]:
            try:
                hpcfut.get(ref)
            except OwnError as error:
                assert isinstance(error, hpcfut.exceptions.TaskError)
                assert error.code == 7
                assert type(error.cause) is OwnError
                assert "Task fail raised on rank" in str(error)
            else:
                raise AssertionError("nothing was raised")
        print("well")
        """,
    ).check()
    assert job.stdout == "well\n"


@main_ways
def test_modules_beside_the_script(scripts: Scripts, how: How, n_ranks: int) -> None:
    (scripts.folder / "beside.py").write_text("LOADED = []\ndef triple(number):\n    return 3 * number\n")
    scripts.run(
        how,
        n_ranks,
        """
        import hpcfut
        import beside

        @hpcfut.remote
        def import_there(number):
            import beside
            return beside.triple(number)

        assert hpcfut.get([hpcfut.remote(beside.triple).remote(2) for _ in range(10)]) == [6] * 10
        assert hpcfut.get([import_there.remote(2) for _ in range(10)]) == [6] * 10
        """,
    ).check()


@ways
def test_arguments_and_path_on_every_rank(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import sys
        import hpcfut

        hpcfut.init()

        @hpcfut.remote
        def look():
            return sys.argv, sys.path[0]

        print(sys.argv)
        print(sys.path[0])
        for node in hpcfut.nodes():
            strategy = hpcfut.NodeAffinitySchedulingStrategy(node["NodeID"])
            assert hpcfut.get(look.options(scheduling_strategy=strategy).remote()) == (sys.argv, sys.path[0])
        """,
        "--option",
        "two words",
        "",
    ).check()
    assert job.stdout.splitlines() == [
        str([str(scripts.script), "--option", "two words", ""]),
        str(scripts.folder),
    ]


@ways
def test_an_exception_of_the_driver(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import hpcfut

        @hpcfut.remote
        def one():
            return 1

        def inner():
            raise LookupError("said the driver")

        assert hpcfut.get(one.remote()) == 1
        print("before")
        inner()
        """,
    ).check(1)
    assert job.stdout == "before\n"
    assert job.stderr.count("Traceback (most recent call last):") == 1, job.story()
    assert "in inner" in job.stderr
    assert "LookupError: said the driver" in job.stderr
    assert "__main__.py" not in job.stderr, job.story()


@ways
def test_an_error_of_a_task_that_the_driver_does_not_catch(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import hpcfut

        @hpcfut.remote
        def fail():
            raise LookupError("said the task")

        hpcfut.get(fail.remote())
        """,
    ).check(1)
    assert "Task fail raised on rank" in job.stderr
    assert job.stderr.count("LookupError: said the task") == 1, job.story()


@ways
@pytest.mark.parametrize(
    ("code", "status", "told"),
    [("3", 3, ""), ("None", 0, ""), ("'some text'", 1, "some text\n")],
)
def test_exit_statuses(scripts: Scripts, how: How, n_ranks: int, code: str, status: int, told: str) -> None:
    job = scripts.run(
        how,
        n_ranks,
        f"""
        import sys
        import hpcfut
        assert hpcfut.get(hpcfut.put(5)) == 5
        sys.exit({code})
        """,
    ).check(status)
    assert told in job.stderr
    assert "Traceback" not in job.stderr


@ways
def test_an_end_with_queued_and_running_tasks(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import time
        import hpcfut

        @hpcfut.remote
        def sleep(seconds):
            time.sleep(seconds)

        @hpcfut.remote
        def compute():
            number = 0
            while True:
                number += 1

        @hpcfut.remote
        def wait(refs):
            hpcfut.get(refs)

        refs = [sleep.remote(600) for _ in range(3)] + [compute.remote() for _ in range(3)]
        refs += [wait.remote(refs[:2]) for _ in range(3)] + [sleep.remote(refs[0]) for _ in range(100)]
        hpcfut.wait(refs, timeout=0.5)
        print("end")
        """,
    ).check()
    assert job.stdout == "end\n"
    assert job.duration_s < 15


@ways_of_one_script
def test_an_end_with_a_task_that_will_not_end(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import sys
        import time
        import hpcfut

        @hpcfut.remote
        def resist():
            while True:
                try:
                    time.sleep(600)
                except BaseException:
                    pass

        ref = resist.remote()
        hpcfut.wait([ref], timeout=1)
        sys.exit(4)
        """,
    ).check(4)
    assert re.search(r"task resist \([\d.']+\) on rank \d did not end within", job.stderr), job.story()
    assert job.duration_s < 20


def test_a_task_that_outlives_shutdown_ends_the_job_with_one_sentence(scripts: Scripts) -> None:
    job = scripts.run(
        "mpirun python -m hpcfut",
        2,
        """
        import tempfile
        import time
        from pathlib import Path
        import hpcfut

        @hpcfut.remote(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(1))
        def resist(mark):
            while True:
                try:
                    mark.touch()
                    time.sleep(600)
                except BaseException:
                    pass

        mark = Path(tempfile.mkdtemp()) / "resists"
        ref = resist.remote(mark)
        while not mark.exists():
            hpcfut.wait([ref], timeout=0.01)
        hpcfut.shutdown()
        print("not reached")
        """,
    )
    assert job.returncode, job.story()
    assert not job.stdout, job.story()
    (said,) = [line for line in job.stderr.splitlines() if "hpcfut: " in line]
    assert re.search(r"Task resist \([\d'.]+\) on rank 1 did not end within 2 s after shutdown\(\)", said), job.story()


@ways
def test_an_end_while_a_thread_waits(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import threading
        import time
        import hpcfut

        def work():
            try:
                hpcfut.get(compute.remote())
            except hpcfut.exceptions.SessionEndedError:
                print("the thread was told", flush=True)

        @hpcfut.remote
        def compute():
            while True:
                time.sleep(0.01)

        hpcfut.init()
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.2)  # Whether the thread waits already is all the same.
        hpcfut.shutdown()
        thread.join()
        """,
    ).check()
    assert "the thread was told" in job.stdout


@ways_of_one_script
def test_a_script_that_never_uses_hpcfut(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(how, n_ranks, "print('alone')").check()
    assert job.stdout == "alone\n"


@ways_of_one_script
def test_a_script_that_only_imports_hpcfut(scripts: Scripts, how: How, n_ranks: int) -> None:
    scripts.run(how, n_ranks, "import hpcfut\nraise SystemExit(5)").check(5)


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_mpi_that_the_user_initialised(scripts: Scripts, n_ranks: int) -> None:
    job = scripts.run(
        "mpirun python",
        n_ranks,
        f"""
        from mpi4py import MPI
        import hpcfut

        world = MPI.COMM_WORLD
        assert world.allreduce(1) == {n_ranks}
        hpcfut.init()

        @hpcfut.remote
        def rank_of_mpi():
            return MPI.COMM_WORLD.rank

        assert world.rank == 0
        for node in hpcfut.nodes():
            strategy = hpcfut.NodeAffinitySchedulingStrategy(node["NodeID"])
            assert hpcfut.get(rank_of_mpi.options(scheduling_strategy=strategy).remote()) == node["Rank"]
        # The user's own traffic does not meet that of hpcfut.
        assert not world.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG)
        hpcfut.shutdown()
        assert not MPI.Is_finalized()
        print(len(hpcfut.nodes()))
        """,
    ).check()
    assert job.stdout == f"{n_ranks}\n"


def test_one_rank_does_not_load_mpi(scripts: Scripts) -> None:
    job = scripts.run(
        "python",
        1,
        """
        import sys
        import hpcfut
        assert "numpy" not in sys.modules
        assert hpcfut.get(hpcfut.remote(lambda: bytes(200_000)).remote()) == bytes(200_000)
        hpcfut.shutdown()
        hpcfut.init()
        assert hpcfut.get(hpcfut.put(1)) == 1
        print("mpi4py.MPI" in sys.modules, "mpi4py" in sys.modules)
        """,
    ).check()
    assert job.stdout == "False False\n"


@pytest.mark.parametrize("how", ["mpirun python -m hpcfut", "hpcfut run"])
def test_a_missing_script(scripts: Scripts, how: How) -> None:
    job = run_job(scripts.mpi, 2, scripts.folder / "no such script.py", how=how).check(None)
    assert job.returncode == 2, job.story()
    assert "no such script.py" in job.stderr
    assert "Traceback" not in job.stderr


@pytest.mark.parametrize("how", ["mpirun python -m hpcfut", "hpcfut run"])
def test_a_script_with_a_syntax_error(scripts: Scripts, how: How) -> None:
    job = scripts.run(how, 2, "import hpcfut\ndef :\n").check(None)
    assert job.returncode == 1, job.story()
    assert 'a script.py", line 2' in job.stderr
    assert "SyntaxError" in job.stderr
    assert "Traceback" not in job.stderr


@main_ways
def test_a_script_that_reads_its_input_to_the_end(scripts: Scripts, how: How, n_ranks: int) -> None:
    scripts.script.write_text("import sys\nprint(len(sys.stdin.read()))\n")
    given = scripts.folder / "given"
    # More than launchers pass on unharmed.
    given.write_text("a line of the input\n" * 20_000)
    job = run_job(scripts.mpi, n_ranks, scripts.script, how=how, stdin=given).check()
    assert job.stdout == "400000\n", job.story()
    assert run_job(scripts.mpi, n_ranks, scripts.script, how=how).check().stdout == "0\n"


def test_wrong_options(mpi: Mpi, tmp_path: Path) -> None:
    for options, told in [
        (["-n", "2", str(tmp_path)], "is a folder"),
        (["-n", "2", "--launcher-args", "'", __file__], "cannot be split into words"),
        (["--hosts", "a:x", __file__], "is no host"),
        (["-n", "0", __file__], "at least one rank"),
        ([__file__], "How many ranks?"),
    ]:
        job = run_command([mpi.program("hpcfut"), "run", *options]).check(2)
        assert told in job.stderr, job.story()
    job = run_command([mpi.program("python"), "-m", "hpcfut", "--unknown", __file__]).check(2)
    assert "--unknown is unknown" in job.stderr
    assert "Usage" in run_command([mpi.program("python"), "-m", "hpcfut", "--help"]).check().stdout


def test_no_script_at_all(mpi: Mpi) -> None:
    job = run_command([mpi.program("python"), "-m", "hpcfut"]).check(2)
    assert "Usage" in job.stderr


@ways
def test_a_driver_that_leaves_at_once(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import os
        import hpcfut
        assert hpcfut.get(hpcfut.put(5)) == 5
        os._exit(6)
        """,
    ).check(None)
    assert job.returncode != 0, job.story()
    assert job.duration_s < 15


@pytest.mark.parametrize("how", ["mpirun python", "mpirun python -m hpcfut", "hpcfut run"])
@pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(7)", "os._exit(0)", "os.abort()"])
def test_a_rank_that_dies(scripts: Scripts, how: How, death: str) -> None:
    job = scripts.run(
        how,
        3,
        f"""
        import os, signal, time
        import hpcfut

        @hpcfut.remote
        def die():
            {death}

        @hpcfut.remote
        def compute():
            deadline = time.monotonic() + 40
            while time.monotonic() < deadline:
                pass

        def on(rank):
            return hpcfut.NodeAffinitySchedulingStrategy(rank)

        hpcfut.init()
        started = time.time()
        print("started", started, flush=True)
        refs = [compute.options(scheduling_strategy=on(1)).remote(), die.options(scheduling_strategy=on(2)).remote()]
        hpcfut.get(refs)
        print("not reached", flush=True)
        """,
        options=("--fault-tolerance", "off") if how == "hpcfut run" else (),
    ).check(None)
    assert job.returncode != 0, job.story()
    assert "not reached" not in job.stdout
    # Starting Python and MPI takes a part of it.
    assert job.duration_s < 10, job.story()
    if how == "hpcfut run":
        assert re.search(r"[Rr]ank 2\b", job.stderr), job.story()


@pytest.mark.parametrize(("how", "n_ranks"), [("python", 1), ("mpirun python -m hpcfut", 2)])
def test_a_forked_child(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import multiprocessing
        import hpcfut

        def child(queue):
            try:
                hpcfut.put(1)
            except RuntimeError as error:
                queue.put(str(error))
            else:
                queue.put("nothing was raised")

        hpcfut.init()
        ref = hpcfut.put(5)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        print(queue.get(timeout=20))
        process.join()
        assert process.exitcode == 0
        assert hpcfut.get(ref) == 5
        """,
    ).check()
    assert "forked child" in job.stdout


@pytest.mark.parametrize(("how", "n_ranks"), [("python", 1), ("mpirun python -m hpcfut", 2)])
def test_an_interrupt_while_the_driver_waits(scripts: Scripts, how: How, n_ranks: int) -> None:
    job = scripts.run(
        how,
        n_ranks,
        """
        import os, signal, threading, time
        import hpcfut

        @hpcfut.remote(num_cpus=0)
        def look_for(path):
            open(path + " soon", "w").close()
            deadline = time.monotonic() + 20
            while not os.path.exists(path):
                assert time.monotonic() < deadline
                time.sleep(0.001)
            return "found"

        path = os.path.join(os.path.dirname(__file__), "to be found")
        got = []
        ref = look_for.remote(path)
        # A wait with a timeout runs no task, so that Ctrl-C will find the main thread in hpcfut and not in the task.
        while not os.path.exists(path + " soon"):
            hpcfut.wait([ref], timeout=0.01)
        thread = threading.Thread(target=lambda: got.append(hpcfut.get(ref)))
        thread.start()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            hpcfut.get(ref)
        except KeyboardInterrupt:
            print("interrupted")
        # The other thread goes on, and so does the session.
        open(path, "w").close()
        thread.join()
        assert got == ["found"]
        assert hpcfut.get(ref) == "found"
        os.kill(os.getpid(), signal.SIGINT)
        """,
    ).check(None)
    assert job.stdout == "interrupted\n", job.story()
    assert job.returncode == (130 if n_ranks > 1 else -2), job.story()
    assert re.findall("^KeyboardInterrupt", job.stderr, re.MULTILINE) == ["KeyboardInterrupt"], job.story()


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_prompt(mpi: Mpi, n_ranks: int, tmp_path: Path) -> None:
    # Tasks go on while nothing is typed, and an error at the prompt is not the end.
    typed = tmp_path / "typed"
    typed.write_text(
        textwrap.dedent(
            """
            import time
            @hpcfut.remote
            def double(x):
                return 2 * x

            refs = [double.remote(number) for number in range(4)]
            deadline = time.monotonic() + 20
            while len(hpcfut.wait(refs, num_returns=4, timeout=0)[0]) < 4 and time.monotonic() < deadline:
                time.sleep(0.1)

            print("ready:", len(hpcfut.wait(refs, num_returns=4, timeout=0)[0]), "of", sum(hpcfut.get(refs)))
            1 / 0
            print("ranks:", len(hpcfut.nodes()))
            exit()
            """
        )
    )
    prompt = [mpi.program("python"), "-i", "-c", "import hpcfut; hpcfut.init()"]
    launcher = [mpi.program("mpiexec"), "-n", str(n_ranks)] if n_ranks > 1 else []
    job = run_command([*launcher, *prompt], env=OPENMPI_SETTINGS, stdin=typed).check(0)
    words = job.stdout + job.stderr
    assert "ready: 4 of 12" in words, job.story()
    assert "ZeroDivisionError" in words, job.story()
    assert f"ranks: {n_ranks}" in words, job.story()
