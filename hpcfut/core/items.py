"""Items: what the caller of a generator knows of it, from the names that it gives ahead to the last item.

Items are objects like others. The owner names them ahead, and keeps the last name back for telling the end. What an
attempt makes for nobody has the name 0; what it makes again for a lost item has one that the core gives out itself.
"""

from __future__ import annotations

from collections import deque

from hpcfut.core.context import Context
from hpcfut.core.events import StreamAdvanced, StreamEndWanted
from hpcfut.core.lineage import Lineage
from hpcfut.core.ownership import PENDING, OwnedObject
from hpcfut.core.references import References
from hpcfut.core.task import PUSHED, TaskRecord
from hpcfut.model.failure import ENDED, LOST, Failure
from hpcfut.model.ids import NO_ID, is_again
from hpcfut.wire.messages import ItemYielded, Result, StreamCredit


class Items:
    """The items of the generators that this rank submitted."""

    def __init__(
        self, context: Context, references: References, lineage: Lineage, tasks: dict[int, TaskRecord]
    ) -> None:
        self._context = context
        self._references = references
        self._owned = references.ownership.objects
        self._lineage = lineage
        self._tasks = tasks
        #: Generator → objects that are ready when it has ended, with their values.
        self._ends: dict[int, list[tuple[int, Result]]] = {}

    def on_item(self, source: int, message: ItemYielded) -> None:
        """A generator made its next item."""
        task = self._tasks[message.task_id]
        assert task.items is not None
        while not task.items.popleft():  # What nobody wants again is not told.
            task.n_items += 1
        task.n_items += 1
        self._references.resolve(message.object_id, message.result, source)
        if message.result.payload is None:
            self._lineage.note_item(task, message.object_id)

    def advance(self, event: StreamAdvanced) -> None:
        """The consumer allows further items; the last name stays here for telling the end."""
        for object_id in event.item_ids:
            self._owned[object_id] = OwnedObject(object_id, PENDING, 1, 0, event.task_id)
        task = self._tasks.get(event.task_id)
        if task is None:
            for object_id in event.item_ids:
                self._references.fail(object_id, Failure(ENDED))
            return
        assert task.items is not None
        reserve = task.items[-1]
        task.items.extend(event.item_ids)
        if task.state == PUSHED:
            self._context.send(task.rank, StreamCredit(task.task_id, (reserve, *event.item_ids[:-1])))

    def end(self, task: TaskRecord, failure: Failure | None) -> None:
        """Names that were given out, but not used, tell the end: first the failure, if there is one, as a last item."""
        assert task.items is not None
        items, task.items = task.items, deque()
        ends = self._ends.pop(task.task_id, ())
        for object_id, result in ends:
            self._end_with(object_id, result, failure)
        for object_id in items:
            if object_id:
                self._references.fail(object_id, failure or Failure(ENDED))
                failure = failure if is_again(object_id) else None
        self._lineage.settle(task)

    def want_again(self, task: TaskRecord, wanted: dict[int, int]) -> None:
        """An attempt that is about to begin is to make these as well: item, by how many came before → its new name."""
        assert task.items is not None
        *names, reserve = task.items
        first = min(task.n_items, *wanted)
        positions = range(first, max(task.n_items + len(names), *(position + 1 for position in wanted)))
        known = dict(enumerate(names, task.n_items)) | wanted
        task.n_items, task.items = first, deque(known.get(position, NO_ID) for position in positions)
        task.items.append(reserve)
        for object_id in wanted.values():
            self._owned[object_id] = OwnedObject(object_id, PENDING, 0, 0, task.task_id)

    def want_end(self, event: StreamEndWanted) -> None:
        """The consumer of a generator wants an object that tells how the task ends."""
        self._owned[event.object_id] = OwnedObject(event.object_id, PENDING, 1, 0, event.task_id)
        if event.task_id in self._tasks:
            self._ends.setdefault(event.task_id, []).append((event.object_id, event.result))
            return
        spec = self._lineage.specs.get(event.task_id)
        made = spec.items or () if spec is not None else ()  # What these tell is that they could not be made again.
        told = (self._owned[object_id].failure for object_id in event.item_ids if object_id not in made)
        last = (failure for failure in told if failure is not None and failure.kind not in (ENDED, LOST))
        self._end_with(event.object_id, event.result, event.failure or next(last, None))

    def _end_with(self, object_id: int, result: Result, failure: Failure | None) -> None:
        if failure is not None:
            self._references.fail(object_id, failure)
        else:
            self._references.resolve(object_id, result, self._context.rank)
