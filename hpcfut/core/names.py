"""Names of actors: rank 0 knows which actor has which, and any rank may ask.

Who creates an actor with a name claims that first; rank 0 takes one claim after the other, so that two never get the
same. Who looks a name up is told the actor, and asks its owner to be counted as a holder, which fails if the actor is
about to end. A name is free again when the owner says that the actor is dead, or is dead itself.
"""

from __future__ import annotations

from collections.abc import Callable

from hpcfut.core.context import Context
from hpcfut.core.effects import AnswerName
from hpcfut.core.events import NameClaimed, NamesListed, NameSought, QueryAbandoned
from hpcfut.core.references import References
from hpcfut.model.ids import owner_of
from hpcfut.model.named import NamedActor
from hpcfut.wire.actors import (
    HandleAsked,
    HandleGiven,
    NameAsked,
    NameDropped,
    NamesAsked,
    NamesTold,
    NameTold,
)

#: Told of an actor that is about to end.
ENDING = NamedActor(0, b"")


class Names:
    """Rank 0: all names. Any rank: the names that its actors have, and what its user code wants to know."""

    def __init__(self, context: Context, references: References) -> None:
        self._context = context
        self._references = references
        #: Rank 0: (namespace, name) → the actor.
        self.names: dict[tuple[str, str], NamedActor] = {}
        #: Own actors that have a name.
        self.own: dict[int, None] = {}
        #: Query → the actor that is claimed a name for, or that was found, or None.
        self.queries: dict[int, NamedActor | None] = {}
        #: Those of them whose answers nobody wants any more.
        self.abandoned: dict[int, None] = {}

    def claim(self, event: NameClaimed) -> None:
        """User code is about to create an actor of this name."""
        self.queries[event.query_id] = NamedActor(event.actor_id, b"")
        self._context.send(0, NameAsked(event.query_id, event.namespace, event.name, event.actor_id, event.descriptor))

    def seek(self, event: NameSought) -> None:
        """User code wants the actor of this name."""
        self.queries[event.query_id] = None
        self._context.send(0, NameAsked(event.query_id, event.namespace, event.name))

    def list_all(self, event: NamesListed) -> None:
        """User code wants to know all names."""
        self.queries[event.query_id] = None
        self._context.send(0, NamesAsked(event.query_id))

    def give_up(self, actor_id: int) -> None:
        """An own actor is dead."""
        if self.own.pop(actor_id, 0) is None:
            self._context.send(0, NameDropped(actor_id))

    def abandon(self, event: QueryAbandoned) -> None:
        """Who asked was interrupted: what the answer brings is given back when it comes."""
        if event.query_id in self.queries:
            self.abandoned[event.query_id] = None
        else:
            self._context.count_stale("query that was answered before it was abandoned")

    # -- rank 0 ------------------------------------------------------------------------------------------------------

    def on_asked(self, source: int, message: NameAsked) -> None:
        """Somebody looks a name up, or claims it."""
        key = (message.namespace, message.name)
        named = self.names.get(key)
        if named is None:
            if message.actor_id:
                self.names[key] = NamedActor(message.actor_id, message.descriptor)
            self._context.send(source, NameTold(message.query_id, 0))
        else:
            self._context.send(source, NameTold(message.query_id, named.actor_id, named.descriptor))

    def on_dropped(self, message: NameDropped) -> None:
        """The actor is dead."""
        self._forget(lambda actor_id: actor_id == message.actor_id)

    def on_list_asked(self, source: int, message: NamesAsked) -> None:
        """Somebody wants to know all names."""
        self._context.send(source, NamesTold(message.query_id, tuple(self.names)))

    def _forget(self, is_gone: Callable[[int], bool]) -> None:
        for key, named in list(self.names.items()):
            if is_gone(named.actor_id):
                del self.names[key]

    # -- who asked ---------------------------------------------------------------------------------------------------

    def on_told(self, message: NameTold) -> None:
        """Rank 0 has answered."""
        if not message.actor_id:
            claimed = self.queries[message.query_id]
            if claimed is not None:
                self.own[claimed.actor_id] = None
                if message.query_id in self.abandoned:
                    self.give_up(claimed.actor_id)
            self._answer(message.query_id, None)
            return
        self.queries[message.query_id] = NamedActor(message.actor_id, message.descriptor)
        self._context.demand_rank(owner_of(message.actor_id))
        self._context.send(owner_of(message.actor_id), HandleAsked(message.query_id, message.actor_id))

    def on_given(self, source: int, message: HandleGiven) -> None:
        """The owner has answered."""
        named = self.queries[message.query_id]
        if not message.actor_id:
            self._answer(message.query_id, ENDING)
            return
        self._references.add_local([message.actor_id])
        self._references.accept(message.actor_id, source)
        if message.query_id in self.abandoned:
            self._references.drop_local([message.actor_id])
        self._answer(message.query_id, named)

    def on_listed(self, message: NamesTold) -> None:
        """Rank 0 has told all names."""
        self._answer(message.query_id, list(message.names))

    def _answer(self, query_id: int, answers: NamedActor | list[tuple[str, str]] | None) -> None:
        del self.queries[query_id]
        if self.abandoned.pop(query_id, 0) is not None:
            self._context.effects.append(AnswerName(query_id, answers))

    def on_rank_lost(self, dead: int) -> None:
        """A rank is dead: its actors are, too."""
        self._forget(lambda actor_id: owner_of(actor_id) == dead)
        for query_id, named in list(self.queries.items()):
            if named is not None and owner_of(named.actor_id) == dead:
                self._answer(query_id, ENDING)
