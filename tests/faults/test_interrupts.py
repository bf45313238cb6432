"""Ctrl-C, as a terminal sends it: to all processes of its foreground at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.support import Faults, Victim, check_end
from tests.mpi.jobs import How, Mpi

pytestmark = pytest.mark.mpi

#: Two seconds, and as much again where the machine has much else to do.
INTERRUPTED_WITHIN_S = 4.0
#: What the other rank does meanwhile.
WORK = {
    "sleeps": "time.sleep(600)",
    "computes in Python": "while True: pass",
    "computes in C": "sum(range(1 << 40))",
}


@pytest.fixture
def faults(mpi: Mpi, tmp_path: Path) -> Faults:
    return Faults(mpi, tmp_path)


@pytest.mark.parametrize("how", ["mpirun python -m hpcfut", "hpcfut run"])
@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_while_the_driver_waits(faults: Faults, how: How, work: str) -> None:
    job = faults.run(
        how,
        2,
        f"""
        @hpcfut.remote
        def work():
            mark("ready")
            {WORK[work]}

        hpcfut.get(work.options(scheduling_strategy=on(1)).remote())
        print("not reached")
        """,
        Victim.interrupt,
    )
    if how == "hpcfut run":
        check_end(job, status=130)
        assert "The job was ended by SIGINT." in job.stderr, job.story()
    else:
        check_end(job)
    if (faults.mpi.name, how) != ("openmpi", "mpirun python -m hpcfut"):
        # Open MPI's launcher does not hand Ctrl-C on: it ends its ranks.
        assert job.stderr.count("Traceback (most recent call last):") == 1, job.story()
        assert "\nKeyboardInterrupt\n" in job.stderr, job.story()


#: What does not end by itself; `mark("ready")` comes at the right moment.
STUBBORN = {
    "a task in C that keeps the GIL, on the driver's rank": """
        @hpcfut.remote
        def work():
            mark("ready")
            sum(range(1 << 40))

        hpcfut.get(work.options(scheduling_strategy=on(0)).remote())
        """,
    "a task in C that gives the GIL back, on the driver's rank": """
        @hpcfut.remote
        def work():
            mark("ready")
            ctypes.CDLL(None).sleep(600)

        hpcfut.get(work.options(scheduling_strategy=on(0)).remote())
        """,
    "a task that ignores signals": """
        import signal

        @hpcfut.remote
        def work():
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            mark("ready")
            while True:
                time.sleep(1)

        hpcfut.get(work.options(scheduling_strategy=on(1)).remote())
        """,
    "a script in C that keeps the GIL": """
        mark("ready")
        sum(range(1 << 40))
        """,
    "a script that catches everything": """
        @hpcfut.remote
        def work():
            mark("ready")
            time.sleep(600)

        ref = work.options(scheduling_strategy=on(1)).remote()
        while True:
            try:
                hpcfut.get(ref)
            except BaseException:
                pass
        """,
    "a script that ignores signals": """
        import signal

        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        mark("ready")
        while True:
            time.sleep(1)
        """,
}


@pytest.mark.parametrize("how", ["mpirun python -m hpcfut", "hpcfut run"])
@pytest.mark.parametrize("what", STUBBORN)
def test_ctrl_c_against(faults: Faults, how: How, what: str) -> None:
    job = faults.run(how, 2, STUBBORN[what], Victim.interrupt)
    check_end(job)
    assert job.ended_after_s < INTERRUPTED_WITHIN_S, f"It took {job.ended_after_s:.1f} s to end.\n{job.story()}"


def test_last_words_of_the_script(faults: Faults) -> None:
    job = faults.run(
        "hpcfut run",
        2,
        """
        @hpcfut.remote
        def work():
            mark("ready")
            time.sleep(600)

        try:
            hpcfut.get(work.options(scheduling_strategy=on(1)).remote())
        finally:
            print("last words", flush=True)
        """,
        Victim.interrupt,
    )
    check_end(job, status=130)
    assert job.stdout == "last words\n", job.story()


def test_ctrl_c_where_python_drops_what_is_raised(faults: Faults) -> None:
    job = faults.run(
        "hpcfut run",
        2,
        """
        import weakref

        class Watched:
            pass

        def spin(watch):
            mark("ready")
            while True:
                pass

        watched = Watched()
        watch = weakref.ref(watched, spin)
        try:
            del watched
            time.sleep(600)
        finally:
            print("last words", flush=True)
        """,
        Victim.interrupt,
    )
    check_end(job, status=130)
    assert job.stdout == "last words\n", job.story()
    assert "\nKeyboardInterrupt\n" in job.stderr, job.story()
    assert "Exception ignored" not in job.stderr, job.story()


def test_ctrl_c_again_ends_a_script_that_does_not_want_to_end(faults: Faults) -> None:
    def interrupt_twice(victim: Victim) -> None:
        victim.interrupt()
        victim.wait_for("caught")
        victim.interrupt()

    job = faults.run(
        "hpcfut run",
        2,
        """
        mark("ready")
        while True:
            try:
                time.sleep(600)
            except KeyboardInterrupt:
                mark("caught")
        """,
        interrupt_twice,
    )
    check_end(job, status=130)


@pytest.mark.parametrize("work", ["sleeps", "computes in Python"])
def test_ctrl_c_on_one_rank(faults: Faults, work: str) -> None:
    job = faults.run(
        "python",
        1,
        f"""
        @hpcfut.remote
        def work():
            mark("ready")
            {WORK[work]}

        hpcfut.get(work.remote())
        print("not reached")
        """,
        Victim.interrupt,
    )
    check_end(job)
    assert "KeyboardInterrupt" in job.stderr, job.story()


def test_ctrl_c_on_one_rank_between_tasks(faults: Faults) -> None:
    job = faults.run("python", 1, 'mark("ready")\ntime.sleep(600)\n', Victim.interrupt)
    check_end(job)
    assert job.stderr.endswith("\nKeyboardInterrupt\n"), job.story()
