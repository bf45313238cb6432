"""What is measured of everything that has Ray Core's names, in the shapes of Ray's own microbenchmark."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from measures import GET_10K_REFS, GET_CALLS, N_CONTAINED, N_WAITED, PUT_CALLS, TASKS_ASYNC, TASKS_SYNC, WAIT_1K_REFS
from measures import task as plain_task

from adapters import Call


class RayNames:
    """The API is a module; `options` bind a task to the other process where there is a choice."""

    def __init__(self, api: Any, **options: Any) -> None:
        self.driver = os.getpid()
        self._api = api
        self._options = options

    def _remote(self, function: Callable[..., Any]) -> Any:
        remote = self._api.remote(function)
        return remote.options(**self._options) if self._options else remote

    def calls(self) -> Mapping[str, Call]:
        """Defined once the system is up."""
        api = self._api
        get, put, wait = api.get, api.put, api.wait
        task = self._remote(plain_task)

        def make_refs() -> list[Any]:
            return [put(1) for _ in range(N_CONTAINED)]

        small, containing = put(0), self._remote(make_refs).remote()
        fresh = put([0])
        if get(fresh) is get(fresh):
            raise RuntimeError("Two calls of get() gave one object: a cache is measured, and not get().")

        def put_calls(n: int) -> list[int]:
            for _ in range(n):
                put(0)
            return [n]

        def wait_refs(n: int) -> list[int]:
            n_ready = 0
            for _ in range(n):
                waiting = [task.remote(number) for number in range(N_WAITED)]
                is_first = True
                while waiting:
                    # As Ray does it: asked to fetch once, it goes on fetching.
                    ready, waiting = wait(waiting, fetch_local=is_first)
                    n_ready += len(ready)
                    is_first = False
            return [n_ready]

        return {
            TASKS_SYNC: lambda n: [get(task.remote(number)) for number in range(n)],
            TASKS_ASYNC: lambda n: get([task.remote(number) for number in range(n)]),
            GET_CALLS: lambda n: [get(small) for _ in range(n)],
            PUT_CALLS: put_calls,
            WAIT_1K_REFS: wait_refs,
            GET_10K_REFS: lambda n: [len(get(containing)) for _ in range(n)],
        }
