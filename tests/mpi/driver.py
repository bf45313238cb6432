"""The script on rank 0 of a shared job: runs cases one after the other and reports on each.

Usage: driver.py REPORT N_RANKS MODULE:FUNCTION...

The report has one JSON object a line: `{"case", "event": "started"}`, then `{"case", "event":
"passed" | "failed" | "skipped", "text", "duration_s"}`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import time
import traceback
import unittest
from typing import IO


def run_case(name: str, n_ranks: int) -> tuple[str, str]:
    """Runs one case; returns its outcome and what is to be said about it."""
    module_name, function_name = name.split(":")
    try:
        case = getattr(importlib.import_module(f"programs.{module_name}"), function_name)
        case(**({"n_ranks": n_ranks} if "n_ranks" in inspect.signature(case).parameters else {}))
        check_emptiness(is_final=False)
    except unittest.SkipTest as skip:
        return "skipped", str(skip)
    except BaseException as error:  # A case may raise anything, and the next one must run.
        # The values of the local variables stand in for pytest's comparison of both sides.
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        return "failed", "".join(told.format())
    return "passed", ""


def check_emptiness(*, is_final: bool) -> None:
    """Asserts that nothing is left in any table of any rank, if there are ranks at all."""
    if "hpcfut" in sys.modules:
        importlib.import_module("tests.mpi.support").assert_nothing_left(is_final=is_final)


def write(report: IO[str], **line: object) -> None:
    """Appends a line to the report, at once: the next case may kill the job."""
    report.write(json.dumps(line) + "\n")
    report.flush()


def main(report_path: str, n_ranks: str, *cases: str) -> None:
    """Runs all the cases."""
    with open(report_path, "a", encoding="utf-8") as report:
        for case in cases:
            write(report, case=case, event="started")
            print(f"== {case}", file=sys.stderr, flush=True)
            started = time.monotonic()
            event, text = run_case(case, int(n_ranks))
            write(report, case=case, event=event, text=text, duration_s=time.monotonic() - started)
    check_emptiness(is_final=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
