"""Fates: what a death means for actors, on the rank that owns them, where they live, and where they are called."""

from __future__ import annotations

from hpcfut.core.actors import Actors
from hpcfut.core.addresses import Addresses
from hpcfut.core.membership import Membership
from hpcfut.core.names import Names
from hpcfut.core.residents import Residents
from hpcfut.model.failure import ACTOR_DIED, Failure
from hpcfut.model.ids import name_of, owner_of
from hpcfut.wire.actors import ActorAsked, HandleAsked, HandleGiven


class Fates:
    """Tells them; calls that were on the dead rank have come back by then (``stranded.py``)."""

    def __init__(
        self, membership: Membership, addresses: Addresses, actors: Actors, residents: Residents, names: Names
    ) -> None:
        self._membership = membership
        self._addresses = addresses
        self._actors = actors
        self._residents = residents
        self._names = names

    def on_rank_lost(self, dead: int, obituary: str) -> None:
        """A rank is dead: the actors that it owned are gone, those that lived there may be started again."""
        for actor_id in [actor_id for actor_id in self._addresses.addresses if owner_of(actor_id) == dead]:
            self._addresses.end(actor_id, self._gone(actor_id))
        self._residents.forget_owner(dead, obituary)
        self._names.on_rank_lost(dead)
        self._actors.on_rank_lost(dead, obituary)

    def on_undelivered(self, dead: int, message: ActorAsked | HandleAsked) -> None:
        """What the owner of an actor was asked, and is dead: this rank answers itself."""
        if isinstance(message, ActorAsked):
            self._addresses.end(message.actor_id, self._gone(message.actor_id))
        else:
            self._names.on_given(dead, HandleGiven(message.query_id, 0))

    def _gone(self, actor_id: int) -> Failure:
        obituary = self._membership.obituary(owner_of(actor_id))
        return Failure(
            ACTOR_DIED,
            f"Actor {name_of(actor_id)} is gone with its owner. {obituary}. Actors that are to outlive other ranks "
            f"belong to the driver: let it create them.",
        )
