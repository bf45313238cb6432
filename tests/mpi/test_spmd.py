"""Jobs in which every rank runs the script."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.mpi.jobs import CompletedJob, Mpi, run_job

pytestmark = pytest.mark.mpi

HEAD = """
import sys, time
import numpy
from mpi4py import MPI
import hpcfut

comm = MPI.COMM_WORLD
inbox = []

def on(function, rank, **options):
    return function.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(rank), **options)

@hpcfut.remote
def square(x):
    return x * x

@hpcfut.remote(num_cpus=0)
def drop(refs):
    import __main__  # The function brings copies of the globals that it names.

    __main__.inbox.extend(refs)

def sum_over_ranks(x):
    # Not comm.allreduce, which keeps the GIL while it waits: then nobody can answer for the rank.
    total = numpy.zeros(1, int)
    comm.Allreduce(numpy.array([int(x)]), total)
    return int(total[0])
"""


def run(mpi: Mpi, n_ranks: int, folder: Path, text: str, *, is_plain: bool = False) -> CompletedJob:
    script = folder / "script.py"
    script.write_text(HEAD + textwrap.dedent(text))
    if is_plain:
        return run_job(mpi, n_ranks, "--spmd", script, how="mpirun python -m hpcfut")
    return run_job(mpi, n_ranks, script, options=["--spmd"])


# Open MPI leaves a segment behind where `hpcfut run -n 1` starts one process, and that starts MPI by itself.
@pytest.mark.parametrize(("n_ranks", "is_plain"), [(1, True), (2, True), (2, False), (5, True)])
def test_futures_beside_calls_of_mpi(mpi: Mpi, n_ranks: int, is_plain: bool, tmp_path: Path) -> None:
    text = f"""
    hpcfut.init()
    context = hpcfut.get_runtime_context()
    rank, n_ranks = context.get_rank(), len(hpcfut.nodes())
    assert (rank, n_ranks) == (comm.rank, comm.size) == (comm.rank, {n_ranks})
    assert sys.argv[0] == {str(tmp_path / "script.py")!r}
    # All submit, and all work.
    assert hpcfut.get([square.remote(rank + i) for i in range(100)]) == [(rank + i) ** 2 for i in range(100)]
    # Refs cross by tasks: each gives one to its right neighbour.
    ref = hpcfut.put([rank] * 100_000)
    hpcfut.get(on(drop, (rank + 1) % n_ranks).remote([ref]))
    del ref
    comm.Barrier()
    assert hpcfut.get(inbox.pop(0))[:3] == [(rank - 1) % n_ranks] * 3
    # One waits in MPI for the others, which need it: its values, and a task that only it may run.
    mine = hpcfut.put(rank)
    if rank == 0:
        for other in range(1, n_ranks):
            hpcfut.get(on(drop, other).remote([mine]))
        comm.Barrier()
        assert sum_over_ranks(0) == n_ranks - 1
    else:
        comm.Barrier()
        assert hpcfut.get(on(square, 0).remote(rank)) == rank**2
        assert hpcfut.get(inbox.pop()) == 0
        assert sum_over_ranks(1) == n_ranks - 1
    del mine
    from tests.mpi.support import _what_is_left

    def is_empty():
        return not {{*_what_is_left()}} - {{"n_templates", "n_leases", "n_grants"}}

    deadline = time.monotonic() + 10
    while sum_over_ranks(is_empty()) < n_ranks:
        assert time.monotonic() < deadline, _what_is_left()
        hpcfut.get(square.remote(0))
    sys.stdout.write("done\\n")
    """
    job = run(mpi, n_ranks, tmp_path, text, is_plain=is_plain).check()
    assert job.stdout == "done\n" * n_ranks, job.story()


def test_the_job_ends_when_all_scripts_have(mpi: Mpi, tmp_path: Path) -> None:
    # Rank 0 is done at once, and yet has tasks to do; rank 1 never used hpcfut; rank 2 says what the status is.
    text = """
    if comm.rank == 2:
        assert hpcfut.get([on(square, rank).remote(3) for rank in range(3)]) == [9] * 3
        time.sleep(0.3)
        assert hpcfut.get(on(square, 0).remote(4)) == 16
        print("last", flush=True)
        sys.exit(7)
    """
    job = run(mpi, 3, tmp_path, text).check(7)
    assert job.stdout == "last\n", job.story()


def test_several_sessions(mpi: Mpi, tmp_path: Path) -> None:
    text = """
    for _ in range(3):
        hpcfut.init(resources={"disk": 1})
        assert hpcfut.get(square.options(resources={"disk": 1}).remote(5)) == 25
        hpcfut.shutdown()
        assert not hpcfut.is_initialized()
        if comm.rank == 1:
            break
    """
    # Rank 1 has left; the others go on in sessions of which it is a part.
    run(mpi, 3, tmp_path, text.replace("if comm.rank == 1", "if False")).check()
    run(mpi, 3, tmp_path, text).check()


def test_the_first_uncaught_exception_ends_the_job(mpi: Mpi, tmp_path: Path) -> None:
    text = """
    hpcfut.init()
    if comm.rank == 1:
        raise LookupError("of rank 1")
    comm.Barrier()
    print("not reached")
    """
    job = run(mpi, 3, tmp_path, text).check(1)
    assert job.stderr.count("LookupError: of rank 1") == 1, job.story()
    assert "the script failed on rank 1" in job.stderr, job.story()
    assert job.stdout == "", job.story()


def test_init_with_different_options(mpi: Mpi, tmp_path: Path) -> None:
    job = run(mpi, 2, tmp_path, 'hpcfut.init(resources={"disk": comm.rank + 1})\ntime.sleep(60)\n').check(1)
    assert "other options on rank 1 than on rank 0" in job.stderr, job.story()
