"""Events: past facts that the core is told. One class per outcome, never a status flag."""

from __future__ import annotations

import msgspec

from hpcfut.core.actor_events import ActorCreated as ActorCreated
from hpcfut.core.actor_events import ActorKillWanted as ActorKillWanted
from hpcfut.core.actor_events import MethodCalled as MethodCalled
from hpcfut.core.actor_events import NameClaimed as NameClaimed
from hpcfut.core.actor_events import NameGivenBack as NameGivenBack
from hpcfut.core.actor_events import NamesListed as NamesListed
from hpcfut.core.actor_events import NameSought as NameSought
from hpcfut.core.actor_events import OfActors
from hpcfut.core.actor_events import OwnActorHeld as OwnActorHeld
from hpcfut.core.actor_events import QueryAbandoned as QueryAbandoned
from hpcfut.model.failure import Failure
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.messages import Message, Result


class FrameReceived(msgspec.Struct, gc=False):
    """A batch of messages from one rank, in order, with the load that the sender gossiped."""

    source: int
    load: int
    messages: list[Message]


class TemplateDefined(msgspec.Struct, gc=False):
    """This rank made a remote function with options; ``template.nested`` are held while the template lives."""

    template: TaskTemplate


class TemplateDropped(msgspec.Struct, gc=False):
    """The user's last handle on the template went away."""

    template_id: int


class TaskSubmitted(msgspec.Struct, gc=False):
    """Code on this rank called a remote function. The caller holds one local ref on every return id.

    ``task_id`` equals ``return_ids[0]`` of a task with results. For a generator they name its first items: as many as
    it may be ahead of its consumer, and one more, which is kept back for telling its end. ``parent`` is the task that
    called, 0 for a driver. ``arguments`` are the refs at the top level of the call; ``nested`` the refs deeper inside
    ``payload``.
    """

    task_id: int
    template_id: int
    payload: bytes
    return_ids: tuple[int, ...]
    arguments: tuple[int, ...] = ()
    nested: tuple[int, ...] = ()
    parent: int = 0


class ObjectPut(msgspec.Struct, gc=False):
    """Code on this rank put a value, and holds one local ref on it. Stored here, and sealed, if payload is None."""

    object_id: int
    result: Result


class SourcePut(msgspec.Struct, gc=False):
    """Code on this rank put an array that each rank reads by itself, and holds one local ref on it.

    ``recipe`` is for the edge that performs ``ReadSource``; ``nbytes`` is the size of what that gives.
    """

    object_id: int
    recipe: bytes
    nbytes: int


class BytesLost(msgspec.Struct, gc=False):
    """What is stored of an object of this rank has gone, wherever it was: nobody can read it any more."""

    object_id: int
    reason: str


class RefsAdded(msgspec.Struct, gc=False):
    """Code on this rank holds these refs once more (an id may stand several times)."""

    object_ids: list[int]


class RefsReleased(msgspec.Struct, gc=False):
    """Code on this rank dropped these refs once (an id may stand several times)."""

    object_ids: list[int]


class WaitStarted(msgspec.Struct, gc=False):
    """A thread waits until ``n_wanted`` of these objects are ready; 0 asks which are ready now, all of them.

    ``is_fetching``: ready means that the value is on this rank. ``may_run``: the thread may run a task that makes one
    of the objects on its own stack. ``task_id``: the task that waits, 0 for a driver. ``is_for_good``: only these
    objects end the wait, and the task does nothing else meanwhile. ``is_taking``: the thread is given the values, which
    stay here until all of them are; else it is enough that each has been here once, and a wait that is abandoned tells
    which have. Ids are distinct and held.
    """

    waiter_id: int
    object_ids: list[int]
    n_wanted: int
    is_fetching: bool
    may_run: bool
    task_id: int
    is_for_good: bool = False
    is_taking: bool = True


class WaitAbandoned(msgspec.Struct, gc=False):
    """The thread stopped waiting (deadline, interrupt) before it was woken."""

    waiter_id: int


class WatchStarted(msgspec.Struct, gc=False):
    """Somebody wants to be told of each of these objects once, as it becomes ready, while no thread waits for that.

    ``is_fetching`` is as for a wait. ``is_waiting``: the task (or driver, as 0) counts as waiting until all of them are
    ready. Ids are distinct and held; watches and waiters share one count of ids.
    """

    watch_id: int
    object_ids: list[int]
    is_fetching: bool
    is_waiting: bool
    task_id: int


class WatchEnded(msgspec.Struct, gc=False):
    """Nobody wants to be told of the rest any more; what was told of last may be on its way."""

    watch_id: int


class StreamAdvanced(msgspec.Struct, gc=False):
    """The consumer of a generator, on the owner, took an item: the generator may make as many more, under these ids.

    The consumer holds one local ref on each.
    """

    task_id: int
    item_ids: tuple[int, ...]


class StreamEndWanted(msgspec.Struct, gc=False):
    """The consumer of a generator wants an object that is ready when the task has ended, and failed if that has failed.

    It holds one local ref on the object. What the task has told by now is in ``item_ids``, the names that the consumer
    has not looked at, or it has seen it, as ``failure``.
    """

    task_id: int
    object_id: int
    result: Result
    item_ids: tuple[int, ...]
    failure: Failure | None = None


class RunReturned(msgspec.Struct, gc=False):
    """A task that ran here returned; stored results are sealed. For a generator ``results`` is empty."""

    task_id: int
    results: tuple[Result, ...]


class RunRaised(msgspec.Struct, gc=False):
    """A task that ran here ended with a failure."""

    task_id: int
    failure: Failure
    is_retriable: bool


class RunYielded(msgspec.Struct, gc=False):
    """A generator that runs here made an item; a stored one is sealed under ``object_id``."""

    task_id: int
    object_id: int
    result: Result


class RunHeldBack(msgspec.Struct, gc=False):
    """A generator that runs here has used all its item ids and waits for credit."""

    task_id: int


class CancelRequested(msgspec.Struct, gc=False):
    """Code here wants the task that makes this object to end; ``is_forced``: with its process, if it has its own."""

    object_id: int
    is_recursive: bool
    is_forced: bool = False


class ReadCompleted(msgspec.Struct, gc=False):
    """All bytes of a transfer to this rank have arrived and are sealed."""

    transfer_id: int


class ReadFailed(msgspec.Struct, gc=False):
    """A transfer to this rank broke off; nothing writes into its segment any more."""

    transfer_id: int
    failure: Failure


class ReadDenied(msgspec.Struct, gc=False):
    """A transfer to this rank could not begin, because its own host has no memory for it; nobody was asked."""

    transfer_id: int
    failure: Failure


class SendCompleted(msgspec.Struct, gc=False):
    """All bytes that a ``SendObject`` asked for have left."""

    object_id: int


class RoomWanted(msgspec.Struct, gc=False):
    """A thread is about to write the bytes of an object, and waits until it is told where, or that it cannot."""

    waiter_id: int
    object_id: int
    nbytes: int


class RoomReturned(msgspec.Struct, gc=False):
    """The thread could not write all the bytes."""

    object_id: int


class DraftBegun(msgspec.Struct, gc=False):
    """User code has the room that was given for this object as an array; ``ViewsClosed`` tells when that is gone."""

    object_id: int


class DraftTaken(msgspec.Struct, gc=False):
    """The array was put or returned, and sealed: it has the bytes of another object now, which is told next."""

    draft_id: int
    object_id: int


class ObjectsSpilled(msgspec.Struct, gc=False):
    """All segments that a ``SpillObjects`` named are in this file now, on the disk."""

    spill_id: int
    file_id: int


class SpillFailed(msgspec.Struct, gc=False):
    """None of the segments that a ``SpillObjects`` named is in a file."""

    spill_id: int
    reason: str


class ViewsClosed(msgspec.Struct, gc=False):
    """Code on this rank has dropped a value built over the bytes of each of these (an id may stand several times)."""

    object_ids: list[int]


class ResourcesQueried(msgspec.Struct, gc=False):
    """Code on this rank wants to know what is free on all ranks."""

    query_id: int


class InventoriesQueried(msgspec.Struct, gc=False):
    """User code wants to know what each rank holds."""

    query_id: int


class SiteNoted(msgspec.Struct, gc=False):
    """User code has made these objects, at this place."""

    object_ids: tuple[int, ...]
    site: str


class RankLost(msgspec.Struct, gc=False):
    """An edge has proof that a rank is dead."""

    rank: int
    reason: str


class FrameRefused(msgspec.Struct, gc=False):
    """A frame of this rank could not be decoded, or the core could not accept it, and has not done all that it says."""

    rank: int
    reason: str


class RankArrived(msgspec.Struct, gc=False):
    """Rank 0: the replacement that ``SpawnRank`` wanted is there, and linked with this rank."""

    record: RankRecord
    is_neighbour: bool


class SpawnFailed(msgspec.Struct, gc=False):
    """Rank 0: there will be no such replacement."""

    rank: int
    reason: str


class PortReady(msgspec.Struct, gc=False):
    """A replacement can be reached by this rank at the port; ends ``OpenPort``."""

    rank: int
    port: str


class LinkMade(msgspec.Struct, gc=False):
    """This rank and another one, one of which has just arrived, can talk; ends ``LinkRank`` or ``OpenPort``."""

    rank: int
    #: Whether either can view the other's arena.
    is_neighbour: bool


class DriverEnded(msgspec.Struct, gc=False):
    """One of several drivers has ended (or called ``shutdown``); the session goes on until all have."""

    status: int
    is_final: bool


class StopRequested(msgspec.Struct, gc=False):
    """The driver has ended (or the user called ``shutdown``)."""

    status: int
    failure: str
    is_final: bool


Event = (
    FrameReceived
    | TemplateDefined
    | TemplateDropped
    | TaskSubmitted
    | OfActors
    | ObjectPut
    | SourcePut
    | BytesLost
    | RefsAdded
    | RefsReleased
    | WaitStarted
    | WaitAbandoned
    | WatchStarted
    | WatchEnded
    | StreamAdvanced
    | StreamEndWanted
    | RunReturned
    | RunRaised
    | RunYielded
    | RunHeldBack
    | CancelRequested
    | ReadCompleted
    | ReadFailed
    | ReadDenied
    | SendCompleted
    | RoomWanted
    | RoomReturned
    | DraftBegun
    | DraftTaken
    | ObjectsSpilled
    | SpillFailed
    | ViewsClosed
    | ResourcesQueried
    | InventoriesQueried
    | SiteNoted
    | RankLost
    | FrameRefused
    | RankArrived
    | SpawnFailed
    | PortReady
    | LinkMade
    | DriverEnded
    | StopRequested
)
