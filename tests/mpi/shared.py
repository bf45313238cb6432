"""Jobs that many tests share: starting ranks costs more than most cases do.

A case is a function `case_…()` or `case_…(n_ranks)` in `programs/`. It runs on rank 0, as the body
of a script would; all cases of one MPI and one number of ranks run in one job, in turn.
`unittest.SkipTest` skips a case.
"""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mpi.jobs import CompletedJob, How, Mpi, run_job

PROGRAMS = Path(__file__).parent / "programs"
DRIVER = Path(__file__).parent / "driver.py"
JOB_ENDS_WELL = "job:ends_well"
#: How long the case of a test has taken in its job: what `--durations` is to tell.
DURATION_S = pytest.StashKey[float]()


def find_cases(folder: Path = PROGRAMS) -> list[str]:
    """The cases as `module:function`; read, not imported: a broken module fails alone."""
    cases = []
    for path in sorted(folder.glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
        cases += [f"{path.stem}:{name}" for name in functions if name.startswith("case_")]
    return cases


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    event: str
    text: str
    duration_s: float = 0.0


class SharedJob:
    """One finished job and what it reported."""

    def __init__(self, job: CompletedJob, report: Iterable[str]) -> None:
        self.job = job
        self._outcomes: dict[str, Outcome] = {}
        self._unfinished: str | None = None
        for line in map(json.loads, report):
            if line["event"] == "started":
                self._unfinished = line["case"]
            else:
                self._unfinished = None
                self._outcomes[line["case"]] = Outcome(line["event"], line["text"], line["duration_s"])

    def outcome(self, case: str) -> Outcome:
        """What became of a case; the one that killed the job is named to the others."""
        if case == JOB_ENDS_WELL:
            well = self.job.returncode == 0 and not self.job.timed_out and not self.job.leftovers
            return Outcome("passed" if well else "failed", "The job did not end well.")
        if case in self._outcomes:
            return self._outcomes[case]
        if case == self._unfinished:
            how = "never came to an end" if self.job.timed_out else "ended the job"
            return Outcome("failed", f"This case {how}.")
        culprit = self._unfinished or "(none of the cases)"
        return Outcome("failed", f"Not run: {culprit} ended the job before this case.")

    def check(self, case: str) -> None:
        """Passes, skips or fails the running test as the case did."""
        outcome = self.outcome(case)
        if outcome.event == "skipped":
            pytest.skip(outcome.text)
        if outcome.event == "failed":
            # The output of the whole job belongs to whoever ended it.
            whole = case in (self._unfinished, JOB_ENDS_WELL)
            pytest.fail(
                f"{outcome.text}\n{self.job.story() if whole else self._output_of(case)}",
                pytrace=False,
            )

    def _output_of(self, case: str) -> str:
        after = self.job.stderr.partition(f"== {case}\n")[2].partition("\n== ")[0]
        return f"--- stderr of the job meanwhile\n{after}" if after else ""


def run_cases(
    mpi: Mpi,
    n_ranks: int,
    cases: Sequence[str],
    *,
    case_timeout_s: float = 60.0,
    driver: Path = DRIVER,
    how: How = "hpcfut run",
) -> SharedJob:
    """Runs cases in one job; one that takes longer than `case_timeout_s` ends it."""
    with tempfile.TemporaryDirectory(prefix="report-") as folder:
        report = Path(folder) / "report.jsonl"
        report.touch()
        job = run_job(
            mpi,
            n_ranks,
            driver,
            report,
            n_ranks,
            *cases,
            how=how,
            timeout_s=case_timeout_s,
            progress=report,
        )
        return SharedJob(job, report.read_text(encoding="utf-8").splitlines())


class SharedJobs:
    """The jobs of a test session, each run when its first case is asked for."""

    def __init__(self, wanted: dict[tuple[str, int], list[str]]) -> None:
        self._wanted = wanted
        self._jobs: dict[tuple[str, int], SharedJob] = {}

    def job(self, mpi: Mpi, n_ranks: int) -> SharedJob:
        """The one of this MPI with so many ranks."""
        key = mpi.name, n_ranks
        if key not in self._jobs:
            cases = [name for name in self._wanted[key] if name != JOB_ENDS_WELL]
            self._jobs[key] = run_cases(mpi, n_ranks, cases)
        return self._jobs[key]
