"""No use after free: what anybody can still reach is known to its owner; and every core knows the refs of its rank.

Reachable are the refs in user code of any rank, the arguments and nested refs of unfinished tasks, the refs that live
templates capture, and the refs inside reachable values. What a core holds is known to its owner as well, whether or not
anybody can reach it. What a dead rank owned, nobody can reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcfut.core.ownership import RETIRED, STORED, OwnedObject
from hpcfut.model.failure import LOST
from hpcfut.model.ids import name_of, owner_of
from hpcfut.sim.trace import SimulationError
from hpcfut.sim.truth import Value

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank
    from hpcfut.sim.world import SimWorld


class Lives:
    """See the module's docstring."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self._n_turns = 0

    def after_turn(self, rank: SimRank) -> None:
        """Look at the refs in user code after every turn, and at everything reachable now and then."""
        self._n_turns += 1
        if rank.mailbox:
            # Something has happened meanwhile that the core has not been told.
            return
        objects = rank.core.ownership.objects
        for object_id in self._world.truth.held[rank.rank]:
            record = objects.get(object_id)
            if is_gone(record):
                raise SimulationError(f"Object {name_of(object_id)} is held, but its owner forgot it.", [object_id])
        find = rank.core.references.find
        for object_id, n in rank.held.items():
            found = find(object_id)
            if found is None or found.n_local != n:
                n_known = found.n_local if found is not None else "no"
                raise SimulationError(
                    f"User code of rank {rank.rank} has {n} refs to {name_of(object_id)}; the core knows {n_known}.",
                    [object_id],
                )
        if self._n_turns % self._world.scenario.n_turns_a_deep_check == 0:
            self._check_all()

    def _check_all(self) -> None:
        world = self._world
        for object_id in self.reachable():
            owner = world.ranks[owner_of(object_id)]
            if owner.is_dead:
                continue
            record = owner.core.ownership.objects.get(object_id)
            if not is_gone(record):
                continue
            # What was made in this very moment is not yet known to its owner.
            if not owner.mailbox:
                raise SimulationError(f"Object {name_of(object_id)} can be reached, but was collected.", [object_id])
        for rank in world.survivors():
            for object_id in rank.core.borrowing.objects:
                owner = world.ranks[owner_of(object_id)]
                if owner.is_dead or owner.mailbox:
                    continue
                if is_gone(owner.core.ownership.objects.get(object_id)):
                    text = f"Rank {rank.rank} has borrowed object {name_of(object_id)}, which was collected."
                    raise SimulationError(text, [object_id])

    def reachable(self) -> dict[int, None]:
        """Everything that user code could still ask for."""
        world = self._world
        truth = world.truth
        found: dict[int, None] = {}
        for held in truth.held:
            found.update(dict.fromkeys(held))
        for rank in world.survivors():
            for task in rank.core.tasks.tasks.values():
                found.update(dict.fromkeys(task.arguments))
                found.update(dict.fromkeys(task.nested))
            for template_id in rank.core.templates.own:
                found.update(dict.fromkeys(world.templates[template_id].nested))
        todo = list(found)
        while todo:
            value = self._value_of(todo.pop())
            if value is not None:
                for object_id in value.contained:
                    if object_id not in found:
                        found[object_id] = None
                        todo.append(object_id)
        return found

    def _value_of(self, object_id: int) -> Value | None:
        """The value of an object as its owner has it, or will have."""
        truth, owner = self._world.truth, self._world.ranks[owner_of(object_id)]
        if owner.is_dead:
            return None
        record = owner.core.ownership.objects.get(object_id)
        if record is not None and record.payload is not None:
            return truth.find(object_id, record.payload)
        if record is None or not record.bytes_id:
            value = truth.values.get(object_id)
            # What a task made on a rank that died, and its owner has not heard of, is made anew or never.
            is_gone_for_good = value is not None and value.task_id and value.rank in owner.has_lost
            return value if not is_gone_for_good else None
        return truth.values[record.bytes_id] if record.state == STORED else None


def is_gone(record: OwnedObject | None) -> bool:
    """Whether an owner has given an object up."""
    return record is None or record.state == RETIRED or (record.failure is not None and record.failure.kind == LOST)
