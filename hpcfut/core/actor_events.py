"""Events that concern actors; ``events.py`` has the others, and all their names."""

from __future__ import annotations

import msgspec


class ActorCreated(msgspec.Struct, gc=False):
    """Code on this rank created an actor, and holds it once, as it would hold a ref.

    The call of the constructor has the id of the actor as its own. The rest is as in ``TaskSubmitted``.
    """

    actor_id: int
    template_id: int
    payload: bytes
    arguments: tuple[int, ...] = ()
    nested: tuple[int, ...] = ()


class MethodCalled(msgspec.Struct, gc=False):
    """Code on this rank, which holds the actor, called one of its methods. The rest is as in ``TaskSubmitted``."""

    task_id: int
    actor_id: int
    template_id: int
    payload: bytes
    return_ids: tuple[int, ...]
    arguments: tuple[int, ...] = ()
    nested: tuple[int, ...] = ()
    parent: int = 0


class ActorKillWanted(msgspec.Struct, gc=False):
    """Code on this rank, which holds the actor, wants it to die now; ``is_final``: and not to be started again."""

    actor_id: int
    is_final: bool


class NameClaimed(msgspec.Struct, gc=False):
    """Code on this rank is about to create an actor of this name.

    The answer is the actor that has the name already, which the asker holds once from then on; with id 0 if that is
    about to end, so that it is to be tried again; and none if the name is granted.
    """

    query_id: int
    namespace: str
    name: str
    actor_id: int
    descriptor: bytes


class NameGivenBack(msgspec.Struct, gc=False):
    """The actor for which a name was granted is not created after all."""

    actor_id: int


class OwnActorHeld(msgspec.Struct, gc=False):
    """A method makes a handle on its own actor, out of nothing; ``RefsAdded`` comes next."""

    task_id: int


class NameSought(msgspec.Struct, gc=False):
    """Code on this rank wants the actor of this name; the answer is as for a claim, none if there is no such actor."""

    query_id: int
    namespace: str
    name: str


class QueryAbandoned(msgspec.Struct, gc=False):
    """Who asked for a name was interrupted, and will not look at the answer, unless that has been given already."""

    query_id: int


class NamesListed(msgspec.Struct, gc=False):
    """Code on this rank wants to know the names of all actors that have one."""

    query_id: int


OfActors = (
    ActorCreated
    | MethodCalled
    | ActorKillWanted
    | OwnActorHeld
    | NameClaimed
    | NameGivenBack
    | NameSought
    | NamesListed
    | QueryAbandoned
)
