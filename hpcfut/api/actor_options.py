"""Options of remote classes and of their methods: checked when they are given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from hpcfut.api.options import ALIASES, STREAMED, NodeAffinitySchedulingStrategy, Options
from hpcfut.model.resources import is_text
from hpcfut.model.template import RESOURCE_UNIT

#: How many calls of an actor with ``async`` methods run at a time, unless something else is said.
N_ASYNC_CALLS_MAX: Final = 1000
#: A constructor that takes longer has failed, unless it may take longer.
START_WITHIN_S: Final = 300.0

Amounts = tuple[tuple[str, int], ...]


class ActorOptions(msgspec.Struct, frozen=True):
    """The options of one remote class."""

    num_cpus: float | None = None
    num_gpus: float = 0.0
    memory: float = 0.0
    resources: Mapping[str, float] = {}
    name: str = ""
    namespace: str | None = None
    get_if_exists: bool = False
    lifetime: str = "non_detached"
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int | None = None
    concurrency_groups: Mapping[str, int] = {}
    max_pending_calls: int = -1
    allow_out_of_order_execution: bool = False
    scheduling_strategy: str | NodeAffinitySchedulingStrategy = "DEFAULT"
    runtime_env: Mapping[str, Mapping[str, str]] = {}
    isolation: str = "none"

    def updated(self, given: Mapping[str, Any]) -> ActorOptions:
        """These options with some of them changed.

        Raises:
            ValueError: An option is unknown, or its value makes no sense.
        """
        for name, value in given.items():
            if name not in ActorOptions.__struct_fields__:
                raise ValueError(
                    f"{name!r} is not an option of remote classes. Known are: "
                    f"{', '.join(ActorOptions.__struct_fields__)}."
                )
            _check(name, value, _PROBLEMS_OF_ACTORS)
        changed = {name: (value if value is not None else _ACTOR_DEFAULTS[name]) for name, value in given.items()}
        options = msgspec.structs.replace(self, **changed)
        if options.get_if_exists and not options.name:
            raise ValueError(
                "The option get_if_exists looks for an actor of the same name, and none was given. Name it."
            )
        return options

    def held(self) -> Amounts:
        """What an actor holds for life, in units of ``RESOURCE_UNIT``, sorted by name."""
        return self._amounts(self.num_cpus or 0.0)

    def needed(self) -> Amounts:
        """What must be there to place it: 1 CPU, which it does not hold, unless something else is said."""
        return self._amounts(1.0 if self.num_cpus is None else self.num_cpus)

    def _amounts(self, n_cpus: float) -> Amounts:
        wanted = {"CPU": n_cpus, "GPU": self.num_gpus, "memory": self.memory, **self.resources}
        return tuple(sorted((name, round(amount * RESOURCE_UNIT)) for name, amount in wanted.items() if amount))

    def groups(self, *, is_async: bool) -> tuple[tuple[str, int], ...]:
        """The concurrency groups, first the one of methods that name none."""
        n_calls_max = self.max_concurrency or (N_ASYNC_CALLS_MAX if is_async else 1)
        return (("", n_calls_max), *self.concurrency_groups.items())

    def env_vars(self) -> tuple[tuple[str, str], ...]:
        """The environment variables of the constructor and of methods."""
        return tuple(self.runtime_env.get("env_vars", {}).items())


class MethodOptions(msgspec.Struct, frozen=True):
    """The options of one method, or of some calls of it."""

    #: None: 1, and "streaming" for generators.
    num_returns: int | str | None = None
    name: str = ""
    concurrency_group: str = ""
    #: None: what the class says.
    max_task_retries: int | None = None
    retry_exceptions: bool | type[BaseException] | Sequence[type[BaseException]] = False
    generator_backpressure_num_objects: int = 64

    def updated(self, given: Mapping[str, Any]) -> MethodOptions:
        """These options with some of them changed.

        Raises:
            ValueError: An option is unknown, or its value makes no sense.
        """
        given = {ALIASES.get(name, name): value for name, value in given.items()}
        for name, value in given.items():
            if name not in MethodOptions.__struct_fields__:
                raise ValueError(
                    f"{name!r} is not an option of methods. Known are: {', '.join(MethodOptions.__struct_fields__)}."
                )
            _check(name, value, _PROBLEMS_OF_METHODS)
        changed = {name: (value if value is not None else _METHOD_DEFAULTS[name]) for name, value in given.items()}
        return msgspec.structs.replace(self, **changed)

    @property
    def is_streaming(self) -> bool:
        """Whether a call gives a generator of refs."""
        return self.num_returns == STREAMED

    def retried(self) -> tuple[type[BaseException], ...]:
        """The exceptions after which a call is made again."""
        return Options(retry_exceptions=self.retry_exceptions).retried()


_ACTOR_DEFAULTS: Final = msgspec.structs.asdict(ActorOptions())
_METHOD_DEFAULTS: Final = msgspec.structs.asdict(MethodOptions())


def _check(name: str, value: Any, problems: Mapping[str, Callable[[Any], str]]) -> None:
    """Refuse a value that makes no sense; what functions have as well is checked as for these."""
    if value is None:
        return
    if name not in problems:
        Options().updated({name: value})
    elif problem := problems[name](value):
        raise ValueError(f"The option {name} cannot be {value!r}: {problem}.")


def n_retries_of(option: int) -> int:
    """How often, where -1 means without limit."""
    return option if option >= 0 else sys.maxsize


def _text(value: Any) -> str:
    return "" if is_text(value) else "give a text"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "give True or False"


def _n_times(value: Any) -> str:
    return "" if type(value) is int and value >= -1 else "give a whole number, 0 or more, or -1 for no limit"


def _n_calls(value: Any) -> str:
    return "" if type(value) is int and value > 0 else "give a whole number above 0"


def _n_pending(value: Any) -> str:
    return (
        "" if type(value) is int and (value > 0 or value == -1) else "give a whole number above 0, or -1 for no limit"
    )


def _groups(value: Any) -> str:
    if not isinstance(value, Mapping) or not all(is_text(name) and name for name in value):
        return 'give a dict from names to how many calls run at a time, such as {"io": 2}'
    return next((f"{name!r}: {problem}" for name, n_calls in value.items() if (problem := _n_calls(n_calls))), "")


def _isolation(value: Any) -> str:
    if value == "process":
        return (
            "an actor runs in the process of its rank; a process of its own is there for tasks only. Leave isolation "
            'out, or give "none"'
        )
    return "" if value == "none" else 'give "none"'


#: What is wrong with the value of an option, as a part of a sentence; empty if nothing is.
_PROBLEMS_OF_ACTORS: Final[Mapping[str, Callable[[Any], str]]] = {
    "namespace": _text,
    "get_if_exists": _flag,
    "lifetime": lambda value: "" if value in ("detached", "non_detached") else 'give "detached", or "non_detached"',
    "max_restarts": _n_times,
    "max_task_retries": _n_times,
    "max_concurrency": _n_calls,
    "concurrency_groups": _groups,
    "max_pending_calls": _n_pending,
    "allow_out_of_order_execution": _flag,
    "isolation": _isolation,
}
_PROBLEMS_OF_METHODS: Final[Mapping[str, Callable[[Any], str]]] = {
    "concurrency_group": _text,
    "max_task_retries": _n_times,
}
