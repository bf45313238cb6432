"""Environment variables of tasks (``runtime_env={"env_vars": …}``), in a process that many tasks share.

A task's variables are set while its own code runs. While it waits inside hpcfut they are taken off, because other tasks
run meanwhile, on this thread or on others, and put on again when it goes on. Where two tasks with variables run at the
same time (with more slots than one, or for a moment after a task has waited), those that were put on last win; whatever
the order in which they end, the variables are then what they were before the first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any

from hpcfut.model.errors import TaskCancelledError

Variables = Mapping[str, str]


class Environments:
    """The variables of the tasks that run here now."""

    def __init__(self, task_of_thread: Callable[[], int]) -> None:
        self._task_of_thread = task_of_thread
        #: The variables of tasks that have some and have not ended.
        self.of_task: dict[int, Variables] = {}
        #: What is on, by task, the latest last.
        self._on: dict[int, Variables] = {}
        #: What these variables were before.
        self._before: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def around(self, function: Callable[..., Any], variables: Variables, *, is_generator: bool) -> Callable[..., Any]:
        """The function of a task, with these variables while its code runs."""
        return partial(self.iterate if is_generator else self.call, function, variables)

    def call(self, function: Callable[..., Any], variables: Variables, /, *args: Any, **kwargs: Any) -> Any:
        """Run the code of a task."""
        task_id = self._begin(variables)
        try:
            return function(*args, **kwargs)
        finally:
            try:
                self._end(task_id)
            except TaskCancelledError:  # It comes out of the task's code here at the latest.
                self._end(task_id)
                raise

    def iterate(
        self, function: Callable[..., Any], variables: Variables, /, *args: Any, **kwargs: Any
    ) -> Generator[Any, Any, None]:
        """Run the code of a generator."""
        task_id = self._begin(variables)
        try:
            yield from function(*args, **kwargs)
        finally:
            try:
                self._end(task_id)
            except TaskCancelledError:
                self._end(task_id)
                raise

    def _begin(self, variables: Variables) -> int:
        task_id = self._task_of_thread()
        self.of_task[task_id] = variables
        self.put_on(task_id)
        return task_id

    def _end(self, task_id: int) -> None:
        self.take_off(task_id)
        del self.of_task[task_id]

    def put_on(self, task_id: int) -> None:
        """The code of a task begins, or goes on."""
        variables = self.of_task.get(task_id)
        if variables is None:
            return
        with self._lock:
            self._on[task_id] = variables
            for name, value in variables.items():
                self._before.setdefault(name, os.environ.get(name))
                os.environ[name] = value

    def take_off(self, task_id: int) -> None:
        """The code of a task ends, or waits."""
        variables = self.of_task.get(task_id)
        if variables is None:
            return
        with self._lock:
            self._on.pop(task_id, None)
            for name in variables:
                value = next((others[name] for others in reversed(self._on.values()) if name in others), None)
                if value is None:
                    value = self._before.pop(name)
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
