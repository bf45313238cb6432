"""Worlds know nothing of each other: those that many tests ask for are run beside each other, ahead of the tests."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

import pytest

N_PROCESSES = 2

Result = TypeVar("Result")


def run_ahead(
    request: pytest.FixtureRequest, test: Callable[..., None], argument: str, run: Callable[[Any], Result]
) -> Iterator[Mapping[Any, Future[Result]]]:
    """What a fixture of a module yields: for each value of this argument with which the test was selected, its result.

    ``run`` is a function of a module, which other processes import; what it raises, the result raises.
    """
    # In the order in which the tests ask for them.
    wanted = [
        item.callspec.params[argument]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and item.originalname == test.__name__
    ]
    # Not forked: the process of the tests may have threads.
    pool = ProcessPoolExecutor(N_PROCESSES, multiprocessing.get_context("spawn"))
    try:
        yield {value: pool.submit(run, value) for value in wanted}
    finally:
        pool.shutdown(cancel_futures=True)
