"""Ranks that die: the job ends within five seconds, names the rank, and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.support import Faults, check_end, check_name
from tests.mpi.jobs import How, Mpi

pytestmark = pytest.mark.mpi

ways = pytest.mark.parametrize("how", ["mpirun python -m hpcfut", "hpcfut run"])


@pytest.fixture
def faults(mpi: Mpi, tmp_path: Path) -> Faults:
    return Faults(mpi, tmp_path)


@ways
def test_a_rank_is_killed_while_it_runs_a_task(faults: Faults, how: How) -> None:
    job = faults.run(
        how,
        3,
        """
        @hpcfut.remote
        def compute():
            mark("ready")
            while True:
                pass

        hpcfut.get(compute.options(scheduling_strategy=on(2)).remote())
        print("not reached")
        """,
        lambda victim: victim.kill_rank(2),
    )
    check_end(job)
    check_name(job, faults.mpi, how, 2, faults.pid(2))


@pytest.mark.parametrize("how", ["mpirun python", "mpirun python -m hpcfut", "hpcfut run"])
def test_a_rank_is_killed_while_it_is_idle(faults: Faults, how: How) -> None:
    job = faults.run(
        how,
        3,
        """
        mark("ready")
        while True:
            time.sleep(1)
        """,
        lambda victim: victim.kill_rank(1),
    )
    check_end(job)
    check_name(job, faults.mpi, how, 1, faults.pid(1))


@ways
def test_rank_0_is_killed(faults: Faults, how: How) -> None:
    job = faults.run(
        how,
        3,
        """
        @hpcfut.remote
        def compute():
            mark("ready")
            while True:
                pass

        hpcfut.get(compute.options(scheduling_strategy=on(1)).remote())
        """,
        lambda victim: victim.kill_rank(0),
    )
    check_end(job)
    check_name(job, faults.mpi, how, 0, faults.pid(0))


@ways
@pytest.mark.parametrize("death", ["ctypes.string_at(0)", "os.abort()", "os._exit(0)"])
def test_a_task_that_kills_its_rank(faults: Faults, how: How, death: str) -> None:
    job = faults.run(
        how,
        2,
        f"""
        @hpcfut.remote
        def die():
            mark("ready")
            {death}

        hpcfut.get(die.options(scheduling_strategy=on(1)).remote())
        print("not reached")
        """,
        lambda victim: None,
    )
    check_end(job)
    check_name(job, faults.mpi, how, 1, faults.pid(1))


@pytest.mark.parametrize(("how", "n_ranks"), [("python", 1), ("hpcfut run", 2)])
def test_a_task_that_asks_for_too_much_memory_fails_alone(faults: Faults, how: How, n_ranks: int) -> None:
    job = faults.run(
        how,
        n_ranks,
        """
        @hpcfut.remote
        def hoard():
            return len(bytearray(1 << 60))

        @hpcfut.remote
        def rank():
            return os.getpid()

        ref = hoard.options(scheduling_strategy=on(n_ranks - 1)).remote()
        try:
            hpcfut.get(ref)
        except MemoryError as error:
            print("no memory")
        assert hpcfut.get(rank.options(scheduling_strategy=on(n_ranks - 1)).remote()) > 0
        mark("ready")
        """,
        lambda victim: None,
    ).check()
    assert job.stdout == "no memory\n", job.story()
