"""Who waits for what, as ranks tell each other when they look for a standstill."""

from __future__ import annotations

import msgspec

from hpcfut.model.ids import Count
from hpcfut.model.template import SchedulingKey


class BlockedWait(msgspec.Struct, array_like=True, gc=False):
    """A thread waits until ``n_missing`` of these objects are ready, which none of them is yet."""

    waiter_id: int
    n_missing: Count
    object_ids: tuple[int, ...]


class BlockedRun(msgspec.Struct, array_like=True, gc=False):
    """A task on the sender that waits for good, with everything but its cores in its hands."""

    task_id: int
    name: str
    resources: tuple[tuple[str, Count], ...]
    waits: tuple[BlockedWait, ...]


class QueuedTask(msgspec.Struct, array_like=True, gc=False):
    """A task that needs more than cores, or the turn that others have, and has not started."""

    task_id: int
    name: str
    key: SchedulingKey
    #: Of a method: those of its actor that run and must end first, one of them.
    behind: tuple[int, ...] = ()


class WaitingTask(msgspec.Struct, array_like=True, gc=False):
    """A task whose arguments are not all ready; these are missing."""

    task_id: int
    object_ids: tuple[int, ...]
