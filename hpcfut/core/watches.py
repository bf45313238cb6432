"""Watches: who is told of objects one by one, as they become ready, while no thread of this rank waits for them.

Event loops, ``concurrent.futures`` and ``as_completed`` stand behind watches. A watch is told of each object once; of
how many at a time is left open. It ends with the last of them, or when nobody wants to know the rest.

Nobody can tell whether the code behind a watch does something else meanwhile. A watch of which an event loop or a
future is to be told counts as a wait: the task lends its slot, the driver its rank, because what is watched may have to
run there. ``as_completed`` computes between two objects, and waits for the next with a wait of its own, for nothing.
"""

from __future__ import annotations

import msgspec

from hpcfut.core.context import Context
from hpcfut.core.effects import TellWatcher
from hpcfut.core.events import WatchStarted
from hpcfut.core.ownership import STORED
from hpcfut.core.references import Record, References
from hpcfut.core.run import Run
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.waits import Waits
from hpcfut.model.errors import InvariantError
from hpcfut.model.place import Place


class Watch(msgspec.Struct, gc=False, eq=False):
    """One watch; ``left`` are the objects that have not been told."""

    watch_id: int
    left: dict[int, None]
    is_fetching: bool
    is_waiting: bool
    task_id: int
    run: Run | None = None


class Watches:
    """The table of watches."""

    def __init__(
        self, context: Context, references: References, scheduler: Scheduler, runs: Runs, waits: Waits
    ) -> None:
        self._context = context
        self._references = references
        self._scheduler = scheduler
        self._runs = runs
        self._waits = waits
        self.watches: dict[int, Watch] = {}

    def start(self, event: WatchStarted) -> None:
        """Somebody watches; what is ready is told at once."""
        watch = Watch(event.watch_id, {}, event.is_fetching, event.is_waiting, event.task_id)
        ready = []
        for object_id in event.object_ids:
            record = self._references.ensure(object_id)
            if record.state == STORED:
                self._waits.copies.retry(record.bytes_id)
            if self._waits.is_ready(record, watch.is_fetching):
                ready.append(record)
            else:
                watch.left[object_id] = None
                self._waits.watch(record, watch.watch_id, is_fetching=watch.is_fetching)
        if ready:
            self._tell(watch, ready)
        if not watch.left:
            return
        self.watches[watch.watch_id] = watch
        if watch.is_waiting:
            if watch.task_id:
                watch.run = self._runs.block(watch.task_id)
            else:
                self._scheduler.driver_waits()
            self._runs.dispatch()

    def on_ready(self, watch_id: int, record: Record) -> None:
        """An object is ready; a stored one may still have to be read. The watch may have ended meanwhile."""
        watch = self.watches.get(watch_id)
        if watch is None:
            return
        if record.state != STORED or self._waits.is_ready(record, watch.is_fetching):
            self._tell_one(watch, record)
        else:
            self._waits.watch(record, watch_id, is_fetching=watch.is_fetching)

    def on_arrived(self, watch_id: int, record: Record) -> None:
        """The bytes of an object are here (or will never be)."""
        watch = self.watches.get(watch_id)
        if watch is not None:
            self._tell_one(watch, record)

    def _tell_one(self, watch: Watch, record: Record) -> None:
        del watch.left[record.object_id]
        self._tell(watch, [record])
        if not watch.left:
            self._forget(watch)

    def _tell(self, watch: Watch, ready: list[Record]) -> None:
        ids = [record.object_id for record in ready]
        values = [self._waits.value_of(record, is_fetching=watch.is_fetching) for record in ready]
        has_places = any(type(value) is Place for value in values)
        self._context.effects.append(TellWatcher(watch.watch_id, ids, values, not watch.left, has_places))

    def end(self, watch_id: int) -> None:
        """Nobody wants to know the rest."""
        watch = self.watches.get(watch_id)
        if watch is None:
            self._context.count_stale("end of a watch that was over")
            return
        self._waits.unwatch(watch.left, watch_id)
        self._forget(watch)

    def _forget(self, watch: Watch) -> None:
        del self.watches[watch.watch_id]
        if watch.is_waiting:
            self._waits.go_on(watch.task_id, watch.run)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for watch in self.watches.values():
            for object_id in watch.left:
                record = self._references.find(object_id)
                if record is None or (not watch.is_fetching and self._waits.is_ready(record, False)):
                    raise InvariantError(f"Watch {watch.watch_id} was not told of {record or object_id}.")
