"""A rank that answers nobody is told of, with what it does, and goes on."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.faults.support import Faults, Victim
from tests.mpi.jobs import Mpi

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_code_that_keeps_the_gil(mpi: Mpi, tmp_path: Path, n_ranks: int) -> None:
    os.mkfifo(tmp_path / "way")

    def let_go(victim: Victim) -> None:
        # On a busy machine other ranks, or this one before, may have been told of as well.
        victim.job.wait_for_words(" in hold")
        (tmp_path / "way").write_text("x")

    job = (
        Faults(mpi, tmp_path)
        .run(
            "hpcfut run",
            n_ranks,
            """
        @hpcfut.remote
        def hold():
            way = os.open(os.path.join(folder, "way"), os.O_RDWR)
            mark("ready")
            # Unlike CDLL it keeps the GIL: nothing else of this process runs until somebody writes.
            return ctypes.PyDLL(None).read(way, ctypes.create_string_buffer(1), 1)

        print(hpcfut.get(hold.options(scheduling_strategy=on(n_ranks - 1)).remote()))
        """,
            let_go,
            env={"HPCFUT_STALL_S": "0.5"},
        )
        .check()
    )
    assert job.stdout == "1\n", job.story()
    pattern = rf"hpcfut: Rank {n_ranks - 1} \(process \d+ on host \S+\) has answered nobody for 0.5 s"
    assert re.search(pattern, job.stderr), job.story()
    assert f'{tmp_path}/script.py", line' in job.stderr, job.story()
