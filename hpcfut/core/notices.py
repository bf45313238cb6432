"""Notices: whoever here watches an object, or bytes, is told when they are ready, and what is to be done then."""

from __future__ import annotations

from hpcfut.core.copy import Copy
from hpcfut.core.recovery import Recovery
from hpcfut.core.references import Record, References
from hpcfut.core.run import READY
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.tasks import Tasks
from hpcfut.core.waits import Waits
from hpcfut.core.watches import Watches


class Notices:
    """Goes from the tables of objects and copies to the machines of those who watch them."""

    def __init__(
        self,
        references: References,
        tasks: Tasks,
        scheduler: Scheduler,
        runs: Runs,
        waits: Waits,
        watches: Watches,
        recovery: Recovery,
    ) -> None:
        self._references = references
        self._owned = references.ownership.objects
        self._tasks = tasks
        self._scheduler = scheduler
        self._runs = runs
        self._waits = waits
        self._watches = watches
        self._recovery = recovery

    def tell_of_copy(self, copy: Copy | None) -> None:
        """Tell everybody here who watches a copy that it is at hand, unless it has been asked for again meanwhile."""
        if copy is not None and copy.is_lost and any(watcher < 0 for watcher in copy.watchers or ()):
            self._recovery.on_missing(copy.object_id)
        while copy is not None and copy.watchers and copy.is_at_hand:
            watcher = next(iter(copy.watchers))
            del copy.watchers[watcher]
            if watcher > 0:
                run = self._runs.on_arrived(watcher)
                if run is not None and not self._waits.offer(run.task_id) and run.state == READY:
                    self._scheduler.remove_ready(run)
                    self._runs.hand_back([run])
                continue
            object_id = self._references.names.get(copy.object_id, copy.object_id)
            record = self._references.find(object_id)
            assert record is not None
            if -watcher in self._waits.waits:
                self._waits.on_arrived(-watcher, record)
            else:
                self._watches.on_arrived(-watcher, record)

    def tell_of_object(self, object_id: int) -> None:
        """Tell everybody here who watches an object that it is ready."""
        record: Record | None = self._owned.get(object_id) or self._references.find(object_id)
        if record is None or not record.watchers:
            return
        watchers, record.watchers = record.watchers, None
        for watcher in watchers:
            if watcher > 0:
                self._tasks.on_argument_ready(watcher, object_id)
            elif -watcher in self._waits.waits:
                self._waits.on_ready(-watcher, record)
            elif watcher:
                self._watches.on_ready(-watcher, record)
            else:
                self._recovery.on_made(object_id)
