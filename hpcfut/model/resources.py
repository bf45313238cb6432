"""What every rank, and what named ranks, are given besides their own: the resources that users define."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hpcfut.model.template import OWN_RESOURCES, RESOURCE_UNIT, Resources

#: More than anybody has, and in ``RESOURCE_UNIT``s still a number that a message can hold.
_AMOUNT_MAX: Final = 1e14


def is_amount(value: Any) -> bool:
    """Whether this is a number that a rank can have of something: finite, 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def is_text(value: Any) -> bool:
    """Whether this is a text that can be sent: halves of surrogate pairs, which no encoding takes, cannot."""
    return isinstance(value, str) and value == value.encode("utf-8", "ignore").decode()


def split_resources(given: Mapping[Any, Any]) -> tuple[Resources, dict[int, Resources]]:
    """Check what a user gives to the ranks.

    Args:
        given: Amounts by name, which every rank has; and mappings of the same kind by the number of a rank (a whole
            number, or its digits, because JSON has no other keys), which hold for this rank instead.

    Returns:
        The amounts of every rank and those of named ranks, in units of ``RESOURCE_UNIT``.

    Raises:
        ValueError: A name or an amount makes no sense; the sentence says which and why.
    """
    everywhere: dict[Any, Any] = {}
    by_rank: dict[int, Resources] = {}
    for key, value in given.items():
        if not isinstance(value, Mapping):
            everywhere[key] = value
        elif type(key) is int and key >= 0:
            by_rank[key] = _in_units(value)
        elif isinstance(key, str) and key.isascii() and key.isdecimal():
            by_rank[int(key)] = _in_units(value)
        else:
            raise ValueError(
                f"Resources were given to rank {key!r}, which is no number of a rank. Give {{name: amount}} for every "
                f"rank, and {{number: {{name: amount}}}} for one."
            )
    return _in_units(everywhere), by_rank


def _in_units(amounts: Mapping[Any, Any]) -> Resources:
    for name, amount in amounts.items():
        if not is_text(name) or name in OWN_RESOURCES or not is_amount(amount) or amount > _AMOUNT_MAX:
            raise ValueError(
                f"Resource {name!r} cannot have the amount {amount!r}. Give user-defined names, and amounts from 0 to "
                f"{_AMOUNT_MAX:g}; the number of cores of a rank is set with --cpus-per-rank."
            )
    return {name: round(amount * RESOURCE_UNIT) for name, amount in amounts.items()}


def unknown_rank(by_rank: Mapping[int, Resources], n_ranks: int) -> str:
    """The sentence for resources of a rank that the job does not have; empty if it has them all."""
    for rank in sorted(by_rank):
        if rank >= n_ranks:
            return (
                f"Resources were given to rank {rank}, but the job has {n_ranks} rank{'s' * (n_ranks > 1)}, counted "
                f"from 0."
            )
    return ""
