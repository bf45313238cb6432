"""Inventories: what a rank holds and why, and what is free. Nothing is counted for it before somebody asks."""

from __future__ import annotations

from collections import Counter
from typing import Final

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.events import SiteNoted
from hpcfut.core.ownership import OwnedObject
from hpcfut.core.references import Record, References
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.tasks import Tasks
from hpcfut.model.inventory import HeldObject, Inventory, StoredCopy
from hpcfut.wire.queries import InventoryAsked, InventoryReported, ResourcesAsked, ResourcesReported

#: So many notes may be of objects that are gone.
_N_STALE_SITES: Final = 1000


class Inventories:
    """Answers questions about this rank's objects."""

    def __init__(
        self, context: Context, references: References, copies: Copies, tasks: Tasks, scheduler: Scheduler
    ) -> None:
        self._context = context
        self._owned = references.ownership.objects
        self._borrowed = references.borrowing.objects
        self._copies = copies
        self._tasks = tasks
        self._free = scheduler.free
        #: Object → where user code made it; of some that are gone, too.
        self._sites: dict[int, str] = {}

    def note(self, event: SiteNoted) -> None:
        """User code has made objects."""
        sites = self._sites
        sites.update(dict.fromkeys(event.object_ids, event.site))
        if len(sites) > 2 * len(self._owned) + _N_STALE_SITES:
            self._sites = {
                object_id: site
                for object_id, site in sites.items()
                if object_id in self._owned or object_id in self._tasks.tasks or object_id in self._copies.copies
            }

    def on_resources_asked(self, source: int, message: ResourcesAsked) -> None:
        """Somebody wants to know what is free here."""
        # While a task that waited goes on beside others, less than nothing is free for a moment.
        free = {name: max(amount, 0) for name, amount in self._free.items()}
        self._context.send(source, ResourcesReported(message.query_id, free))

    def on_asked(self, source: int, message: InventoryAsked) -> None:
        """Somebody wants to know what is here."""
        self._context.send(source, InventoryReported(message.query_id, self._take()))

    def _take(self) -> Inventory:
        n_tasks: Counter[int] = Counter()
        for task in self._tasks.tasks.values():
            n_tasks.update(task.arguments)
            n_tasks.update(task.nested)
        records: list[Record] = [*self._owned.values(), *self._borrowed.values()]
        held = tuple(self._held(record, n_tasks[record.object_id]) for record in records)
        copies = tuple(
            StoredCopy(
                copy.object_id,
                copy.state,
                copy.nbytes,
                copy.rank if copy.recipe is None or copy.offset >= 0 else -1,
                copy.is_primary,
                copy.n_pins,
                copy.n_views,
                copy.n_sends,
                tuple(copy.lent or ()),
            )
            for copy in self._copies.copies.values()
        )
        arena = self._copies.arena
        nbytes_spilled = sum(copy.nbytes for copy in self._copies.copies.values() if copy.file_id > 0)
        sites = {object_id: site for object_id, site in self._sites.items() if object_id not in self._owned}
        sizes = (arena.nbytes, arena.nbytes_used, arena.nbytes_hole_max)
        return Inventory(*sizes, arena.fragmentation, nbytes_spilled, held, copies, sites)

    def _held(self, record: Record, n_tasks: int) -> HeldObject:
        borrowers: tuple[int, ...] = ()
        site = self._sites.get(record.object_id, "")
        if isinstance(record, OwnedObject):
            borrowers = tuple(dict.fromkeys(borrower for _, borrower in record.borrowers or ()))
            site = site or self._sites.get(record.task_id, "")
        n_others = max(record.n_uses - n_tasks, 0)
        return HeldObject(
            record.object_id,
            record.state,
            record.nbytes,
            record.rank,
            record.n_local,
            n_tasks,
            n_others,
            borrowers,
            record.contained,
            site,
        )
