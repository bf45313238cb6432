"""Effects: imperatives that the core gives. They are performed after the turn, in order; long ones end as events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from hpcfut.model.failure import Failure
from hpcfut.model.inventory import Inventory
from hpcfut.model.named import NamedActor
from hpcfut.model.place import Place
from hpcfut.model.roster import RankRecord
from hpcfut.wire.messages import Argument, Message

#: What becomes of an object for who waits for it: see ``WakeWaiter``.
Value = bytes | Place | Failure | None


class SendMessage(msgspec.Struct, gc=False):
    """Put this message into the next frame for ``rank`` (never the own rank)."""

    rank: int
    message: Message


class RunTask(msgspec.Struct, gc=False):
    """Run a task now. It holds a slot; it ends as ``RunReturned`` or ``RunRaised``.

    Every argument is either inline or stored; ``places`` are those of the stored ones, in order. A view of each is
    opened, unless one is open for other runs: until ``CloseArgument`` they share it. ``waiter_id``: run it on the stack
    of that waiting thread (0: on any executor thread). ``return_ids`` name the results, for storing them.
    """

    task_id: int
    template_id: int
    payload: bytes
    arguments: tuple[Argument, ...]
    return_ids: tuple[int, ...]
    item_ids: tuple[int, ...]
    waiter_id: int
    #: The runtime puts the views in their stead.
    places: Sequence[Any] = ()
    #: The actor whose method it is, or which it constructs.
    actor_id: int = 0


class CloseArgument(msgspec.Struct, gc=False):
    """Give the view that runs share to no further one; when it is gone, that is told as ``ViewsClosed``."""

    object_id: int


class WakeWaiter(msgspec.Struct, gc=False):
    """The wait is over: these objects are ready, in the order of the request.

    They are fewer than were wanted only where the values can never be here together, which is then their failure, and
    where a wait that takes no values was abandoned.

    ``values`` is parallel: the inline payload, a failure, and for a stored object its place, if the wait takes it, else
    ``None``. A view of every place is to be opened; when it is gone, that is told as ``ViewsClosed``.
    """

    waiter_id: int
    object_ids: list[int]
    values: list[Value]
    has_places: bool = False


class TellWatcher(msgspec.Struct, gc=False):
    """These objects of a watch have become ready; with the last of them it is over.

    ``values`` is parallel, as in ``WakeWaiter``.
    """

    watch_id: int
    object_ids: list[int]
    values: list[Value]
    is_last: bool
    has_places: bool = False


class StartRead(msgspec.Struct, gc=False):
    """Get ready to receive a transfer into a segment, and only then send ``ReadRequested`` to ``rank``.

    It ends as ``ReadCompleted``, when all bytes are there and sealed, or as ``ReadFailed``; as ``ReadDenied`` where the
    host has no memory for it.
    """

    transfer_id: int
    object_id: int
    rank: int
    offset: int
    nbytes: int


class SendObject(msgspec.Struct, gc=False):
    """Send the bytes of an object stored here to ``rank``; ends as ``SendCompleted``."""

    transfer_id: int
    object_id: int
    rank: int
    offset: int
    nbytes: int


class GiveRoom(msgspec.Struct, gc=False):
    """The thread may write its value into this segment, and seals it.

    It ends as ``ObjectPut``, ``RunReturned`` or ``RunYielded``, or as ``RoomReturned``.
    """

    waiter_id: int
    object_id: int
    offset: int


class DenyRoom(msgspec.Struct, gc=False):
    """There is no room for the thread's value."""

    waiter_id: int
    failure: Failure


class SpillObjects(msgspec.Struct, gc=False):
    """Write these segments of the own arena to one file; ends as ``ObjectsSpilled`` or ``SpillFailed``.

    ``in_place_of``: an object, by file and id, whose room on the disk may be taken for them. Its bytes are kept in
    memory then, beside the arena, and read from there until it is dropped; if the write fails, it goes back there.
    """

    spill_id: int
    places: list[Place]
    in_place_of: tuple[int, int] | None = None


class RestoreObject(msgspec.Struct, gc=False):
    """Read a spilled object into a segment; ends as ``ReadCompleted``, when it is sealed, or as ``ReadFailed``."""

    transfer_id: int
    object_id: int
    file_id: int
    offset: int
    nbytes: int


class ReadSource(msgspec.Struct, gc=False):
    """Have the bytes of an object made in a segment as its recipe says; ends as a ``RestoreObject`` does."""

    transfer_id: int
    object_id: int
    recipe: bytes
    offset: int
    nbytes: int


class DropSpilled(msgspec.Struct, gc=False):
    """Nobody needs what the file has of this object."""

    file_id: int
    object_id: int


class FreeSegment(msgspec.Struct, gc=False):
    """Nobody reads or writes this segment any more, and it may be given to another object."""

    object_id: int
    offset: int


class InterruptTask(msgspec.Struct, gc=False):
    """Raise cancellation in a task that runs (or waits) here; it still ends as ``RunRaised`` or ``RunReturned``.

    ``is_forced``: end its process instead, if it has one of its own.
    """

    task_id: int
    is_forced: bool = False


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


class ForgetArena(msgspec.Struct, gc=False):
    """A rank is dead, and nothing here reads its arena in place any more, nor will: its mapping may go."""

    rank: int


class SpawnRank(msgspec.Struct, gc=False):
    """Rank 0: start a replacement; ends as ``RankArrived``, with its process in the record, or ``SpawnFailed``."""

    record: RankRecord


class OpenPort(msgspec.Struct, gc=False):
    """Replacement: have this rank connect, at the port that is told as ``PortReady``; ``LinkMade`` if it does."""

    rank: int


class LinkRank(msgspec.Struct, gc=False):
    """Connect to a replacement; ends as ``LinkMade``, or never if one of the two dies meanwhile."""

    record: RankRecord
    port: str


class UseLink(msgspec.Struct, gc=False):
    """Talk to this rank over the link that has been made: what it has sent may be told, and it can be written to."""

    rank: int


class DeclareDead(msgspec.Struct, gc=False):
    """A rank is dead with which this one is not linked, and never will be, as the core has heard."""

    rank: int
    reason: str


class Announce(msgspec.Struct, gc=False):
    """Say this sentence to the user."""

    sentence: str


class DropActor(msgspec.Struct, gc=False):
    """The instance is not wanted any more. Methods of it that run have been interrupted, and may end later."""

    actor_id: int


class AnswerQuery(msgspec.Struct, gc=False):
    """What the ranks have answered: what is free, in units of ``RESOURCE_UNIT``, or what they hold."""

    query_id: int
    answers: dict[int, dict[str, int]] | dict[int, Inventory]


class AnswerName(msgspec.Struct, gc=False):
    """What is known of a name; or all names, each with its namespace first."""

    query_id: int
    answers: NamedActor | list[tuple[str, str]] | None


class EndJob(msgspec.Struct, gc=False):
    """The session is over for this rank. ``failure`` is a sentence, empty after an orderly end."""

    status: int
    failure: str
    is_final: bool


Effect = (
    SendMessage
    | RunTask
    | CloseArgument
    | WakeWaiter
    | TellWatcher
    | StartRead
    | SendObject
    | GiveRoom
    | DenyRoom
    | SpillObjects
    | RestoreObject
    | ReadSource
    | DropSpilled
    | FreeSegment
    | InterruptTask
    | ResumeGenerator
    | ForgetTemplate
    | ForgetArena
    | DropActor
    | SpawnRank
    | OpenPort
    | LinkRank
    | UseLink
    | DeclareDead
    | Announce
    | AnswerQuery
    | AnswerName
    | EndJob
)

#: What is wanted while a rank joins.
OF_ARRIVALS: Final = (SpawnRank, OpenPort, LinkRank, UseLink, DeclareDead, Announce)
