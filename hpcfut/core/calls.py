"""Calls of methods: tasks of this rank that go where their actor is (``addresses.py``), instead of under a lease."""

from __future__ import annotations

from hpcfut.core.addresses import Addresses
from hpcfut.core.context import Context
from hpcfut.core.events import MethodCalled
from hpcfut.core.ownership import PENDING, OwnedObject
from hpcfut.core.references import References
from hpcfut.core.task import TRANSITIONS
from hpcfut.core.tasks import Tasks
from hpcfut.wire.actors import MethodRefused


class Calls:
    """How they begin, and how they come back; the rest is as for all tasks (``tasks.py``)."""

    def __init__(self, context: Context, references: References, addresses: Addresses, tasks: Tasks) -> None:
        self._next = context.make_table("task", TRANSITIONS)
        self._on_queue = self._next.on("queue")
        self._references = references
        self._owned = references.ownership.objects
        self._addresses = addresses
        self._tasks = tasks

    def submit(self, event: MethodCalled) -> None:
        """User code called a method of an actor."""
        tasks = self._tasks
        task = tasks.make(event)
        address = task.address = self._addresses.of(event.actor_id)
        for object_id in event.return_ids:
            self._owned[object_id] = OwnedObject(object_id, PENDING, 1, 0, event.task_id)
        if event.parent:
            tasks.children.setdefault(event.parent, {})[event.task_id] = None
        failure = None
        if event.arguments or event.nested:
            self._references.hold_all(task.nested)
            failure = tasks.look_at_arguments(task, 1)
        if failure is not None:
            tasks.fail(task, failure, "fail")
            return
        task.state = self._next[task.state, "wait"] if task.n_missing else self._on_queue[task.state]
        self._addresses.enqueue(task, address)

    def on_refused(self, message: MethodRefused) -> None:
        """The actor was not there any more, and the call has not begun."""
        task = self._tasks.tasks[message.task_id]
        assert task.address is not None
        self._addresses.lose(task.address, task.rank)
        if task.is_cancelled:
            self._tasks.cancel_here(task)
        else:
            self._tasks.come_back(task, "refuse")
