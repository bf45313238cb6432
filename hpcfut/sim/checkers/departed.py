"""Nobody counts on the dead: no message goes there, and no entry of any table waits for one who is known to have died.

What a survivor may keep is what the dead have left behind: memory that it reads in place, runs that are on their way to
their end, and, at an owner, counts of who has borrowed what, until every survivor has noted every death. Once all have
heard of all deaths, and have told each other, no count names the dead either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpcfut.core.copy import LENT
from hpcfut.model.ids import name_of, owner_of
from hpcfut.sim.trace import SimulationError
from hpcfut.wire.messages import Message, TaskPushed

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Departed:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world

    def on_message(self, rank: SimRank, destination: int, message: Message) -> None:
        """A message is about to leave."""
        if isinstance(message, TaskPushed):
            self._world.truth.note_pushed(message, destination, is_lost=destination in rank.has_lost)
        if destination in rank.knew_dead:
            what = type(message).__name__
            raise SimulationError(f"Rank {rank.rank} sends a {what} to rank {destination}, which it knows is dead.")

    def after_turn(self, rank: SimRank) -> None:
        """Look through the tables of a rank that knows of a death."""
        if not rank.has_lost or rank.mailbox:
            return
        for what, object_id in self._found(rank):
            dead = list(rank.has_lost)
            raise SimulationError(f"Rank {rank.rank} knows of the deaths of {dead}, and {what}.", [object_id])

    def at_rest(self) -> None:
        """Everybody has heard of all deaths, and has told so: nobody is counted on account of the dead."""
        for rank in self._world.survivors():
            neighbours = [each for each in rank.has_lost if each in rank.neighbours]
            if [each for each in neighbours if each not in rank.has_forgotten]:
                raise SimulationError(
                    f"Rank {rank.rank} keeps the memory of {neighbours}, of which it has forgotten "
                    f"{list(rank.has_forgotten)}."
                )

    def _found(self, rank: SimRank) -> Iterator[tuple[str, int]]:
        core, lost = rank.core, rank.has_lost
        for lease in core.leases.leases.values():
            if lease.rank in lost:
                yield f"has lease {lease.lease_id} on rank {lease.rank}", 0
        for owner, lease_id in core.scheduler.grants:
            if owner in lost:
                yield f"grants lease {lease_id} to rank {owner}", 0
        for task in core.tasks.tasks.values():
            if task.rank in lost and task.state == "pushed":
                yield f"waits for task {name_of(task.task_id)} there", task.task_id
        for run in core.runs.runs.values():
            if run.owner in lost and run.state in ("fetching", "ready"):
                yield f"is going to run {name_of(run.task_id)} for rank {run.owner}", run.task_id
        for template_id, record in core.templates.own.items():
            if any(known in lost for known in record.known):
                yield f"counts on who knows template {name_of(template_id)}: {list(record.known)}", 0
        yield from self._in_copies(rank)
        yield from self._in_objects(rank)

    def _in_copies(self, rank: SimRank) -> Iterator[tuple[str, int]]:
        lost = rank.has_lost
        for object_id, copy in rank.core.copies.copies.items():
            name = name_of(object_id)
            if any(each in lost for each in copy.lent or ()):
                yield f"lends {name}: {copy.lent}", object_id
            if any(each in lost for each in (copy.readers or {}).values()):
                yield f"redirects readers of {name}: {copy.readers}", object_id
            if any(each in lost for each, _ in copy.askers or ()):
                yield f"is asked for {name}: {copy.askers}", object_id
            if copy.is_held and owner_of(object_id) in lost and copy.is_primary:
                yield f"stores {name} for its owner", object_id
            if copy.state == "asked" and copy.rank in lost:
                yield f"waits to be lent {name}: {copy}", object_id
            if copy.state == LENT and copy.rank in rank.has_forgotten:
                yield f"reads {name} in memory that it has let go", object_id

    def _in_objects(self, rank: SimRank) -> Iterator[tuple[str, int]]:
        lost = rank.has_lost
        for object_id, record in rank.core.ownership.objects.items():
            if any(each in lost for each in record.askers or ()):
                yield f"owes an answer about {name_of(object_id)}: {record.askers}", object_id
            if any(each in lost for each in record.keepers or ()):
                yield f"counts on who keeps {name_of(object_id)}: {record.keepers}", object_id
        for object_id, borrowed in rank.core.borrowing.objects.items():
            name, owner = name_of(object_id), owner_of(object_id)
            if any(each in lost for each in borrowed.reports or ()):
                yield f"is reported as a borrower of {name} by {borrowed.reports}", object_id
            if owner in lost and borrowed.state not in ("unknown", "failed"):
                yield f"has borrowed {name}, which is {borrowed.state}, from rank {owner}", object_id
