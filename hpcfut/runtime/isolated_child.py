"""A child process of a rank in which the code of isolated tasks runs, as the rank sees it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpcfut.core.events import TemplateDropped
from hpcfut.model.failure import Failure
from hpcfut.ports import Child
from hpcfut.wire.isolation import Said, Shown

if TYPE_CHECKING:
    from hpcfut.runtime.runtime import Runtime


class IsolatedChild:
    """A child process, and what the rank holds for it."""

    def __init__(self, child: Child, runtime: Runtime, find: Callable[[memoryview], tuple[int, int] | None]) -> None:
        self.child = child
        self.channel = child.channel
        self._runtime = runtime
        self._find = find
        #: How much memory the task may have for itself, 0 for any number; what the process had when the call began, and
        #: how much more it had when it was ended because of that.
        self.nbytes_max = 0
        self._nbytes_before = 0
        self.nbytes_found = 0
        #: Functions that it knows, and how often it has called each.
        self.n_calls: dict[int, int] = {}
        #: Refs that it holds.
        self.refs: dict[int, Any] = {}
        #: What it views.
        self._views: dict[int, memoryview] = {}
        self._n_views = 0
        #: Remote functions that it has made.
        self.own_templates: dict[int, None] = {}
        #: One of its functions is forgotten.
        self.is_stale = False
        #: The task whose code it runs, 0 for none.
        self.task_id = 0
        #: Whether the rank has done with it.
        self._is_over = False
        #: Whether its code was to be interrupted. When it has ended, that may still come, and hit another one.
        self.is_struck = False
        self._lock = threading.Lock()

    def begin(self, task_id: int, nbytes_max: int) -> None:
        """It is going to run the code of this task, which may have so much memory for itself (0 for any number)."""
        with self._lock:
            self.task_id = task_id
            self.nbytes_max = nbytes_max
            # Not counted is what earlier calls have left there.
            self._nbytes_before = self.child.nbytes_private if nbytes_max else 0

    def end_task(self) -> None:
        """It runs nothing now."""
        with self._lock:
            self.task_id = 0

    def strike(self, task_id: int, is_forced: bool) -> None:
        """Have ``TaskCancelledError`` raised in this task, once, or end the process."""
        with self._lock:
            if self.task_id != task_id:
                return
            if is_forced:
                self.child.signal(signal.SIGKILL)
            elif not self.is_struck:
                self.is_struck = True
                self.child.signal(signal.SIGURG)

    def leave_wait(self) -> bool:
        """If the process has ended, let its task wait for nothing any more; returns whether it has ended."""
        with self._lock:
            if self._is_over:
                return True
            if not self.channel.is_at_end():
                return False
            if self.task_id:
                self._runtime.executor.interruption.end_wait(self.task_id)
            return True

    def is_within_memory(self) -> bool:
        """Whether it has a task that is to be looked at again; ends the process if it has taken too much memory."""
        with self._lock:
            if not self.task_id or not self.nbytes_max:
                return False
            nbytes = self.child.nbytes_private - self._nbytes_before
            if nbytes <= self.nbytes_max:
                return True
            self.nbytes_found = nbytes
            self.child.signal(signal.SIGKILL)
            return False

    def show(self, value: Any, payloads: list[bytes | memoryview]) -> Shown:
        """A value as the child can see it; ``payloads`` go behind the frame."""
        if isinstance(value, Failure):
            return Shown(None, failure=value)
        if isinstance(value, bytes):
            return Shown(value, len(value))
        place = self._find(value)
        if place is None:
            payloads.append(value)
            return Shown(None, len(value))
        self._n_views += 1
        self._views[self._n_views] = value
        return Shown(None, len(value), *place, self._n_views)

    def note(self, said: Said) -> None:
        """Hold what it has come to hold, and no more what it does not."""
        make_ref = self._runtime.pickling.make_ref
        for object_id in said.taken:
            self.refs[object_id] = make_ref(object_id)
        for object_id in said.dropped:
            del self.refs[object_id]
        for number in said.closed:
            del self._views[number]
        for template_id in said.forgotten:
            del self.own_templates[template_id]
            self._runtime.mailbox.append(TemplateDropped(template_id))
        if said.is_struck:
            interruption, task_id = self._runtime.executor.interruption, self.task_id
            interruption.pending.pop(task_id, None)
            if task_id in interruption.forced:
                # Meanwhile more than the exception is wanted.
                interruption.interrupt(task_id, is_forced=True)

    def hold_new(self, object_ids: list[int]) -> None:
        """These were made for it; who makes one holds it once."""
        for object_id in object_ids:
            self.refs[object_id] = self._runtime.pickling.make_ref(object_id)
        self._runtime.released.extend(object_ids)

    def end(self) -> int | None:
        """End the process; returns its status, as ``Child.end`` does."""
        self._let_go()
        return self.child.end()

    def leave(self) -> None:
        """Have it end by itself, without waiting for that."""
        self._let_go()
        self.child.let_go()

    def _let_go(self) -> None:
        with self._lock:
            self.task_id, self._is_over = 0, True
        self.refs.clear()
        self._views.clear()
        self._runtime.mailbox.extend(map(TemplateDropped, self.own_templates))
        self.own_templates.clear()
