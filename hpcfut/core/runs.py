"""Runs: the tasks that other ranks, and this one, have put on this rank, from arrival to reply.

Arguments are read before a run becomes ready, so that no slot waits for the network. While a run lives, the refs that
came with it are covered by its caller; the reply lists those that user code here still holds (rule 2 of
``borrowing.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hpcfut.core.arguments import Arguments
from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.effects import DropActor, RunTask
from hpcfut.core.references import References
from hpcfut.core.room import Room
from hpcfut.core.run import BLOCKED, FETCHING, READY, RUNNING, TRANSITIONS, Run
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.templates import Templates
from hpcfut.core.transfers import Transfers
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import Failure
from hpcfut.model.ids import NO_ID, name_of, owner_of
from hpcfut.model.place import Place
from hpcfut.wire.actors import MethodPushed, MethodRefused
from hpcfut.wire.messages import (
    Result,
    TaskDone,
    TaskPushed,
    TaskRaised,
    TaskReturned,
    TasksHandedBack,
)


class Runs:
    """The table of runs on this rank."""

    def __init__(
        self,
        context: Context,
        references: References,
        templates: Templates,
        copies: Copies,
        transfers: Transfers,
        scheduler: Scheduler,
    ) -> None:
        self._context = context
        self.next = context.make_table("run", TRANSITIONS)
        self._on_ready, self._on_start, self._on_end = map(self.next.on, ("ready", "start", "end"))
        self._references = references
        self._templates = templates
        self._copies = copies
        self._transfers = transfers
        self._scheduler = scheduler
        self.arguments = Arguments(context, references, copies, transfers)
        self.runs: dict[int, Run] = {}
        #: Told that methods of an actor may begin, and that a constructor has returned; bound in ``residents.py``.
        self.on_turn: Callable[[Any], None]
        self.on_constructed: Callable[[Run], None]
        #: Told how a run has ended of which nobody here wants to know it; bound in ``disowned.py``.
        self.on_disowned_end: Callable[[Run, tuple[Result, ...]], Run]

    # -- arrival -----------------------------------------------------------------------------------------------------

    def on_pushed(self, source: int, message: TaskPushed) -> None:
        """An owner sends a task under one of its leases."""
        scheduler = self._scheduler
        run = self._make(source, message, scheduler)
        if not scheduler.admits(run):
            run.state = self.next[run.state, "hand back"]
            self._transfers.return_loans(message.arguments)
            self._context.send(source, TasksHandedBack(message.lease_id, (message.task_id,)))
            return
        self.runs[run.task_id] = run
        if message.arguments or message.nested:
            self.arguments.accept(run, message)
            if run.n_missing:
                run.state = self.next[run.state, "fetch"]
                return
        run.state = self._on_ready[run.state]
        if scheduler.is_free_for(run):
            self.start(run)
            return
        scheduler.add_ready(run)
        if scheduler.n_slots_free > 0:
            self.dispatch()

    def call(self, source: int, message: MethodPushed, resident: Room) -> Run:
        """A method of an actor that lives here is called; the caller sees to it that it begins when it is its turn."""
        run = self._make(source, message, resident)
        run.actor_id = message.actor_id
        self.runs[run.task_id] = run
        if message.arguments or message.nested:
            self.arguments.accept(run, message)
        run.state = self.next[run.state, "fetch"] if run.n_missing else self._on_ready[run.state]
        return run

    def _make(self, source: int, message: TaskPushed | MethodPushed, room: Room) -> Run:
        template = self._templates.find(message.template_id)
        run = Run(
            message.task_id,
            source,
            message.lease_id if type(message) is TaskPushed else 0,
            template,
            message.payload,
            message.arguments,
            (message.task_id,) if template.n_returns == 1 else message.return_ids,
            room,
            message.item_ids,
        )
        if template.actor is not None:
            run.actor_id = message.task_id
        return run

    def on_arrived(self, task_id: int) -> Run | None:
        """A stored argument of a run is here (or will never be, which ``_start`` sees).

        Gives the run if it is ready, but only a waiting thread may run it: it came to this rank for such a thread.
        """
        run = self.runs[task_id]
        missing = self.arguments.missing_of(run)
        if missing is not None:  # At once, because the others may never find room beside those that are here.
            self.drop(run, *missing)
            return None
        run.n_missing -= 1
        if run.n_missing:
            return None
        run.state = self.next[run.state, "ready"]
        run.room.add_ready(run)
        if run.room is self._scheduler and not run.lease_id and not self._scheduler.accepts(run.owner):
            return run
        self.go_on_after(run)
        return None

    # -- running -----------------------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Start what can start, and open leases if nothing is left to start."""
        scheduler = self._scheduler
        if not scheduler.has_work:
            return
        while scheduler.n_slots_free > 0 and (run := scheduler.take_next()) is not None:
            self.start(run)
        if scheduler.is_full:
            # Now only waiting threads can run anything, so they are asked whenever there may be room.
            self._context.runnable.append(NO_ID)
        scheduler.open_some()

    def go_on_after(self, run: Run) -> None:
        """A run has ended, or is ready: others, or it, may start."""
        if run.room is self._scheduler:
            self.dispatch()
        else:
            self.on_turn(run.room)

    def start(self, run: Run) -> bool:
        """Start a run; false if it has ended at once, because an argument will never be here."""
        run.room.start(run)
        return self._give_out(run)

    def _give_out(self, run: Run) -> bool:
        run.state = self._on_start[run.state]
        places: tuple[Place | None, ...] = ()
        if run.copies:
            places = tuple([copy.place for copy in run.copies])
            if None in places:
                if (missing := self.arguments.missing_of(run)) is not None:
                    self.raised(run.task_id, missing[0], is_retriable=False, lost=missing[1])
                    return False
                places = tuple(map(self._copies.open_argument, run.copies))
        self._context.effects.append(
            RunTask(
                run.task_id,
                run.template.template_id,
                run.payload,
                run.arguments,
                run.return_ids,
                run.item_ids,
                run.waiter_id,
                places,
                run.actor_id,
            )
        )
        return True

    def start_inline(self, message: TaskPushed, waiter_id: int) -> bool:
        """Run a task of this rank's own queue on the stack of a waiting thread.

        Gives false if it did not start, because its arguments must come first or will never come.
        """
        run = self._make(self._context.rank, message, self._scheduler)
        self.runs[run.task_id] = run
        self.arguments.accept(run, message)
        if run.n_missing:
            run.state = self.next[run.state, "fetch"]
            return False
        run.state = self.next[run.state, "ready"]
        run.waiter_id = waiter_id
        return self.start(run)

    def start_ready(self, run: Run, waiter_id: int) -> bool:
        """Run a task that is ready here on the stack of a waiting thread; false if it did not start."""
        run.waiter_id = waiter_id
        self._scheduler.remove_ready(run)
        return self.start(run)

    def block(self, task_id: int) -> Run | None:
        """A thread of the task waits; gives the run that ``unblock`` wants back."""
        run = self.runs.get(task_id)
        if run is None or run.state not in (RUNNING, BLOCKED):
            self._context.count_stale("wait that outlived its task")
            return None
        self.suspend(run)
        return run

    def suspend(self, run: Run) -> None:
        """A thread of the run waits, or the run itself for its consumer."""
        run.n_waits += 1
        if run.state == RUNNING:
            run.state = self.next[run.state, "block"]
            run.room.block(run)
            if run.room.is_full:
                self.hand_back_all()

    def unblock(self, run: Run) -> None:
        """A thread of the task goes on. By now the task may have ended, and even have come here once more."""
        if self.runs.get(run.task_id) is run:
            self.go_on(run)
        else:
            self._context.count_stale("wait that outlived its task")

    def go_on(self, run: Run) -> None:
        """What ``suspend`` said is over."""
        run.n_waits -= 1
        if not run.n_waits:
            run.state = self.next[run.state, "unblock"]
            run.room.unblock(run)

    def hand_back_all(self) -> None:
        """This rank has no room for long: what has not started shall not start here."""
        if not (self._scheduler.grants or self._scheduler.ready):
            return
        self._scheduler.close_all()
        waiting = [run for run in self.runs.values() if run.state in (FETCHING, READY) and run.room is self._scheduler]
        self.hand_back(waiting)

    def hand_back(self, runs: list[Run]) -> None:
        """Give these runs back to their owners; the caller takes them out of the scheduler."""
        by_lease: dict[tuple[int, int], list[int]] = {}
        for run in runs:
            run.state = self.next[run.state, "hand back"]
            self._forget(run, is_reported=False)
            by_lease.setdefault((run.owner, run.lease_id), []).append(run.task_id)
        for (owner, lease_id), task_ids in by_lease.items():
            self._context.send(owner, TasksHandedBack(lease_id, tuple(task_ids)))

    # -- ends --------------------------------------------------------------------------------------------------------

    def returned(self, task_id: int, results: tuple[Result, ...]) -> Run:
        """User code returned. If it ran on the stack of a waiting thread, that goes on first, and dispatching waits."""
        run = self.runs[task_id]
        payload = results[0].payload if len(results) == 1 and not results[0].contained else None
        if payload is not None and not (run.covered or run.waiter_id or run.is_disowned):
            room = run.room
            following = room.succeed(run)
            if following is not None or not room.has_work:
                run.state = self._on_end[run.state]
                del self.runs[task_id]
                self._context.send(run.owner, TaskDone(task_id, payload))
                for copy in run.copies:
                    copy.n_pins -= 1
                    if not copy.n_pins or copy.is_recalled:
                        self._copies.note_unpinned(copy)
                if following is not None:
                    self._give_out(following)
                else:
                    # The owner may be waiting for this, and nothing here for the slot.
                    self._context.put_off.append((self._settle, run))
                return run
        if run.is_disowned:
            return self.on_disowned_end(run, results)
        if payload is None:
            for object_id, result in zip(run.return_ids, results, strict=False):
                self.keep(run, object_id, result)
        borrowed = self.end(run)
        if run.template.actor is not None:
            self.on_constructed(run)
        if payload is not None and not borrowed:
            self._context.send(run.owner, TaskDone(task_id, payload))
        else:
            self._context.send(run.owner, TaskReturned(task_id, results, borrowed))
        if not run.waiter_id:
            self.go_on_after(run)
        return run

    def _settle(self, run: Run) -> None:
        run.room.end(run)
        self.go_on_after(run)

    def keep(self, run: Run, object_id: int, result: Result) -> None:
        """A result leaves for its owner: hold its bytes, and report the owner for the refs inside."""
        if result.payload is None:
            self._copies.seal(object_id)
            result.offset = self._transfers.loans.lend(object_id, run.owner)
        if result.contained:
            self._references.report_all(result.contained, run.owner)

    def raised(self, task_id: int, failure: Failure, *, is_retriable: bool, lost: int = 0) -> Run:
        """User code raised, or the run could not start; what is said of ``returned`` holds here too."""
        run = self.runs[task_id]
        if run.is_disowned:
            return self.on_disowned_end(run, ())
        borrowed = self.end(run)
        if run.template.actor is not None:
            self._context.effects.append(DropActor(task_id))
        self._context.send(run.owner, TaskRaised(task_id, failure, is_retriable, borrowed, lost))
        if not run.waiter_id:
            self.go_on_after(run)
        return run

    def refuse(self, run: Run) -> None:
        """The actor of a method that has not begun is not here any more."""
        run.state = self.next[run.state, "hand back"]
        self._forget(run, is_reported=False)
        self._context.send(run.owner, MethodRefused(run.task_id))

    def end(self, run: Run, *, is_reported: bool = True) -> tuple[int, ...]:
        """A run has ended; returns what ``_forget`` does."""
        run.state = self._on_end[run.state]
        run.room.end(run)
        return self._forget(run, is_reported=is_reported)

    def _forget(self, run: Run, *, is_reported: bool = True) -> tuple[int, ...]:
        """Take a run out of the table; returns the covered refs that are still held here.

        The caller is going to report this rank for them, unless the run is handed back: what has never started has
        given no ref to anybody here, and whoever holds one has it from elsewhere.
        """
        del self.runs[run.task_id]
        self.arguments.unpin(run)
        if not run.covered:
            return ()
        borrowed = []
        own = self._context.rank
        for object_id in run.covered:
            record = self._references.find(object_id)
            is_held = is_reported and record is not None and (record.n_local or record.n_uses > 1)
            if is_held and own not in (run.owner, owner_of(object_id)):
                self._references.accept(object_id, run.owner)
                borrowed.append(object_id)
            self._references.drop(object_id)
        return tuple(borrowed)

    def drop(self, run: Run, failure: Failure, lost: int = 0) -> None:
        """A run will not start."""
        run.state = self.next[run.state, "drop"]
        self._context.send(run.owner, TaskRaised(run.task_id, failure, False, self._forget(run), lost))
        self.go_on_after(run)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for task_id, run in self.runs.items():
            if (run.state == BLOCKED) != bool(run.n_waits):
                raise InvariantError(f"Run {name_of(task_id)} is {run.state} with {run.n_waits} waiting threads.")
            coming = {copy.object_id: copy for copy in run.copies if task_id in (copy.watchers or ())}
            if run.n_missing != len(coming) or (run.state == FETCHING) != bool(coming):
                raise InvariantError(f"Run {name_of(task_id)} misses {run.n_missing} arguments, but not {coming}.")
            if not all(copy.is_at_hand for copy in run.copies if copy.object_id not in coming):
                raise InvariantError(f"Run {name_of(task_id)} is {run.state} without its arguments: {run.copies}.")
            if run.room is self._scheduler and (run.state == RUNNING) != (task_id in self._scheduler.running):
                raise InvariantError(f"Run {name_of(task_id)} is {run.state}, which the scheduler contradicts.")
