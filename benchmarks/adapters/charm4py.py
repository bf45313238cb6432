"""charm4py's pool: processing element 0 drives and element 1 is its one worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import metadata

from charm4py import charm
from measures import TASKS_ASYNC, TASKS_SYNC, task

from adapters import Call


class Charm4py:
    """`Task` is its fastest form for one task, and `map` for many."""

    def __init__(self) -> None:
        self.driver = os.getpid()

    def version(self) -> str:
        """Of charm4py."""
        return f"charm4py {metadata.version('charm4py')}"

    def run(self, body: Callable[[], None]) -> None:
        """Every element comes by here; the body runs on the first."""

        def main(args: list[str]) -> None:
            body()
            charm.exit()

        charm.start(main)

    def calls(self) -> Mapping[str, Call]:
        """Tasks only: the pool has no store."""
        pool = charm.pool
        return {
            TASKS_SYNC: lambda n: [pool.Task(task, (number,), ret=True).get() for number in range(n)],
            TASKS_ASYNC: lambda n: list(pool.map(task, range(n))),
        }


ADAPTER = Charm4py
