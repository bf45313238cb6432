"""Effects: imperatives that the core gives. They are performed after the turn, in order; long ones end as events."""

from __future__ import annotations

import msgspec

from hpcfut.model.failure import Failure
from hpcfut.wire.messages import Argument, Message


class SendMessage(msgspec.Struct, gc=False):
    """Put this message into the next frame for ``rank`` (never the own rank)."""

    rank: int
    message: Message


class RunTask(msgspec.Struct, gc=False):
    """Run a task now. It holds a slot; it ends as ``RunReturned`` or ``RunRaised``.

    Every argument is either inline or stored on this rank. ``waiter_id``: run it on the stack of that waiting thread
    (0: on any executor thread). ``return_ids`` name the results, for storing them.
    """

    task_id: int
    template_id: int
    payload: bytes
    arguments: tuple[Argument, ...]
    return_ids: tuple[int, ...]
    item_ids: tuple[int, ...]
    waiter_id: int


class WakeWaiter(msgspec.Struct, gc=False):
    """The wait is over: these objects are ready, in the order of the request.

    ``values`` is parallel: the inline payload, a failure, or ``None`` for an object stored on this rank (when the wait
    fetches) or anywhere (when it does not).
    """

    waiter_id: int
    object_ids: list[int]
    values: list[bytes | Failure | None]


class TellWatcher(msgspec.Struct, gc=False):
    """These objects of a watch have become ready; with the last of them it is over.

    ``values`` is parallel, as in ``WakeWaiter``.
    """

    watch_id: int
    object_ids: list[int]
    values: list[bytes | Failure | None]
    is_last: bool


class StartRead(msgspec.Struct, gc=False):
    """Make room for ``nbytes``, get ready to receive a transfer, and only then send ``ReadRequested`` to ``rank``.

    It ends as ``ReadCompleted`` or ``ReadFailed``; or, where there is no room and so nothing was asked for, as
    ``RoomDenied``.
    """

    transfer_id: int
    object_id: int
    rank: int
    nbytes: int


class SendObject(msgspec.Struct, gc=False):
    """Send the bytes of an object stored here to ``rank``; ends as ``SendCompleted``."""

    transfer_id: int
    object_id: int
    rank: int


class FreeSegment(msgspec.Struct, gc=False):
    """Give back the memory of an object stored here (own, cached, or a result for another owner)."""

    object_id: int


class InterruptTask(msgspec.Struct, gc=False):
    """Raise cancellation in a task that runs (or waits) here; it still ends as ``RunRaised`` or ``RunReturned``."""

    task_id: int


class ResumeGenerator(msgspec.Struct, gc=False):
    """A generator here may make as many further items; it holds a slot again if it was held back.

    ``position``: how many items it makes before the first of these. Names may be told again, and not before its code
    has begun.
    """

    task_id: int
    position: int
    item_ids: tuple[int, ...]


class ForgetTemplate(msgspec.Struct, gc=False):
    """Drop the function loaded for this template."""

    template_id: int


class AnswerQuery(msgspec.Struct, gc=False):
    """What is free on each rank, in units of ``RESOURCE_UNIT``."""

    query_id: int
    available: dict[int, dict[str, int]]


class EndJob(msgspec.Struct, gc=False):
    """The session is over for this rank. ``failure`` is a sentence, empty after an orderly end."""

    status: int
    failure: str
    is_final: bool


Effect = (
    SendMessage
    | RunTask
    | WakeWaiter
    | TellWatcher
    | StartRead
    | SendObject
    | FreeSegment
    | InterruptTask
    | ResumeGenerator
    | ForgetTemplate
    | AnswerQuery
    | EndJob
)
