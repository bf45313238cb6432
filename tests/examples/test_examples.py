"""Every example, as a person starts it: on one rank by Python alone, on several under each MPI."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.mpi.jobs import CHECKOUT, CompletedJob, Mpi, run_job

FOLDER: Final = CHECKOUT / "examples"
N_LINES_MAX: Final = 60
#: Has tests of its own, and options to learn from.
LARGE: Final = ("wordcount",)
#: Example → lines that it prints on ``{n}`` ranks, as regular expressions, each as often as it stands here.
PRINTED: Final = {
    "columns": [
        "column 0: mean   0.00, deviation  0.00",
        "column 1: mean   1.00, deviation  1.00",
        "column 2: mean   2.00, deviation  2.00",
        "column 3: mean   3.00, deviation  3.00",
        "column 4: mean   4.00, deviation  4.00",
        "column 5: mean   5.00, deviation  5.00",
        "column 6: mean   5.99, deviation  6.01",
        "column 7: mean   7.00, deviation  7.00",
    ],
    "hello": [
        "Hello world, this is rank [0-9] on .*",
        "Hello driver, this is rank {last} on .*",
        "[0-9]+ words were said by all ranks.",
    ],
    "coroutines": [
        "a letter gets the stamp 1439.",
        "a parcel gets the stamp 1126.",
        "a postcard gets the stamp 87265.",
        "Meanwhile the event loop went on.",
    ],
    "life": ["In generation 180 55 cells are alive."],
    "parameter_server": ["After 80 steps the weights are those of least squares: True."],
    "pi": ["π is about 3.1414, after 10,000,000 points."],
    "pipeline": ["In 3,000,000 samples there is a sine of amplitude 0.101."],
    "spmd": [
        "After 100 steps the plate has taken up 995.7.",
        "After 200 steps the plate has taken up 1427.7.",
        "After 300 steps the plate has taken up 1752.2.",
        "After 400 steps the plate has taken up 2020.8.",
    ],
    "sweep": [
        "r = 2.9   -0.105  order",
        "r = 3.3   -0.619  order",
        "r = 3.5   -0.872  order",
        "r = 3.56  -0.077  order",
        "r = 3.7   .0.356  chaos",
        "r = 3.83  -0.366  order",
        "r = 3.9   .0.499  chaos",
        "r = 4.5   failed: ValueError: x leaves the interval for r = 4.5",
    ],
    "nested": [
        "The integral is 9.2104403669.., and it should be 9.2104403669...",
        "It took 2801 tasks, up to 23 deep, on {n} rank.s..",
    ],
}
#: Every rank runs them.
SPMD: Final = ("spmd",)
EXAMPLES: Final = [path.stem for path in sorted(FOLDER.glob("*.py")) if path.stem not in LARGE]


def check_output(name: str, n_ranks: int, job: CompletedJob) -> None:
    printed = job.check().stdout.splitlines()
    for pattern in PRINTED[name]:
        pattern = pattern.format(n=n_ranks, last=n_ranks - 1)
        assert sum(bool(re.fullmatch(pattern, line)) for line in printed) == 1, f"{pattern}\n{job.story()}"


@pytest.mark.mpi
@pytest.mark.parametrize("n_ranks", [1, 3])
@pytest.mark.parametrize("name", EXAMPLES)
def test_it_says_what_it_should(mpi: Mpi, name: str, n_ranks: int) -> None:
    script = FOLDER / f"{name}.py"
    if name in SPMD:
        # Open MPI leaves a segment behind where one process without a launcher starts MPI.
        job = run_job(mpi, n_ranks, "--spmd", script, how="mpirun python -m hpcfut")
    else:
        job = run_job(mpi, n_ranks, script, how="python" if n_ranks == 1 else "hpcfut run")
    check_output(name, n_ranks, job)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_short_and_says_how_to_start_it(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < N_LINES_MAX
    option = "--spmd " if name in SPMD else ""
    assert f"    python examples/{name}.py" in text
    assert f"    hpcfut run -n 4 {option}examples/{name}.py" in text


def test_each_is_listed_and_none_else() -> None:
    for page in (FOLDER / "README.md", CHECKOUT / "README.md"):
        listed = re.findall(r"^\| \[?`(?:examples/)?(\w+)\.py", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert sorted(listed) == sorted([*EXAMPLES, *LARGE]), page
