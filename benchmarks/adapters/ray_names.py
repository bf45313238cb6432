"""What is measured of everything that has Ray Core's names, in the shapes of Ray's own microbenchmark."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from measures import (
    ACTOR_ASYNC,
    ACTOR_SYNC,
    ASYNC_ACTOR_ASYNC,
    GET_10K_REFS,
    GET_CALLS,
    N_CONTAINED,
    N_N_WITH_ARG,
    N_WAITED,
    PUT_CALLS,
    TASKS_ASYNC,
    TASKS_SYNC,
    WAIT_1K_REFS,
    Actor,
    AsyncActor,
)
from measures import task as plain_task

from adapters import Call


def made_with(thing: Any, options: Mapping[str, Any]) -> Any:
    """A remote function or class with these options."""
    return thing.options(**options) if options else thing


class Client:
    """An actor that calls another one."""

    def __init__(self, api: str, server: Any) -> None:
        self._api = importlib.import_module(api)
        self._server = server

    def call(self, n: int) -> int:
        """So many calls with a ref as argument; the sum of what came of them."""
        ref = self._api.put(0)
        results = self._api.get([self._server.task.remote(ref) for _ in range(n)])
        return sum(number for _, number in results)


class RayNames:
    """The API is a module; options bind a task to the other process, and actors to either, where there is a choice."""

    def __init__(
        self, api: Any, options: Mapping[str, Any] | None = None, options_of_two: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.driver = os.getpid()
        self._api = api
        self._options = options or {}
        self._options_of_two = options_of_two

    def _remote(self, thing: Callable[..., Any]) -> Any:
        return made_with(self._api.remote(thing), self._options)

    def calls(self) -> Mapping[str, Call]:
        """Defined once the system is up."""
        return {**self._calls_of_tasks(), **self._calls_of_actors()}

    def _calls_of_actors(self) -> Mapping[str, Call]:
        get, remote = self._api.get, self._api.remote
        options = self._options_of_two or ({}, {})

        @functools.cache
        def actor(made: type) -> Any:
            """Made when it is first called."""
            return self._remote(made).remote()

        @functools.cache
        def clients() -> list[Any]:
            servers = [made_with(remote(Actor), options[1 - here]).remote() for here in (0, 1)]
            name = self._api.__name__
            return [made_with(remote(Client), options[here]).remote(name, servers[here]) for here in (0, 1)]

        return {
            ACTOR_SYNC: lambda n: [get(actor(Actor).task.remote(number)) for number in range(n)],
            ACTOR_ASYNC: lambda n: get([actor(Actor).task.remote(number) for number in range(n)]),
            ASYNC_ACTOR_ASYNC: lambda n: get([actor(AsyncActor).task.remote(number) for number in range(n)]),
            N_N_WITH_ARG: lambda n: get([client.call.remote(n // 2) for client in clients()]),
        }

    def _calls_of_tasks(self) -> Mapping[str, Call]:
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
