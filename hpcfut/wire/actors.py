"""What ranks say to each other about actors; ``core/actors.py`` has the protocol."""

from __future__ import annotations

import msgspec

from hpcfut.model.failure import Failure
from hpcfut.model.ids import Rank
from hpcfut.model.told import Argument


class MethodPushed(msgspec.Struct, array_like=True, tag=80, gc=False):
    """A caller to the rank of an actor: run this method. What else it holds is as in ``TaskPushed``."""

    task_id: int
    actor_id: int
    template_id: int
    payload: bytes
    arguments: tuple[Argument, ...] = ()
    nested: tuple[int, ...] = ()
    return_ids: tuple[int, ...] = ()
    item_ids: tuple[int, ...] = ()


class MethodRefused(msgspec.Struct, array_like=True, tag=81, gc=False):
    """The actor is not here any more, and the call has not begun; its owner says what has become of it."""

    task_id: int


class MethodGivenUp(msgspec.Struct, array_like=True, tag=95, gc=False):
    """The caller to the rank of an actor: the call fails in this way, because it could never begin."""

    task_id: int
    failure: Failure


class ActorAsked(msgspec.Struct, array_like=True, tag=82, gc=False):
    """A holder wants to know where the actor is, now and whenever that changes, until it is dead."""

    actor_id: int


class ActorLocated(msgspec.Struct, array_like=True, tag=83, gc=False):
    """The actor lives on this rank; ``lasting``: and may be started once more."""

    actor_id: int
    rank: Rank
    lasting: bool = False


class ActorGone(msgspec.Struct, array_like=True, tag=84, gc=False):
    """The actor is dead, and will not be started again."""

    actor_id: int
    failure: Failure


class ActorKilled(msgspec.Struct, array_like=True, tag=85, gc=False):
    """A holder wants the actor to die; ``final``: and not to be started again."""

    actor_id: int
    final: bool


class ActorDismissed(msgspec.Struct, array_like=True, tag=86, gc=False):
    """The owner to the rank where the actor lives: it ends now; its running methods fail in this way."""

    actor_id: int
    failure: Failure


class ActorLeft(msgspec.Struct, array_like=True, tag=87, gc=False):
    """To the owner: the actor has ended itself."""

    actor_id: int
    failure: Failure


class NameAsked(msgspec.Struct, array_like=True, tag=88, gc=False):
    """To rank 0: which actor has this name? If none has it, and ``actor_id`` is not 0, that has it from now on."""

    query_id: int
    namespace: str
    name: str
    actor_id: int = 0
    descriptor: bytes = b""


class NameTold(msgspec.Struct, array_like=True, tag=89, gc=False):
    """Rank 0 to who asked: this actor had the name; 0 if none had it."""

    query_id: int
    actor_id: int
    descriptor: bytes = b""


class HandleAsked(msgspec.Struct, array_like=True, tag=90, gc=False):
    """To the owner of a named actor: count the sender among those who hold it."""

    query_id: int
    actor_id: int


class HandleGiven(msgspec.Struct, array_like=True, tag=91, gc=False):
    """The owner has counted the receiver as a borrower; 0: the actor is dead, or about to end."""

    query_id: int
    actor_id: int


class NameDropped(msgspec.Struct, array_like=True, tag=92, gc=False):
    """To rank 0: the actor is dead, and has no name any more."""

    actor_id: int


class NamesAsked(msgspec.Struct, array_like=True, tag=93, gc=False):
    """To rank 0: which names are there?"""

    query_id: int


class NamesTold(msgspec.Struct, array_like=True, tag=94, gc=False):
    """All names, each with its namespace first."""

    query_id: int
    names: tuple[tuple[str, str], ...]


OfActors = (
    MethodPushed
    | MethodRefused
    | MethodGivenUp
    | ActorAsked
    | ActorLocated
    | ActorGone
    | ActorKilled
    | ActorDismissed
    | ActorLeft
    | NameAsked
    | NameTold
    | HandleAsked
    | HandleGiven
    | NameDropped
    | NamesAsked
    | NamesTold
)
