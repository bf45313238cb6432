"""What ranks say to each other to find tasks that wait in a circle; ``core/standstills.py`` has the order."""

from __future__ import annotations

import msgspec

from hpcfut.model.waiting import BlockedRun, QueuedTask, WaitingTask


class WaitersAsked(msgspec.Struct, array_like=True, tag=33, gc=False):
    """The sender wants to know who waits for good on the receiver, and what makes these objects of the receiver's."""

    round_number: int
    object_ids: tuple[int, ...]


class WaitersReported(msgspec.Struct, array_like=True, tag=34, gc=False):
    """Who waits for good on the sender; tasks, here or of the sender's, that have not started; makers of objects."""

    round_number: int
    runs: tuple[BlockedRun, ...]
    queued: tuple[QueuedTask, ...]
    waiting: tuple[WaitingTask, ...]
    makers: tuple[tuple[int, int], ...]


class StandstillFound(msgspec.Struct, array_like=True, tag=35, gc=False):
    """This task of the receiver's can never start on these ranks: those that hold what it needs wait for it."""

    task_id: int
    failure: str
    active: tuple[int, ...]


Standstill = WaitersAsked | WaitersReported | StandstillFound
