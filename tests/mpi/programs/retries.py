"""``max_retries`` and ``retry_exceptions``."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hpcfut
from hpcfut.exceptions import TaskError
from tests.mpi.support import raised


class OwnError(Exception):
    """What users define."""


class MoreSpecialError(OwnError):
    """Is one of those."""


@contextmanager
def attempts() -> Iterator[Path]:
    """A file of which each attempt makes a line."""
    with tempfile.TemporaryDirectory(prefix="attempts-") as folder:
        yield Path(folder) / "attempts"


def n_lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@hpcfut.remote
def fail(path: Path, n_failures: int, error: BaseException, value: Any = None) -> Any:
    with path.open("a") as file:
        file.write("\n")
    if n_lines(path) <= n_failures:
        raise error
    return value


def n_attempts(error: BaseException, n_failures: int = 100, **options: Any) -> int:
    """How often a task that raises is tried."""
    with attempts() as path:
        ref = fail.options(**options).remote(path, n_failures, error)
        if n_failures == 100:
            raised(type(error), hpcfut.get, ref)
        else:
            hpcfut.get(ref)
        return n_lines(path)


def case_a_task_that_raises_is_not_tried_again_by_default() -> None:
    assert n_attempts(OwnError("x")) == 1
    assert n_attempts(OwnError("x"), max_retries=7) == 1
    assert n_attempts(OwnError("x"), retry_exceptions=False) == 1
    assert n_attempts(OwnError("x"), retry_exceptions=None, max_retries=None) == 1


def case_how_often_a_task_is_tried() -> None:
    assert n_attempts(OwnError("x"), retry_exceptions=True) == 4
    assert n_attempts(OwnError("x"), retry_exceptions=True, max_retries=1) == 2
    assert n_attempts(OwnError("x"), retry_exceptions=True, max_retries=0) == 1
    assert n_attempts(OwnError("x"), n_failures=2, retry_exceptions=True) == 3
    assert n_attempts(OwnError("x"), n_failures=9, retry_exceptions=True, max_retries=-1) == 10


def case_after_which_exceptions_a_task_is_tried_again() -> None:
    assert n_attempts(OwnError("x"), retry_exceptions=OwnError) == 4
    assert n_attempts(MoreSpecialError("x"), retry_exceptions=[KeyError, OwnError]) == 4
    assert n_attempts(OwnError("x"), retry_exceptions=(MoreSpecialError,)) == 1
    assert n_attempts(KeyError("x"), retry_exceptions=[]) == 1
    assert n_attempts(SystemExit(3), retry_exceptions=True) == 1
    assert n_attempts(SystemExit(3), retry_exceptions=SystemExit) == 4


def case_a_class_of_the_script_or_of_a_function() -> None:
    class LocalError(Exception):
        pass

    @hpcfut.remote(retry_exceptions=[LocalError], max_retries=2)
    def fail_twice(path: Path) -> int:
        with path.open("a") as file:
            file.write("\n")
        if len(path.read_text()) < 3:
            raise LocalError("again")
        return len(path.read_text())

    with attempts() as path:
        assert hpcfut.get(fail_twice.remote(path)) == 3


def case_the_error_of_another_task_counts_as_what_that_raised() -> None:
    @hpcfut.remote(retry_exceptions=[OwnError], max_retries=2)
    def outer(path: Path, inner: Path) -> int:
        with path.open("a") as file:
            file.write("\n")
        hpcfut.get(fail.remote(inner, 2, OwnError("inner")))
        return n_lines(path)

    with attempts() as path, attempts() as inner:
        assert hpcfut.get(outer.remote(path, inner)) == 3


def case_arguments_and_refs_are_there_for_each_attempt() -> None:
    with attempts() as path:
        large = hpcfut.put(bytes(1_000_000))
        inside = [hpcfut.put("inside")]
        ref = fail.options(retry_exceptions=True).remote(path, 2, OwnError("x"), (large, inside))
        del large
        del inside
        found, (inner,) = hpcfut.get(ref)
        assert len(hpcfut.get(found)) == 1_000_000
        assert hpcfut.get(inner) == "inside"
    with attempts() as path:
        size = hpcfut.remote(
            lambda path, value: len(value) if n_lines(path) else hpcfut.get(fail.remote(path, 9, OSError()))
        )
        again = size.options(retry_exceptions=OSError).remote(path, hpcfut.put(bytes(500_000)))
        assert hpcfut.get(again) == 500_000


def case_several_results() -> None:
    with attempts() as path:
        refs = fail.options(retry_exceptions=True, num_returns=2).remote(path, 1, OwnError("x"), (1, 2))
        assert hpcfut.get(refs) == [1, 2]
        assert n_lines(path) == 2


def case_a_result_that_cannot_be_sent_is_tried_again_too() -> None:
    @hpcfut.remote(retry_exceptions=True, max_retries=2)
    def make(path: Path) -> Any:
        with path.open("a") as file:
            file.write("\n")
        return threading.Lock() if n_lines(path) < 3 else n_lines(path)

    with attempts() as path:
        assert hpcfut.get(make.remote(path)) == 3


def case_the_last_error_is_told() -> None:
    @hpcfut.remote(retry_exceptions=True, max_retries=2)
    def fail_differently(path: Path) -> None:
        with path.open("a") as file:
            file.write("\n")
        raise OwnError(f"attempt {n_lines(path)} in {os.getpid() > 0}")

    with attempts() as path:
        error = raised(OwnError, hpcfut.get, fail_differently.remote(path))
        assert isinstance(error, TaskError)
        assert "attempt 3" in str(error)
