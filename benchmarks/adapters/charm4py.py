"""charm4py's pool: processing element 0 drives and element 1 is its one worker."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from charm4py import Chare, charm
from measures import ACTOR_ASYNC, ACTOR_SYNC, TASKS_ASYNC, TASKS_SYNC, task

from adapters import Call


class Server(Chare):  # type: ignore[misc]  # It has no types.
    """What charm4py has as an actor."""

    def task(self, number: int) -> tuple[int, int]:
        return task(number)


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

        charm.start(main, classes=[Server])

    def calls(self) -> Mapping[str, Call]:
        """Tasks and calls of a chare: the pool has no store."""
        pool = charm.pool

        @functools.cache
        def server() -> Any:
            return Chare(Server, onPE=1)

        def many(n: int) -> list[tuple[int, int]]:
            futures = [server().task(number, ret=True) for number in range(n)]
            return [future.get() for future in futures]

        return {
            ACTOR_SYNC: lambda n: [server().task(number, ret=True).get() for number in range(n)],
            ACTOR_ASYNC: many,
            TASKS_SYNC: lambda n: [pool.Task(task, (number,), ret=True).get() for number in range(n)],
            TASKS_ASYNC: lambda n: list(pool.map(task, range(n))),
        }


ADAPTER = Charm4py
