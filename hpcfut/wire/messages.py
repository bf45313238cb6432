"""Messages between the cores of two ranks.

Messages are nouns or past facts, one class per outcome: msgspec records with integer tags, so that a frame of them
costs one encode and one decode. Payloads are opaque: nobody between two edges reads, copies or compares them. Between
two ranks messages arrive in the order in which they were sent; between different pairs there is no order.

What belongs to one conversation alone has a module of its own: ``queries.py``, ``standstills.py``, ``joining.py``.
No tag is used twice.
"""

from __future__ import annotations

import msgspec

from hpcfut.model.failure import Failure
from hpcfut.model.ids import Count, Rank
from hpcfut.model.template import TaskTemplate
from hpcfut.model.told import Argument as Argument
from hpcfut.model.told import Result as Result
from hpcfut.wire.actors import OfActors
from hpcfut.wire.joining import Joining
from hpcfut.wire.queries import Query
from hpcfut.wire.standstills import Standstill


class TemplateRegistered(msgspec.Struct, array_like=True, tag=1, gc=False):
    """The receiver may be sent tasks of this template from now on."""

    template: TaskTemplate


class TemplateForgotten(msgspec.Struct, array_like=True, tag=2, gc=False):
    """No further task of this template will come from this owner."""

    template_id: int


class LeaseRequested(msgspec.Struct, array_like=True, tag=3, gc=False):
    """The owner wants to run tasks of one scheduling key on the receiver. ``lease_id`` is the owner's count."""

    lease_id: int
    resources: tuple[tuple[str, Count], ...]


class LeaseGranted(msgspec.Struct, array_like=True, tag=4, gc=False):
    """The owner may have ``depth`` tasks of this lease on the sender at a time, from now on. Zero means: not now."""

    lease_id: int
    depth: Count
    #: So many of them wait there, perhaps for others of the same lease.
    n_blocked: Count = 0


class LeaseReturned(msgspec.Struct, array_like=True, tag=5, gc=False):
    """The owner gives the lease back; none of its tasks is left on the receiver."""

    lease_id: int


class TaskPushed(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Run this task. ``nested`` are refs inside ``payload``; the owner keeps them alive until the task's end."""

    task_id: int
    lease_id: int
    template_id: int
    payload: bytes
    arguments: tuple[Argument, ...] = ()
    nested: tuple[int, ...] = ()
    #: Names of the results, where there are several (a single one has the task's id).
    return_ids: tuple[int, ...] = ()
    #: Ids for the first items of a generator; more follow as ``StreamCredit``. Id 0 stands for an item that the owner
    #: already has from an earlier attempt: it is made and thrown away.
    item_ids: tuple[int, ...] = ()


class ArgumentsFollow(msgspec.Struct, array_like=True, tag=44, gc=False):
    """A task with these stored arguments is likely to be sent to the receiver next."""

    arguments: tuple[Argument, ...]


class TasksHandedBack(msgspec.Struct, array_like=True, tag=7, gc=False):
    """These tasks never started on the sender, which has no room for them now; run them elsewhere or later."""

    lease_id: int
    task_ids: tuple[int, ...]


class TaskDone(msgspec.Struct, array_like=True, tag=8, gc=False):
    """The task returned one small value that holds no ref, and the executor kept no borrowed ref: the common case."""

    task_id: int
    payload: bytes


class TaskReturned(msgspec.Struct, array_like=True, tag=9, gc=False):
    """The task returned (for a generator: it is exhausted). ``borrowed``: covered refs the executor still holds."""

    task_id: int
    results: tuple[Result, ...]
    borrowed: tuple[int, ...] = ()


class TaskRaised(msgspec.Struct, array_like=True, tag=10, gc=False):
    """The task ended with a failure. ``retriable``: the template's ``retry_exceptions`` match it.

    ``lost``: it never began, because these bytes of an argument could not be had.
    """

    task_id: int
    failure: Failure
    retriable: bool
    borrowed: tuple[int, ...] = ()
    lost: int = 0


class ItemYielded(msgspec.Struct, array_like=True, tag=11, gc=False):
    """A generator made its next item, named ``object_id`` by an earlier credit."""

    task_id: int
    object_id: int
    result: Result


class StreamCredit(msgspec.Struct, array_like=True, tag=12, gc=False):
    """The generator may make as many further items, under these names."""

    task_id: int
    item_ids: tuple[int, ...]


class CancelAsked(msgspec.Struct, array_like=True, tag=13, gc=False):
    """A borrower asks the owner to cancel the task that makes this object; ``forced``: to end its own process."""

    object_id: int
    recursive: bool
    forced: bool = False


class TaskCancelled(msgspec.Struct, array_like=True, tag=14, gc=False):
    """The owner tells the executor to drop or interrupt this task, or its own process, and what it submitted."""

    task_id: int
    recursive: bool
    forced: bool = False


class ObjectAsked(msgspec.Struct, array_like=True, tag=15, gc=False):
    """A holder asks the owner for the value or the place of an object, as soon as it is known."""

    object_id: int


class ObjectResolved(msgspec.Struct, array_like=True, tag=16, gc=False):
    """The object is a small value. The owner has counted the receiver as a borrower of each contained ref."""

    object_id: int
    payload: bytes
    contained: tuple[int, ...] = ()
    #: If there are any, the payload is the recipe by which the receiver reads so many bytes from their source.
    nbytes: Count = 0


class ObjectLocated(msgspec.Struct, array_like=True, tag=17, gc=False):
    """The object is stored on ``rank``. The owner has counted the receiver as a borrower of each contained ref.

    An ``offset``, if it is not negative, says that ``rank`` is the sender, and lends its bytes to the receiver. The
    bytes are stored under the object's id; or under ``bytes_id``, if that is not 0, once it has been made again.
    """

    object_id: int
    rank: Rank
    nbytes: Count
    contained: tuple[int, ...] = ()
    offset: int = -1
    bytes_id: int = 0


class ObjectLost(msgspec.Struct, array_like=True, tag=62, gc=False):
    """The sender, a borrower, cannot have the bytes of the object that it was told of; it waits to be told anew."""

    object_id: int
    bytes_id: int
    failure: Failure


class ObjectFailed(msgspec.Struct, array_like=True, tag=18, gc=False):
    """The object will never exist."""

    object_id: int
    failure: Failure


class BorrowAdded(msgspec.Struct, array_like=True, tag=19, gc=False):
    """The sender, a holder, tells the owner that ``borrower`` holds the object too. The sender holds on until told."""

    object_id: int
    borrower: Rank


class BorrowConfirmed(msgspec.Struct, array_like=True, tag=20, gc=False):
    """The owner has counted the borrower that the receiver reported."""

    object_id: int


class DeathNoted(msgspec.Struct, array_like=True, tag=63, gc=False):
    """The sender knows of a death; of the receiver's objects it holds these because of it, and reports itself."""

    dead: Rank
    held: tuple[int, ...] = ()


class BorrowReleased(msgspec.Struct, array_like=True, tag=21, gc=False):
    """The sender holds the object no more. ``reports``: how often each reporter had named it as a borrower."""

    object_id: int
    reports: dict[Rank, Count]


class ReadRequested(msgspec.Struct, array_like=True, tag=22, gc=False):
    """The reader has a buffer ready; send the bytes of the object as transfer ``transfer_id``."""

    object_id: int
    transfer_id: int


class ReadRefused(msgspec.Struct, array_like=True, tag=23, gc=False):
    """The sender does not hold the object, or (``failure``) cannot get at it. Transfer 0 stands for a loan."""

    object_id: int
    transfer_id: int
    failure: Failure | None = None


class ReadRedirected(msgspec.Struct, array_like=True, tag=39, gc=False):
    """``rank`` has read the object, or is about to, and is to be asked for it instead of the sender."""

    object_id: int
    transfer_id: int
    rank: Rank


class CopyGone(msgspec.Struct, array_like=True, tag=42, gc=False):
    """``rank`` does not have what it has read of the object: the sender, or one that the receiver redirected it to."""

    object_id: int
    rank: Rank


class RedirectionEnded(msgspec.Struct, array_like=True, tag=43, gc=False):
    """Nobody else will want what the receiver has read of the object, so that it need not be kept any more."""

    object_id: int


class LoanRequested(msgspec.Struct, array_like=True, tag=37, gc=False):
    """A rank of the receiver's host wants to read the bytes of the object in place."""

    object_id: int


class BytesLent(msgspec.Struct, array_like=True, tag=38, gc=False):
    """The bytes of the object stay at ``offset`` of the sender's arena until the receiver has returned the loan."""

    object_id: int
    offset: Count
    nbytes: Count


class LoanReturned(msgspec.Struct, array_like=True, tag=40, gc=False):
    """The sender reads the bytes no more, which were lent to it ``n`` times."""

    object_id: int
    n: Count


class LoanRecalled(msgspec.Struct, array_like=True, tag=41, gc=False):
    """The sender needs the memory: the receiver shall return its loans as soon as nothing there uses the bytes."""

    object_id: int


class ObjectFreed(msgspec.Struct, array_like=True, tag=24, gc=False):
    """The owner has collected the object; the receiver frees what it stored of it."""

    object_id: int


class JobEnded(msgspec.Struct, array_like=True, tag=27, gc=False):
    """Rank 0 ends the session. ``failure`` is empty after an orderly end. ``is_final``: no session will follow."""

    status: int
    failure: str
    is_final: bool


class RankFailed(msgspec.Struct, array_like=True, tag=28, gc=False):
    """The sender cannot go on, or has seen ``rank`` die; rank 0 ends the job with this sentence."""

    rank: Rank
    failure: str


class DriverDone(msgspec.Struct, array_like=True, tag=36, gc=False):
    """The script of the sender has come to its end, or wants the session to end; rank 0 waits for all of them."""

    status: int
    is_final: bool


Message = (
    TemplateRegistered
    | TemplateForgotten
    | LeaseRequested
    | LeaseGranted
    | LeaseReturned
    | TaskPushed
    | ArgumentsFollow
    | TasksHandedBack
    | TaskDone
    | TaskReturned
    | TaskRaised
    | ItemYielded
    | StreamCredit
    | CancelAsked
    | TaskCancelled
    | ObjectAsked
    | ObjectResolved
    | ObjectLocated
    | ObjectLost
    | ObjectFailed
    | BorrowAdded
    | BorrowConfirmed
    | BorrowReleased
    | DeathNoted
    | ReadRequested
    | ReadRefused
    | ReadRedirected
    | CopyGone
    | RedirectionEnded
    | LoanRequested
    | BytesLent
    | LoanReturned
    | LoanRecalled
    | ObjectFreed
    | JobEnded
    | RankFailed
    | DriverDone
    | Query
    | Standstill
    | Joining
    | OfActors
)
