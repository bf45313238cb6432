"""Options of remote functions: checked when they are given, so that a mistake is found where it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hpcfut.model.resources import is_amount, is_text
from hpcfut.model.template import RESOURCE_UNIT


class NodeAffinitySchedulingStrategy:
    """Run the task on one rank.

    Args:
        node_id: The rank, as an integer or as ``nodes()`` gives it (``NodeID``).
        soft: Run elsewhere if that rank can never run the task, instead of failing.

    Raises:
        ValueError: ``node_id`` is no number of a rank.
    """

    def __init__(self, node_id: int | str, soft: bool = False) -> None:
        if not str(node_id).isdecimal():
            raise ValueError(f"A task cannot be bound to rank {node_id!r}: give a whole number, 0 or more.")
        self.node_id = int(node_id)
        self.soft = soft


class Options(msgspec.Struct, frozen=True):
    """The options of one remote function."""

    num_returns: int = 1
    num_cpus: float = 1.0
    memory: float = 0.0
    resources: Mapping[str, float] = {}
    name: str = ""
    scheduling_strategy: str | NodeAffinitySchedulingStrategy = "DEFAULT"

    def updated(self, given: Mapping[str, Any]) -> Options:
        """These options with some of them changed.

        Raises:
            ValueError: An option is unknown, or its value makes no sense.
        """
        for name, value in given.items():
            if name not in Options.__struct_fields__:
                raise ValueError(
                    f"{name!r} is not an option of remote functions. Known are: {', '.join(Options.__struct_fields__)}."
                )
            _check(name, value)
        changed = {name: (value if value is not None else _DEFAULTS[name]) for name, value in given.items()}
        return msgspec.structs.replace(self, **changed)

    def amounts(self) -> tuple[tuple[str, int], ...]:
        """What a task holds while it runs, in units of ``RESOURCE_UNIT``, sorted by name."""
        wanted = {"CPU": self.num_cpus, "memory": self.memory, **self.resources}
        return tuple(sorted((name, round(amount * RESOURCE_UNIT)) for name, amount in wanted.items() if amount))


_DEFAULTS: Final = msgspec.structs.asdict(Options())


def _check(name: str, value: Any) -> None:
    if value is None:
        return
    problem = ""
    if name == "num_returns":
        if type(value) is not int or value < 0:
            problem = "give a whole number, 0 or more"
    elif name in ("num_cpus", "memory"):
        if not is_amount(value):
            problem = "give a number, 0 or more"
    elif name == "resources":
        problem = _problem_with(value)
    elif name == "name":
        if not is_text(value):
            problem = "give a text"
    elif value not in ("DEFAULT", "SPREAD") and not isinstance(value, NodeAffinitySchedulingStrategy):
        problem = 'give "DEFAULT", "SPREAD" or a NodeAffinitySchedulingStrategy'
    if problem:
        raise ValueError(f"The option {name} cannot be {value!r}: {problem}.")


def _problem_with(resources: Any) -> str:
    if not isinstance(resources, Mapping):
        return "give a dict from names to amounts"
    for name, amount in resources.items():
        if name in ("CPU", "GPU", "memory"):
            return f"{name} has an option of its own"
        if not is_text(name) or not is_amount(amount):
            return "give a dict from names to amounts, 0 or more"
    return ""
