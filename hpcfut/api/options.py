"""Options of remote functions: checked when they are given, so that a mistake is found where it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from hpcfut.model.resources import is_amount, is_text
from hpcfut.model.template import RESOURCE_UNIT

#: What ``num_returns`` is called for generators.
STREAMED: Final = "streaming"
#: Each is a name that is given out beforehand.
N_ITEMS_AHEAD_MAX: Final = 10_000
#: Ray's names for options that are called otherwise here.
ALIASES: Final = {"_generator_backpressure_num_objects": "generator_backpressure_num_objects"}


class NodeAffinitySchedulingStrategy:
    """Run the task on one rank.

    Example:
        >>> there = hpcfut.NodeAffinitySchedulingStrategy(hpcfut.nodes()[-1]["NodeID"])
        >>> hpcfut.get(hpcfut.remote(scheduling_strategy=there)(lambda: "there").remote())
        'there'

    Args:
        node_id: The rank, as an integer or as ``nodes()`` gives it (``NodeID``).
        soft: Run elsewhere if that rank can never run the task, is dead, or was a spare, instead of failing.

    Raises:
        ValueError: ``node_id`` is no number of a rank.
    """

    def __init__(self, node_id: int | str, soft: bool = False) -> None:
        if not str(node_id).isdecimal():
            raise ValueError(f"A task cannot be bound to rank {node_id!r}: give a whole number, 0 or more.")
        self.node_id = int(node_id)
        self.soft = soft

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeAffinitySchedulingStrategy) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.node_id, self.soft))


class Options(msgspec.Struct, frozen=True):
    """The options of one remote function."""

    #: None: 1, and "streaming" for a generator function.
    num_returns: int | str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: float = 0.0
    resources: Mapping[str, float] = {}
    name: str = ""
    scheduling_strategy: str | NodeAffinitySchedulingStrategy = "DEFAULT"
    max_retries: int = 3
    retry_exceptions: bool | type[BaseException] | Sequence[type[BaseException]] = False
    generator_backpressure_num_objects: int = 64
    runtime_env: Mapping[str, Mapping[str, str]] = {}
    isolation: str = "none"
    max_calls: int = 0

    def updated(self, given: Mapping[str, Any]) -> Options:
        """These options with some of them changed.

        Raises:
            ValueError: An option is unknown, or its value makes no sense.
        """
        given = {ALIASES.get(name, name): value for name, value in given.items()}
        for name, value in given.items():
            if name not in Options.__struct_fields__:
                raise ValueError(
                    f"{name!r} is not an option of remote functions. Known are: {', '.join(Options.__struct_fields__)}."
                )
            problem = _PROBLEMS[name](value) if value is not None else ""
            if problem:
                raise ValueError(f"The option {name} cannot be {value!r}: {problem}.")
        changed = {name: (value if value is not None else _DEFAULTS[name]) for name, value in given.items()}
        options = msgspec.structs.replace(self, **changed)
        if options.max_calls and not options.is_isolated:
            raise ValueError(
                "The option max_calls ends the process of a task after so many calls, and the tasks of a rank share "
                'one process, which is the rank. It needs isolation="process".'
            )
        return options

    @property
    def is_isolated(self) -> bool:
        """Whether the code runs in a child process."""
        return self.isolation == "process"

    def amounts(self) -> tuple[tuple[str, int], ...]:
        """What a task holds while it runs, in units of ``RESOURCE_UNIT``, sorted by name."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory, **self.resources}
        return tuple(sorted((name, round(amount * RESOURCE_UNIT)) for name, amount in wanted.items() if amount))

    def retried(self) -> tuple[type[BaseException], ...]:
        """The exceptions after which a task is tried again."""
        if isinstance(self.retry_exceptions, bool):
            return (Exception,) if self.retry_exceptions else ()
        return (self.retry_exceptions,) if isinstance(self.retry_exceptions, type) else tuple(self.retry_exceptions)

    def env_vars(self) -> tuple[tuple[str, str], ...]:
        """The environment variables of a task."""
        return tuple(self.runtime_env.get("env_vars", {}).items())


_DEFAULTS: Final = msgspec.structs.asdict(Options())


def _amount(value: Any) -> str:
    return "" if is_amount(value) else "give a number, 0 or more"


def _num_returns(value: Any) -> str:
    if value == "dynamic":
        return 'give "streaming", which gives each ref as soon as its value is there'
    is_number = type(value) is int and value >= 0
    return "" if is_number or value == STREAMED else 'give a whole number, 0 or more, or "streaming"'


def _resources(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "give a dict from names to amounts"
    for name, amount in value.items():
        if name in ("CPU", "GPU", "memory"):
            return f"{name} has an option of its own"
        if not is_text(name) or not is_amount(amount):
            return "give a dict from names to amounts, 0 or more"
    return ""


def _strategy(value: Any) -> str:
    is_known = isinstance(value, NodeAffinitySchedulingStrategy) or value in ("DEFAULT", "SPREAD")
    return "" if is_known else 'give "DEFAULT", "SPREAD" or a NodeAffinitySchedulingStrategy'


def _max_retries(value: Any) -> str:
    return "" if type(value) is int and value >= -1 else "give a whole number, 0 or more, or -1 for no limit"


def _retry_exceptions(value: Any) -> str:
    types = value if isinstance(value, list | tuple) else (value,)
    if isinstance(value, bool) or all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in types):
        return ""
    return "give True for all exceptions, False for none, or the types of those after which a task is tried again"


def _backpressure(value: Any) -> str:
    if type(value) is int and 0 < value <= N_ITEMS_AHEAD_MAX:
        return ""
    return f"give a whole number from 1 to {N_ITEMS_AHEAD_MAX}, how many values may be made before they are asked for"


def _runtime_env(value: Any) -> str:
    if not isinstance(value, Mapping):
        return 'give a dict such as {"env_vars": {"NAME": "value"}}'
    for key in value:
        if key != "env_vars":
            return (
                f"only env_vars can be set for a task, and {key!r} cannot, because a rank is one process, which runs "
                f"in the environment that the job was started in"
            )
    variables = value.get("env_vars", {})
    if not isinstance(variables, Mapping) or not all(map(_is_variable, variables.items())):
        return "env_vars must be a dict from names to values, all of them texts that an environment can hold"
    return ""


def _is_variable(item: tuple[Any, Any]) -> bool:
    name, value = item
    return is_text(name) and is_text(value) and bool(name) and "=" not in name and "\0" not in name + value


#: What is wrong with the value of an option, as a part of a sentence; empty if nothing is.
_PROBLEMS: Final[Mapping[str, Callable[[Any], str]]] = {
    "num_returns": _num_returns,
    "num_cpus": _amount,
    "num_gpus": _amount,
    "memory": _amount,
    "resources": _resources,
    "name": lambda value: "" if is_text(value) else "give a text",
    "scheduling_strategy": _strategy,
    "max_retries": _max_retries,
    "retry_exceptions": _retry_exceptions,
    "generator_backpressure_num_objects": _backpressure,
    "runtime_env": _runtime_env,
    "isolation": lambda value: "" if value in ("none", "process") else 'give "process", or "none"',
    "max_calls": lambda value: "" if type(value) is int and value >= 0 else "give a whole number, 0 for no limit",
}
