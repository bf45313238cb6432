"""An actor on the rank where it lives: which of its methods run, and which wait for their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator
from typing import Final

import msgspec

from hpcfut.core.run import FETCHING, READY, Run
from hpcfut.model.template import SchedulingKey, TaskTemplate

LIVING: Final = "living"
#: Dismissed, or gone by itself, while methods of it run that do not end at once.
LEAVING: Final = "leaving"
OUT: Final = "out"

TRANSITIONS: Final = {
    (LIVING, "leave"): LEAVING,
    (LEAVING, "go"): OUT,
}


class Group(msgspec.Struct, gc=False, eq=False):
    """A concurrency group."""

    #: How many more of its calls may run now.
    n_free: int
    #: Calls that have come and not begun, in that order; those that will not begin leave lazily.
    queue: deque[Run] = msgspec.field(default_factory=deque)

    def take_next(self) -> Run | None:
        """The call that begins now, if one can."""
        queue = self.queue
        if self.n_free <= 0 or not queue:
            return None
        if queue[0].state == READY:
            return queue.popleft()
        waiting: list[Run] = []
        callers: dict[int, None] = {}
        found = None
        while queue:
            run = queue.popleft()
            if run.state == READY and (run.owner not in callers or not run.template.is_ordered):
                found = run
                break
            if run.state in (FETCHING, READY):
                # Its arguments are not here, or those of an earlier call of the same caller.
                callers[run.owner] = None
                waiting.append(run)
        queue.extendleft(reversed(waiting))
        return found


class Resident(msgspec.Struct, eq=False):
    """An actor that lives here. It gives its calls the right to run, as the scheduler does for tasks."""

    actor_id: int
    #: Who owns the actor.
    owner: int
    template: TaskTemplate
    groups: dict[str, Group]
    #: Told when a call waits, whose turn others may be waiting for.
    on_block: Callable[[], None]
    state: str = LIVING
    #: Its calls that have begun.
    running: dict[int, Run] = {}
    #: Its calls that wait for something; and what the scheduler has to say of itself, and an actor never has.
    n_blocked: int = 0
    is_full: bool = False
    has_work: bool = False

    def group_of(self, run: Run) -> Group:
        """The group in which a call runs."""
        return self.groups[run.template.group]

    def start(self, run: Run) -> None:
        """A call begins."""
        self.group_of(run).n_free -= 1
        self.running[run.task_id] = run

    def end(self, run: Run) -> None:
        """A call has ended."""
        if self.running.pop(run.task_id, None) is not None:
            self.group_of(run).n_free += 1
            self.n_blocked -= run.n_waits > 0

    def succeed(self, run: Run) -> Run | None:
        """A call ends, and the next one of its group takes its turn, if one is ready."""
        group = self.groups[run.template.group]
        if not group.queue or self.state != LIVING or run.task_id not in self.running:
            return None
        group.n_free += 1
        following = group.take_next()
        group.n_free -= 1
        if following is not None:
            del self.running[run.task_id]
            self.running[following.task_id] = following
        return following

    def take_next(self) -> Run | None:
        """The call that begins now, if one can."""
        for group in self.groups.values():
            if group.queue and (run := group.take_next()) is not None:
                return run
        return None

    def kept_waiting(self, blocked: Container[int]) -> Iterator[tuple[int, str, SchedulingKey, tuple[int, ...]]]:
        """The calls that cannot begin, or go on, before others have ended, and which these are.

        ``blocked``: runs that wait with a thread. One of an event loop keeps that from others, which may have begun.
        """
        assert self.template.actor is not None
        if self.template.actor.is_async:
            ahead = tuple(task_id for task_id in self.running if task_id in blocked)
            behind = [run for run in self.running.values() if run.task_id not in blocked] if ahead else []
            yield from ((run.task_id, run.template.name, run.template.key, ahead) for run in behind)
        for group in self.groups.values():
            ahead = tuple(run.task_id for run in self.running.values() if self.group_of(run) is group)
            for run in group.queue if group.n_free <= 0 else ():
                if run.state == READY:
                    yield run.task_id, run.template.name, run.template.key, ahead

    def add_ready(self, run: Run) -> None:
        """A call has all its arguments; it stands in the queue since it came."""

    def remove_ready(self, run: Run) -> None:
        """A call will not begin, or not yet; it leaves the queue when its turn comes."""

    def block(self, run: Run) -> None:
        """A call waits for something; it keeps its turn."""
        self.n_blocked += 1
        self.on_block()

    def unblock(self, run: Run) -> None:
        """A call goes on."""
        self.n_blocked -= 1
