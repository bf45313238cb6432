"""The functions of the tasks that run in this process: a rank, or a child process of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpcfut.model.template import STREAMING, TaskTemplate
from hpcfut.runtime.environments import Environments
from hpcfut.wire.pickling import Pickling


class Functions:
    """Each is loaded once, by the first task that needs it."""

    def __init__(self, pickling: Pickling, environments: Environments) -> None:
        self._pickling = pickling
        self._environments = environments
        #: By template: the function, and the number of its results.
        self.loaded: dict[int, tuple[Callable[..., Any], int]] = {}
        #: What no task needs any more, to be dropped where code of the user's may run.
        self.forgotten: list[object] = []
        #: Of the functions that are tried again: after which exceptions.
        self._retried: dict[int, tuple[type[BaseException], ...]] = {}

    def load(self, template: TaskTemplate) -> tuple[Callable[..., Any], int]:
        """Load the function of a template; raises what the user's code raises meanwhile."""
        return self.keep(template, self._pickling.loads(template.function))

    def keep(
        self, template: TaskTemplate, function: Callable[..., Any], *, is_loop: bool = False
    ) -> tuple[Callable[..., Any], int]:
        """Keep the function of a template; in an event loop, which sets the variables for each step, as it is."""
        if template.retry_exceptions:
            self._retried[template.template_id] = self._pickling.loads(template.retry_exceptions)
        if template.env_vars and not is_loop:
            is_generator = template.n_returns == STREAMING
            function = self._environments.around(function, dict(template.env_vars), is_generator=is_generator)
        loaded = self.loaded[template.template_id] = (function, template.n_returns)
        return loaded

    def forget(self, template_id: int) -> None:
        """No further task of a template will come."""
        # What a function holds may run code of the user's as it goes, which must not happen in a turn.
        self.forgotten.append((self.loaded.pop(template_id, None), self._retried.pop(template_id, None)))

    def is_tried_again(self, template_id: int, error: BaseException) -> bool:
        """Whether a task of this template is tried again after an exception."""
        return isinstance(error, self._retried.get(template_id, ()))
