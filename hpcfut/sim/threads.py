"""The virtual threads of one rank: scripts, attempts of tasks, what they wait for, and what they leave behind."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hpcfut.core import effects as f
from hpcfut.core import events as e
from hpcfut.model.failure import CANCELLED, RAISED, Failure
from hpcfut.model.ids import name_of
from hpcfut.model.place import Place
from hpcfut.sim.frame import Frame, Thread, Watched
from hpcfut.sim.ops import Body, Cancelled, Make, Put, Raised, Sleep, Wait
from hpcfut.sim.results import Results

if TYPE_CHECKING:
    from hpcfut.sim.rank import SimRank


class Threads:
    """See the module's docstring."""

    def __init__(self, rank: SimRank) -> None:
        self._rank = rank
        self._world = rank.world
        self.waiters: dict[int, Frame] = {}
        self._watchers: dict[int, tuple[Frame, Watched]] = {}
        #: Attempts that run here.
        self.runs: dict[int, Frame] = {}
        #: Frames of scripts, and of threads whose task the core does not know.
        self.drivers: list[Frame] = []
        #: How many wait as a driver's, as far as the core has been told.
        self.n_drivers_waiting = 0
        self._n_waiters = 0
        self._results = Results(rank, self)
        #: Threads that user code here has started.
        self._n_threads = 0
        #: Frames that have left a wait by themselves, and as whose it was: the core will be told, is being told.
        self._comes_back: list[tuple[Frame, int]] = []
        self._came_back: list[tuple[Frame, int]] = []

    def turn_begins(self) -> None:
        """The core is about to be told what has been posted."""
        self._came_back, self._comes_back = self._comes_back, []

    def turn_ends(self) -> None:
        """The core has been told, and its effects are done."""
        for frame, waits_as in self._came_back:
            self._count_waiting(frame, waits_as, -1)
        self._came_back.clear()

    def die(self) -> None:
        """The rank is dead, and user code here does nothing more."""
        for frame in self.runs.values():
            assert frame.spec is not None
            frame.spec.running_on = -1
        self._world.n_threads -= self._n_threads
        for table in (self.waiters, self._watchers, self.runs, self.drivers, self._comes_back, self._came_back):
            table.clear()

    # -- effects ---------------------------------------------------------------------------------------------------

    def run_task(self, effect: f.RunTask) -> None:
        """An attempt starts: on the stack of a waiting thread, or on a thread of its own."""
        world = self._world
        spec = world.truth.spec_of(effect)
        for check in world.checks.on_run:
            check(self._rank, effect)
        waiter = self.waiters.get(effect.waiter_id) if effect.waiter_id else None
        # A thread that has just stopped waiting is not there any more; then an executor thread does it.
        thread = waiter.thread if waiter is not None else Thread()
        frame = Frame(self._rank, thread, spec, world.rng)
        frame.attempt = spec.n_attempts = spec.n_attempts + 1
        spec.running_on = spec.ran_on = self._rank.rank
        frame.return_ids = effect.return_ids
        frame.item_ids = deque(effect.item_ids)
        frame.n_names = len(effect.item_ids)
        frame.open_arguments = self._rank.arguments.take(effect.places)
        frame.program = spec.body(frame)
        self.runs[effect.task_id] = frame
        thread.stack.append(frame)
        found = list(spec.nested)
        for argument in effect.arguments:
            found += world.truth.contents_of(argument)
        if effect.template_id not in self._rank.functions:
            nested = world.templates[effect.template_id].nested
            self._rank.functions[effect.template_id] = nested
            self._rank.add_refs(list(nested))
        frame.refs += found
        self._rank.add_refs(found)
        world.schedule_step(thread, world.rng.random() * 20e-6)

    def wake(self, effect: f.WakeWaiter) -> None:
        """A wait is over."""
        places = [value for value in effect.values if type(value) is Place]
        self._rank.open_views(places)
        frame = self.waiters.pop(effect.waiter_id, None)
        if frame is None:
            self._rank.close_views(places)
            return
        frame.views += places
        for check in self._world.checks.on_wake:
            check(self._rank, frame, effect)
        frame.waiter_id = 0
        frame.result = effect
        if frame.thread.stack[-1] is frame:
            self._count_waiting(frame, frame.waits_as, -1)
            self._world.schedule_step(frame.thread, self._world.rng.random() * 20e-6)
        else:
            frame.is_covered = True

    def tell(self, effect: f.TellWatcher) -> None:
        """Objects that a frame watches are ready."""
        places = [value for value in effect.values if type(value) is Place]
        self._rank.open_views(places)
        frame, watched = self._watchers.get(effect.watch_id, (None, None))
        if frame is None or watched is None:
            self._rank.close_views(places)
            return
        self._drop_views(frame, places)
        for check in self._world.checks.on_tell:
            check(self._rank, watched, effect)
        for object_id in effect.object_ids:
            del watched.left[object_id]
        if effect.is_last:
            del self._watchers[effect.watch_id]
            if watched.is_waiting:
                self._count_waiting(frame, watched.waits_as, -1)

    def interrupt(self, effect: f.InterruptTask) -> None:
        """An attempt is cancelled."""
        frame = self.runs.get(effect.task_id)
        if frame is None:
            return
        frame.is_interrupted = True
        if frame.thread.stack[-1] is frame and not frame.is_writing:
            self._break_off(frame)

    def resume(self, effect: f.ResumeGenerator) -> None:
        """A generator may make further items."""
        frame = self.runs.get(effect.task_id)
        if frame is None:
            return
        if not frame.has_begun or effect.position > frame.n_names:
            return  # Nobody is there to hear it; it is told again.
        frame.item_ids.extend(effect.item_ids[frame.n_names - effect.position :])
        frame.n_names = max(frame.n_names, effect.position + len(effect.item_ids))
        if frame.is_held_back and frame.item_ids:
            frame.is_held_back = False
            frame.n_waiting -= 1
            self._world.schedule_step(frame.thread, 0.0)

    def start_driver(self, body: Body) -> None:
        """Start a driver's script."""
        self._start(body, Frame(self._rank, Thread(), None, self._world.rng))

    def start(self, body: Body, parent: Frame, refs: list[int], *, is_known: bool) -> None:
        """Start a thread in user code; ``is_known``: the core is told which task its waits belong to."""
        frame = Frame(self._rank, Thread(), None, self._world.rng)
        frame.depth = parent.depth + 1
        if is_known and parent.task_id:
            frame.task_id = parent.task_id
            frame.main = parent.main
            frame.horizon = parent.horizon
        frame.refs += refs
        self._rank.add_refs(refs)
        self._n_threads += 1
        self._world.n_threads += 1
        self._start(body, frame)

    def _start(self, body: Body, frame: Frame) -> None:
        frame.program = body(frame)
        frame.thread.stack.append(frame)
        if not frame.task_id:
            self.drivers.append(frame)
        self._world.schedule_step(frame.thread, 0.0)

    def step(self, thread: Thread) -> None:
        """Let the topmost frame of a thread go on to its next op."""
        thread.is_scheduled = False
        if self._rank.ended is not None or self._rank.is_dead:
            return
        if self._rank.pauses_until > self._world.now:
            self._world.schedule_step(thread, self._rank.pauses_until - self._world.now)
            return
        frame = thread.stack[-1]
        frame.has_begun = True
        program = frame.program
        assert program is not None
        try:
            if frame.is_interrupted:
                frame.is_interrupted = False
                op = program.throw(Cancelled())
            else:
                op = program.send(self._take_result(frame))
        except StopIteration as stop:
            self._results.make_all(frame, tuple(stop.value or ()))
            return
        except Cancelled:
            self._raise(frame, Failure(CANCELLED, "cancelled while it ran"), is_retriable=False)
            return
        except Raised as error:
            self._raise(
                frame,
                Failure(RAISED, f"attempt {frame.attempt} of {name_of(frame.task_id)} raised"),
                error.is_retriable,
            )
            return
        if type(op) is Sleep:
            self._world.schedule_step(thread, op.seconds)
        elif type(op) is Wait:
            self._wait(frame, op)
        elif type(op) is Put:
            self._results.put(frame, op)
        else:
            assert type(op) is Make
            self._results.make_item(frame, op)

    def _drop_views(self, frame: Frame, places: list[Place]) -> None:
        """Values go away, now or, because something still refers to them, later."""
        if places and frame.rng.random() < 0.3:
            self._world.schedule(self._world.now + frame.rng.random() * 0.2, self._rank.close_views, places)
        else:
            self._rank.close_views(places)

    def _take_result(self, frame: Frame) -> list[tuple[int, f.Value]] | None:
        """What the frame was woken with; unpickling it makes the refs inside."""
        effect, frame.result = frame.result, None
        if effect is None:
            return None
        found: list[int] = []
        assert frame.wait is not None
        find = self._world.truth.find
        for object_id, value in zip(effect.object_ids, effect.values, strict=True):
            if not isinstance(value, Failure) and frame.wait.has_values:
                made = find(object_id, value)
                assert made is not None
                found += made.contained
        frame.refs += found
        self._rank.add_refs(found)
        return list(zip(effect.object_ids, effect.values, strict=True))

    # -- waits -----------------------------------------------------------------------------------------------------

    def _wait(self, frame: Frame, op: Wait) -> None:
        self._n_waiters += 1
        waiter_id = frame.waiter_id = self._n_waiters
        frame.wait = op
        # Once the task has ended, and perhaps been tried again, its threads are nobody's and count as a driver's.
        frame.waits_as = frame.task_id if self.runs.get(frame.task_id) is frame.main else 0
        self._count_waiting(frame, frame.waits_as, 1)
        self.waiters[waiter_id] = frame
        place = self._rank.place_at_hand(op)
        if place is not None:
            self.wake(f.WakeWaiter(waiter_id, op.object_ids, [place], has_places=True))
            return
        # A thread that a task started waits, while the task itself goes on.
        is_for_good = op.timeout_s is None and frame.main is frame
        how = op.may_run, frame.waits_as, is_for_good, op.is_taking
        self._rank.post(e.WaitStarted(waiter_id, op.object_ids, op.n_wanted, op.is_fetching, *how))
        if op.timeout_s is not None:
            self._world.set_timer(self._world.now + op.timeout_s, self._time_out, waiter_id)

    def watch(self, frame: Frame, object_ids: list[int], *, is_fetching: bool, is_waiting: bool) -> Watched:
        """A frame watches objects, and may do something else meanwhile."""
        self._n_waiters += 1
        watched = Watched(self._n_waiters, object_ids, is_fetching=is_fetching, is_waiting=is_waiting)
        watched.waits_as = waits_as = frame.task_id if self.runs.get(frame.task_id) is frame.main else 0
        self._watchers[watched.watch_id] = frame, watched
        if is_waiting:
            self._count_waiting(frame, waits_as, 1)
        self._rank.post(e.WatchStarted(watched.watch_id, object_ids, is_fetching, is_waiting, waits_as))
        return watched

    def unwatch(self, frame: Frame, watched: Watched) -> None:
        """A frame wants to be told no more, if it has not been told all."""
        if self._watchers.pop(watched.watch_id, None) is not None:
            self._rank.post(e.WatchEnded(watched.watch_id))
            if watched.is_waiting:
                self._comes_back.append((frame, watched.waits_as))

    def _count_waiting(self, frame: Frame, waits_as: int, by: int) -> None:
        frame.main.n_waiting += by
        if not waits_as:
            self.n_drivers_waiting += by

    def _time_out(self, waiter_id: int) -> None:
        frame = self.waiters.pop(waiter_id, None)
        if frame is not None:
            self._leave_wait(frame)
            self._world.schedule_step(frame.thread, 0.0)

    def _leave_wait(self, frame: Frame) -> None:
        self._rank.post(e.WaitAbandoned(frame.waiter_id))
        self._comes_back.append((frame, frame.waits_as))
        frame.waiter_id = 0

    def _break_off(self, frame: Frame) -> None:
        """Let an interrupted frame leave its wait, if it is in one."""
        if frame.waiter_id:
            del self.waiters[frame.waiter_id]
            self._leave_wait(frame)
        frame.is_held_back = False
        self._world.schedule_step(frame.thread, 0.0)

    # -- ends --------------------------------------------------------------------------------------------------------

    def _raise(self, frame: Frame, failure: Failure, is_retriable: bool) -> None:
        if frame.spec is not None:
            frame.spec.failures = [*frame.spec.failures, failure]
            if is_retriable:
                frame.spec.retriable = [*frame.spec.retriable, failure]
            self._rank.post(e.RunRaised(frame.task_id, failure, is_retriable))
        self.leave(frame, frame.refs)

    def leave(self, frame: Frame, refs: list[int]) -> None:
        """The frame ends: its refs are dropped, and the thread goes on with the frame below."""
        world = self._world
        frame.refs = []
        views, frame.views = frame.views, []
        self._drop_views(frame, views)
        self._rank.arguments.drop_soon(frame.open_arguments, frame.rng)
        if refs and frame.rng.random() < 0.1:
            # A reference cycle keeps them until the garbage collector comes by.
            world.schedule(world.now + frame.rng.random() * 0.2, self._rank.release_refs, refs)
        else:
            self._rank.release_refs(refs)
        if frame.spec is not None:
            frame.spec.running_on = -1
            del self.runs[frame.task_id]
        else:
            world.n_threads -= 1
            self._n_threads -= 1
            if not frame.task_id:
                self.drivers.remove(frame)
        stack = frame.thread.stack
        stack.pop()
        if stack:
            below = stack[-1]
            if below.is_covered:
                below.is_covered = False
                self._comes_back.append((below, below.waits_as))
            if below.is_interrupted:
                self._break_off(below)
            elif below.result is not None or not below.waiter_id:
                world.schedule_step(below.thread, 0.0)
