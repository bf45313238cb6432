"""What the map tasks of the word count return reaches rank 0 only where a task there asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.examples.texts import make_wide_texts
from tests.mpi.jobs import Mpi, run_job

pytestmark = pytest.mark.mpi

COUNTING = Path(__file__).with_name("counting.py")


def count(mpi: Mpi, where: str, folder: Path) -> dict[str, Any]:
    """Runs the word count on three ranks; what was counted on rank 0."""
    make_wide_texts(folder, n_files=6, n_words=24_000)
    # On one host nothing would move at all: the ranks read each other's objects in place.
    job = run_job(mpi, 3, COUNTING, where, folder, env={"HPCFUT_ONE_HOST": "no"}).check()
    said: dict[str, Any] = json.loads(job.stdout)
    assert said["is_right"], job.story()
    assert min(said["parts"]) > said["nbytes_inline_max"], "The texts are too small for this test."
    # Frames bring summaries and the like, and values that are small.
    assert said["nbytes_frames"] < said["nbytes_inline_max"], job.story()
    return said


def test_no_part_comes_where_no_task_runs(mpi: Mpi, tmp_path: Path) -> None:
    said = count(mpi, "elsewhere", tmp_path)
    assert said["nbytes_data"] == 0
    # A part that the script asks for does come, and is counted.
    assert said["nbytes_of_one_part"] == pytest.approx(said["parts"][0], rel=0.01)


def test_parts_come_for_tasks_alone(mpi: Mpi, tmp_path: Path) -> None:
    said = count(mpi, "anywhere", tmp_path)
    assert said["nbytes_by_script"] == 0
    assert said["nbytes_data"] <= said["nbytes_by_tasks"]
