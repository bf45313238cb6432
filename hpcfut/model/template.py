"""Task templates: what all calls of one remote function with one set of options have in common.

A template is registered once per rank and referred to by its id, so that a call carries only its arguments.
"""

from __future__ import annotations

from typing import Final

import msgspec

STREAMING: Final = -1

#: What a task asks of a rank while it runs. Amounts are integers in ten-thousandths, because sums of floats drift.
Resources = dict[str, int]

RESOURCE_UNIT: Final = 10_000
#: What every rank has without being told, and cannot be given. ``GPU`` is found as well, but can be said.
OWN_RESOURCES: Final = ("CPU", "memory", "object_store_memory")


class ActorTemplate(msgspec.Struct, array_like=True, frozen=True):
    """What a remote class says of its actors, beside what it says of their constructor."""

    #: Whether its calls run in one event loop, because some of its methods are ``async``.
    is_async: bool = False
    #: Concurrency groups, and how many calls of each run at a time; the first, "", has the methods that name none.
    groups: tuple[tuple[str, int], ...] = (("", 1),)
    #: What an actor holds for life, as ``TaskTemplate.resources``.
    held: tuple[tuple[str, int], ...] = ()
    n_restarts_max: int = 0
    #: The constructor must return within this time; 0: no limit.
    start_within_s: float = 0.0


class TaskTemplate(msgspec.Struct, array_like=True, frozen=True):
    """Everything about a remote function that does not change from call to call."""

    template_id: int
    name: str
    #: The pickled function; opaque here.
    function: bytes
    #: Refs captured in the function's closure or globals.
    nested: tuple[int, ...] = ()
    #: Number of return values, or ``STREAMING`` for a generator whose items become refs one by one.
    n_returns: int = 1
    #: In units of ``RESOURCE_UNIT``; sorted by name, so that equal requests are equal keys.
    resources: tuple[tuple[str, int], ...] = (("CPU", RESOURCE_UNIT),)
    n_retries_max: int = 0
    #: Pickled exception types that are retried; ``b""`` retries none. Matched where the exception is raised.
    retry_exceptions: bytes = b""
    #: Run on this rank (-1: anywhere); when ``affinity_soft``, elsewhere if that rank cannot.
    affinity: int = -1
    affinity_soft: bool = False
    #: Spread the calls over the ranks instead of filling the warm ones first.
    spread: bool = False
    #: How many items a generator may be ahead of its consumer.
    n_items_ahead_max: int = 64
    #: Environment variables that are set while the function runs.
    env_vars: tuple[tuple[str, str], ...] = ()
    #: Run the code in a child process of the rank, which is ended after so many calls of this function (0: never).
    is_isolated: bool = False
    n_calls_max: int = 0
    #: Of a constructor: ``function`` is the class then.
    actor: ActorTemplate | None = None
    #: The name of a method; ``function`` is empty then.
    method: str = ""
    #: The concurrency group of a method.
    group: str = ""
    #: Whether calls of one caller begin in the order in which they were made.
    is_ordered: bool = True

    @property
    def key(self) -> SchedulingKey:
        """Tasks with equal keys may share leases."""
        return (self.resources, self.affinity, self.affinity_soft, self.spread)


SchedulingKey = tuple[tuple[tuple[str, int], ...], int, bool, bool]
