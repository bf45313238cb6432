"""`examples/wordcount.py` as a person starts it, under each MPI."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from tests.examples.texts import make_texts
from tests.mpi.jobs import CHECKOUT, CompletedJob, Mpi, run_job

pytestmark = pytest.mark.mpi

WORDCOUNT = CHECKOUT / "examples" / "wordcount.py"
AGREES = "A serial count of the same files agrees."

#: The word count with another map task, which counts wrongly.
WRONG = """
import sys
from collections import Counter
sys.path.insert(0, {examples!r})
import hpcfut
import wordcount

@hpcfut.remote
def map_files(paths, n_parts):
    words, files = wordcount.count_words(paths)
    {change}
    return files, *wordcount.split(words, n_parts)

wordcount.map_files = map_files
wordcount.main()
"""
CHANGES = {
    "none": "pass",
    "a word too many": "words['common'] += 1",
    "another word": "words = Counter({word.replace('onlyx', 'onlyy'): n for word, n in words.items()})",
}


def run(mpi: Mpi, n_ranks: int, *args: object) -> CompletedJob:
    return run_job(mpi, n_ranks, WORDCOUNT, *args)


@pytest.mark.parametrize(
    ("n_ranks", "options"),
    [(1, []), (2, ["--maps", "3", "--reduces", "5"]), (5, [])],
    ids=["1", "2", "5"],
)
def test_known_words_are_counted(mpi: Mpi, n_ranks: int, options: list[str], tmp_path: Path) -> None:
    words = make_texts(tmp_path)
    given = ["--pattern", "*.txt", "--exclude", "left out", "--top", "2", "--verify", *options]
    job = run(mpi, n_ranks, tmp_path, *given).check()
    shown = [line.split() for line in job.stdout.splitlines() if line]
    assert shown[0] == ["word", "count"]
    assert shown[1:3] == [["common", str(words["common"])], ["ärger", str(words["ärger"])]], job.story()
    assert f"{words.total():,} words, {len(words):,} of them distinct, in 13 files" in job.stdout
    assert f"on {n_ranks} rank(s) of 1 host(s)" in job.stdout
    assert job.stdout.endswith(f"{AGREES}\n")


@pytest.mark.parametrize("n_ranks", [1, 2, 5])
def test_sources_of_python_are_counted(mpi: Mpi, n_ranks: int) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    job = run(mpi, n_ranks, library / "email", library / "json", library / "asyncio", "--verify").check()
    assert job.stdout.endswith(f"{AGREES}\n"), job.story()


@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_count_is_found(mpi: Mpi, change: str, tmp_path: Path) -> None:
    make_texts(tmp_path)
    script = tmp_path / "wrong.py"
    script.write_text(WRONG.format(examples=str(WORDCOUNT.parent), change=CHANGES[change]))
    job = run_job(mpi, 2, script, tmp_path, "--pattern", "*.txt", "--top", "1", "--verify")
    job.check(0 if change == "none" else 1)
    assert (AGREES in job.stdout) == (change == "none"), job.story()
    assert ("differs from what the tasks counted" in job.stderr) == (change != "none"), job.story()


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_folder_that_is_not_there(mpi: Mpi, n_ranks: int, tmp_path: Path) -> None:
    job = run(mpi, n_ranks, tmp_path / "nowhere").check(2)
    assert f"There is no folder {tmp_path / 'nowhere'}." in job.stderr, job.story()
    assert "Traceback" not in job.stderr, job.story()


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_folder_with_nothing_to_count(mpi: Mpi, n_ranks: int, tmp_path: Path) -> None:
    job = run(mpi, n_ranks, tmp_path).check(2)
    assert f"No file in {tmp_path} matches *.py: name another --pattern." in job.stderr, job.story()
    assert "Traceback" not in job.stderr, job.story()
