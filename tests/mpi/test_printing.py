"""What tasks print reaches the terminal: whole lines, prefixed, nothing lost."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from tests.mpi.jobs import CompletedJob, How, Mpi, run_job

pytestmark = pytest.mark.mpi

WAYS: list[tuple[How, int]] = [("python", 1), ("mpirun python", 2), ("hpcfut run", 5)]

ALL_KINDS = """
    import logging, subprocess, sys, threading, warnings
    import hpcfut

    logging.basicConfig(format="%(levelname)s of %(name)s: %(message)s")
    log = logging.getLogger("mine")

    @hpcfut.remote
    def speak(number):
        print("task", number, end="")
        print(":", "done", flush=True)
        print("error", number, file=sys.stderr)
        log.error("task %s", number)
        warnings.warn(f"of task {number}")
        for percent in (0, 50, 100):
            print(f"\\r{percent} % of {number}", end="", file=sys.stderr)
        sys.stderr.write("\\n")
        # By one write, because nobody puts the lines of a child together.
        subprocess.run(["printf", f"child of {number}\\n"], check=True)
        print("begun by", number, end="")

    @hpcfut.remote
    def waits_meanwhile():
        print("before", end=" ")
        hpcfut.get(speak.remote(100))
        print("and after")

    hpcfut.init()
    print("driver", end=" ", flush=True)
    print("says", 1)
    tasks = []
    for node in hpcfut.nodes():
        there = hpcfut.NodeAffinitySchedulingStrategy(node["NodeID"])
        tasks.append(speak.options(scheduling_strategy=there).remote(node["Rank"]))
    hpcfut.get([*tasks, waits_meanwhile.remote()])
    log.error("of the driver")
    print("0 %", end="\\r")
    hpcfut.shutdown()
    print("100 %")
"""


def run(mpi: Mpi, folder: Path, how: How, n_ranks: int, text: str) -> CompletedJob:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(text))
    return run_job(mpi, n_ranks, script, how=how)


@pytest.mark.parametrize(("how", "n_ranks"), WAYS)
def test_all_kinds_of_output(mpi: Mpi, tmp_path: Path, how: How, n_ranks: int) -> None:
    job = run(mpi, tmp_path, how, n_ranks, ALL_KINDS).check()
    # What was read as text has no carriage return any more.
    out, err = Counter(job.stdout.split("\n")), Counter(job.stderr.split("\n"))
    for rank in range(n_ranks):
        for line in (f"(rank {rank}) task {rank}: done", f"(rank {rank}) begun by {rank}", f"child of {rank}"):
            assert out.pop(line, 0) == 1, f"{line}\n{job.story()}"
        for line in (f"(rank {rank}) error {rank}", f"(rank {rank}) 100 % of {rank}"):
            assert err.pop(line, 0) == 1, f"{line}\n{job.story()}"
        warned = [line for line in err if re.fullmatch(rf"\(rank {rank}\) .*UserWarning: of task {rank}", line)]
        assert len(warned) == 1, job.story()
        # Where the script, which sets up its logging, does not run, Python prints what has no handler.
        formatted = "ERROR of mine: " if rank == 0 or how == "mpirun python" else ""
        assert err.pop(f"(rank {rank}) {formatted}task {rank}") == 1, job.story()
    assert any(re.fullmatch(r"\(rank \d\) before and after", line) for line in out), job.story()
    assert any(re.fullmatch(r"\(rank \d\) begun by 100", line) for line in out), job.story()
    assert out.pop("driver says 1") == 1, job.story()
    assert out.pop("0 %") == out.pop("100 %") == 1, job.story()
    assert err.pop("ERROR of mine: of the driver") == 1, job.story()


def test_lines_of_many_ranks_stay_whole(mpi: Mpi, tmp_path: Path) -> None:
    text = """
        import hpcfut

        @hpcfut.remote
        def print_much(who):
            for start in range(0, 2000, 20):
                print("\\n".join(f"<{who}:{i}:{'x' * (i % 1000)}>" for i in range(start, start + 20)))

        hpcfut.get([print_much.remote(who) for who in range(4)])
    """
    job = run(mpi, tmp_path, "mpirun python -m hpcfut", 4, text).check()
    lines = job.stdout.splitlines()
    wanted = {f"<{who}:{i}:{'x' * (i % 1000)}>" for who in range(4) for i in range(2000)}
    torn = [line for line in lines if not re.fullmatch(r"\(rank \d\) <\d:\d+:x*>", line)]
    assert not torn, torn[:5]
    assert len(lines) == len(wanted)
    assert {line.partition(" <")[2] for line in lines} == {line[1:] for line in wanted}


@pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "os.abort()"])
def test_what_was_printed_before_a_crash_is_not_lost(mpi: Mpi, tmp_path: Path, death: str) -> None:
    text = f"""
        import os, signal
        import hpcfut

        @hpcfut.remote
        def die():
            for number in range(100):
                print("line", number)
            {death}

        hpcfut.init()
        last = hpcfut.NodeAffinitySchedulingStrategy(len(hpcfut.nodes()) - 1)
        hpcfut.get(die.options(scheduling_strategy=last).remote())
    """
    job = run(mpi, tmp_path, "hpcfut run", 2, text).check(None)
    assert job.returncode, job.story()
    assert job.stdout.split("\n")[:100] == [f"(rank 1) line {number}" for number in range(100)], job.story()


@pytest.mark.parametrize(("how", "n_ranks"), [("python", 1), ("mpirun python -m hpcfut", 2)])
def test_what_running_tasks_have_begun_appears_at_the_end(mpi: Mpi, tmp_path: Path, how: How, n_ranks: int) -> None:
    text = """
        import threading, time
        import hpcfut

        @hpcfut.remote
        def begin():
            print("begun", end="")
            try:
                while True:
                    time.sleep(0.01)
            finally:
                print(", and cancelled", end="")

        refs = [begin.remote() for node in hpcfut.nodes()]
        hpcfut.wait(refs, timeout=0.5)
        print("the end")
    """
    job = run(mpi, tmp_path, how, n_ranks, text).check()
    printed = job.stdout.splitlines()
    assert sorted(printed) == [*(f"(rank {rank}) begun, and cancelled" for rank in range(n_ranks)), "the end"], (
        job.story()
    )
