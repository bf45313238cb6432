"""Dask's distributed scheduler on one machine, with one worker process of one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import distributed
from measures import TASKS_ASYNC, TASKS_SYNC, task

from adapters import Call


class Dask:
    """`submit` for one task, and `map` for many, its fastest form."""

    def __init__(self) -> None:
        self.driver = os.getpid()
        self._client: Any = None

    def version(self) -> str:
        """Of distributed."""
        return f"distributed {distributed.__version__}"

    def run(self, body: Callable[[], None]) -> None:
        """The scheduler lives in the driver's process, as is usual on one machine."""
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster) as self._client,
        ):
            body()

    def calls(self) -> Mapping[str, Call]:
        """Tasks only. They are told not to be pure, or equal calls would run once."""
        client = self._client
        return {
            TASKS_SYNC: lambda n: [client.submit(task, number, pure=False).result() for number in range(n)],
            TASKS_ASYNC: lambda n: client.gather(client.map(task, range(n), pure=False)),
        }


ADAPTER = Dask
