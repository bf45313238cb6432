"""One virtual rank: a real core, and a simulated runtime that performs its effects on virtual threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpcfut.core import effects as f
from hpcfut.core import events as e
from hpcfut.core.rank import RankCore
from hpcfut.core.turn import take_turn
from hpcfut.model.failure import CANCELLED, INTERNAL, RAISED, Failure
from hpcfut.model.ids import first_id, name_of
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.sim.fabric import Frame as Batch
from hpcfut.sim.frame import Frame, Thread
from hpcfut.sim.ops import Body, Cancelled, Make, Raised, Sleep, Wait
from hpcfut.sim.truth import Value
from hpcfut.sim.window import SimWindow
from hpcfut.wire.messages import Message, ReadRequested, Result

if TYPE_CHECKING:
    from hpcfut.sim.world import SimWorld


class SimRank:
    """See the module's docstring."""

    def __init__(self, world: SimWorld, rank: int, core: RankCore) -> None:
        self.world = world
        self.rank = rank
        self.core = core
        self.window = SimWindow(rank)
        self.mailbox: list[e.Event] = []
        #: When the next turn is due; infinity for none.
        self.turn_at = float("inf")
        self.waiters: dict[int, Frame] = {}
        #: Attempts that run here.
        self.runs: dict[int, Frame] = {}
        #: Frames of scripts, and of threads whose task the core does not know.
        self.drivers: list[Frame] = []
        #: How many of them wait, as far as the core has been told.
        self.n_drivers_waiting = 0
        #: Templates whose function has been loaded here, with the refs of its closure.
        self.functions: dict[int, tuple[int, ...]] = {}
        #: Object → how many refs user code of this rank has to it.
        self.held: dict[int, int] = {}
        #: Refs in global variables.
        self.stash: list[int] = []
        #: Functions in global variables.
        self.templates: list[int] = []
        self.ended: f.EndJob | None = None
        self.is_dead = False
        self._last_id = first_id(rank, 0) - 1
        self._n_waiters = 0
        self._outgoing: dict[int, list[Message]] = {}
        #: Frames that have left a wait by themselves: the core will be told, is being told.
        self._comes_back: list[Frame] = []
        self._came_back: list[Frame] = []
        self._perform: dict[type, Callable[[Any], None]] = {
            f.SendMessage: self._send_message,
            f.RunTask: self._run_task,
            f.WakeWaiter: self._wake_waiter,
            f.StartRead: self._start_read,
            f.SendObject: self._send_object,
            f.FreeSegment: self._free_segment,
            f.InterruptTask: self._interrupt_task,
            f.ResumeGenerator: self._resume_generator,
            f.ForgetTemplate: self._forget_template,
            f.AnswerQuery: self._answer_query,
            f.EndJob: self._end_job,
        }

    # -- turns -----------------------------------------------------------------------------------------------------

    def post(self, event: e.Event) -> None:
        """Put an event into the mailbox, and see to it that a turn comes soon."""
        if self.is_dead:
            return
        self.mailbox.append(event)
        world = self.world
        at = world.now + world.rng.random() * world.scenario.turn_delay_s
        if at < self.turn_at:
            self.turn_at = at
            world.schedule(at, self._turn_if_due, at)

    def _turn_if_due(self, at: float) -> None:
        if at == self.turn_at and not self.is_dead:
            self.turn_at = float("inf")
            self.turn()

    def turn(self) -> None:
        """Take one turn of the core and perform its effects."""
        world = self.world
        events, self.mailbox = self.mailbox, []
        self._came_back, self._comes_back = self._comes_back, []
        effects: list[f.Effect] = []
        world.trace.entries.append((world.now, self.rank, events, effects))
        effects += take_turn(self.core, events, world.now)
        perform = self._perform
        for effect in effects:
            perform[type(effect)](effect)
        outgoing, self._outgoing = self._outgoing, {}
        for destination, messages in outgoing.items():
            batch = Batch(self.rank, destination, self.core.load, messages)
            world.fabric.send(batch, world.now, world.deliver)
        deadline = self.core.next_deadline()
        if deadline is not None and deadline < self.turn_at:
            self.turn_at = max(deadline, world.now)
            world.schedule(self.turn_at, self._turn_if_due, self.turn_at)
        if self._came_back:
            for frame in self._came_back:
                self._count_waiting(frame, -1)
            self._came_back.clear()
        if self.ended is None:
            for check in world.checks.after_turn:
                check(self)

    # -- refs, ids, values -----------------------------------------------------------------------------------------

    def new_id(self) -> int:
        """The next id of this rank."""
        self._last_id += 1
        return self._last_id

    def hold(self, object_id: int) -> None:
        """User code here got one more ref, of which the core learns by the event that made it."""
        self.held[object_id] = self.held.get(object_id, 0) + 1
        self.world.truth.hold(object_id)

    def add_refs(self, object_ids: list[int]) -> None:
        """User code here unpickled or copied refs."""
        for object_id in object_ids:
            self.hold(object_id)
        if object_ids:
            self.post(e.RefsAdded(object_ids))

    def release_refs(self, object_ids: list[int]) -> None:
        """User code here dropped refs."""
        held = self.held
        for object_id in object_ids:
            held[object_id] -= 1
            if not held[object_id]:
                del held[object_id]
            self.world.truth.release(object_id)
        if object_ids:
            self.post(e.RefsReleased(object_ids))

    def seal(self, object_id: int, value: Value) -> Result:
        """Store a value here if it is large; gives what the core is told."""
        if value.is_stored:
            self.window.store(object_id, value.payload)
            return Result(None, 1_000_000, value.contained)
        return Result(value.payload, len(value.payload), value.contained)

    def define(self, *, resources: tuple[tuple[str, int], ...] | None, nested: tuple[int, ...], **options: Any) -> int:
        """Make a template, held by a global variable until ``drop_template``."""
        template_id = self.new_id()
        if resources is None:
            resources = (("CPU", RESOURCE_UNIT),)
        template = TaskTemplate(
            template_id, f"f{template_id & 0xFFFF}", b"code", nested, resources=resources, **options
        )
        self.world.templates[template_id] = template
        self.templates.append(template_id)
        self.post(e.TemplateDefined(template))
        return template_id

    def drop_globals(self) -> None:
        """Drop everything that global variables of this rank hold."""
        for template_id in list(self.templates):
            self.drop_template(template_id)
        refs, self.stash = self.stash, []
        self.release_refs(refs)

    def drop_template(self, template_id: int) -> None:
        """Drop the last handle on a template."""
        self.templates.remove(template_id)
        self.post(e.TemplateDropped(template_id))

    # -- effects ---------------------------------------------------------------------------------------------------

    def _send_message(self, effect: f.SendMessage) -> None:
        for check in self.world.checks.on_message:
            check(self, effect.rank, effect.message)
        self._outgoing.setdefault(effect.rank, []).append(effect.message)

    def _run_task(self, effect: f.RunTask) -> None:
        world = self.world
        for check in world.checks.on_run:
            check(self, effect)
        waiter = self.waiters.get(effect.waiter_id) if effect.waiter_id else None
        # A thread that has just stopped waiting is not there any more; then an executor thread does it.
        thread = waiter.thread if waiter is not None else Thread()
        spec = world.truth.specs[effect.task_id]
        frame = Frame(self, thread, spec, world.rng)
        frame.attempt = spec.n_attempts = spec.n_attempts + 1
        spec.running_on = self.rank
        frame.return_ids = effect.return_ids
        frame.item_ids = deque(effect.item_ids)
        frame.program = spec.body(frame)
        self.runs[effect.task_id] = frame
        thread.stack.append(frame)
        found = list(spec.nested)
        for argument in effect.arguments:
            found += argument.contained
        if effect.template_id not in self.functions:
            nested = world.templates[effect.template_id].nested
            self.functions[effect.template_id] = nested
            self.add_refs(list(nested))
        frame.refs += found
        self.add_refs(found)
        world.schedule_step(thread, world.rng.random() * 20e-6)

    def _wake_waiter(self, effect: f.WakeWaiter) -> None:
        frame = self.waiters.pop(effect.waiter_id, None)
        if frame is None:
            return
        for check in self.world.checks.on_wake:
            check(self, frame, effect)
        frame.waiter_id = 0
        frame.result = effect
        if frame.thread.stack[-1] is frame:
            self._count_waiting(frame, -1)
            self.world.schedule_step(frame.thread, self.world.rng.random() * 20e-6)
        else:
            frame.is_covered = True

    def _start_read(self, effect: f.StartRead) -> None:
        world = self.world
        if world.scenario.p_no_room and world.rng.random() < world.scenario.p_no_room:
            failure = no_room(effect.object_id, self.rank)
            world.truth.injected.append(failure)
            self.post(e.RoomDenied(effect.transfer_id, failure))
            return
        self.window.reserve(effect.object_id)
        world.open_read(self, effect)
        self._send_message(f.SendMessage(effect.rank, ReadRequested(effect.object_id, effect.transfer_id)))

    def _send_object(self, effect: f.SendObject) -> None:
        self.world.send_object(self, effect)

    def _free_segment(self, effect: f.FreeSegment) -> None:
        self.world.cancel_read(self, effect.object_id)
        self.window.free(effect.object_id)

    def _interrupt_task(self, effect: f.InterruptTask) -> None:
        frame = self.runs.get(effect.task_id)
        if frame is None:
            return
        frame.is_interrupted = True
        if frame.thread.stack[-1] is frame:
            self._break_off(frame)

    def _break_off(self, frame: Frame) -> None:
        """Let an interrupted frame leave its wait, if it is in one."""
        if frame.waiter_id:
            del self.waiters[frame.waiter_id]
            self._leave_wait(frame)
        frame.is_held_back = False
        self.world.schedule_step(frame.thread, 0.0)

    def _resume_generator(self, effect: f.ResumeGenerator) -> None:
        frame = self.runs.get(effect.task_id)
        if frame is None:
            return
        frame.item_ids.extend(effect.item_ids)
        if frame.is_held_back:
            frame.is_held_back = False
            frame.n_waiting -= 1
            self.world.schedule_step(frame.thread, 0.0)

    def _forget_template(self, effect: f.ForgetTemplate) -> None:
        nested = self.functions.pop(effect.template_id, ())
        self.release_refs(list(nested))

    def _answer_query(self, effect: f.AnswerQuery) -> None:
        for check in self.world.checks.on_answer:
            check(self, effect)

    def _end_job(self, effect: f.EndJob) -> None:
        self.ended = effect

    # -- threads ---------------------------------------------------------------------------------------------------

    def start_driver(self, body: Body) -> None:
        """Start a driver's script."""
        self._start_thread(body, Frame(self, Thread(), None, self.world.rng))

    def start_thread(self, body: Body, parent: Frame, refs: list[int], *, is_known: bool) -> None:
        """Start a thread in user code; ``is_known``: the core is told which task its waits belong to."""
        frame = Frame(self, Thread(), None, self.world.rng)
        frame.depth = parent.depth + 1
        if is_known and parent.task_id:
            frame.task_id = parent.task_id
            frame.main = parent.main
            frame.horizon = parent.horizon
        frame.refs += refs
        self.add_refs(refs)
        self.world.n_threads += 1
        self._start_thread(body, frame)

    def _start_thread(self, body: Body, frame: Frame) -> None:
        frame.program = body(frame)
        frame.thread.stack.append(frame)
        if not frame.task_id:
            self.drivers.append(frame)
        self.world.schedule_step(frame.thread, 0.0)

    def step(self, thread: Thread) -> None:
        """Let the topmost frame of a thread go on to its next op."""
        thread.is_scheduled = False
        if self.ended is not None or self.is_dead:
            return
        frame = thread.stack[-1]
        if frame.pending_item is not None and not frame.is_interrupted:
            self._yield_item(frame, frame.pending_item)
            return
        program = frame.program
        assert program is not None
        try:
            if frame.is_interrupted:
                frame.is_interrupted = False
                op = program.throw(Cancelled())
            else:
                op = program.send(self._take_result(frame))
        except StopIteration as stop:
            self._return(frame, tuple(stop.value or ()))
            return
        except Cancelled:
            self._raise(frame, Failure(CANCELLED, "cancelled while it ran"), is_retriable=False)
            return
        except Raised as error:
            self._raise(frame, Failure(RAISED, f"attempt {frame.attempt} of {frame.task_id}"), error.is_retriable)
            return
        if type(op) is Sleep:
            self.world.schedule_step(thread, op.seconds)
        elif type(op) is Wait:
            self._wait(frame, op)
        else:
            assert type(op) is Make
            self._make_item(frame, op)

    def _take_result(self, frame: Frame) -> list[tuple[int, bytes | Failure | None]] | None:
        """What the frame was woken with; unpickling it makes the refs inside."""
        effect, frame.result = frame.result, None
        if effect is None:
            return None
        found: list[int] = []
        assert frame.wait is not None
        values = self.world.truth.values
        for object_id, value in zip(effect.object_ids, effect.values, strict=True):
            if not isinstance(value, Failure) and frame.wait.is_fetching:
                if value is None:
                    self.window.view(object_id, "reads")
                found += values[object_id].contained
        frame.refs += found
        self.add_refs(found)
        return list(zip(effect.object_ids, effect.values, strict=True))

    def _wait(self, frame: Frame, op: Wait) -> None:
        self._n_waiters += 1
        waiter_id = frame.waiter_id = self._n_waiters
        frame.wait = op
        self._count_waiting(frame, 1)
        self.waiters[waiter_id] = frame
        self.post(
            e.WaitStarted(waiter_id, op.object_ids, op.n_wanted, op.is_fetching, op.may_run, frame.task_id),
        )
        if op.timeout_s is not None:
            self.world.schedule(self.world.now + op.timeout_s, self._time_out, waiter_id)

    def _count_waiting(self, frame: Frame, by: int) -> None:
        frame.main.n_waiting += by
        if not frame.task_id:
            self.n_drivers_waiting += by

    def _time_out(self, waiter_id: int) -> None:
        frame = self.waiters.pop(waiter_id, None)
        if frame is not None:
            self._leave_wait(frame)
            self.world.schedule_step(frame.thread, 0.0)

    def _leave_wait(self, frame: Frame) -> None:
        self.post(e.WaitAbandoned(frame.waiter_id))
        self._comes_back.append(frame)
        frame.waiter_id = 0

    # -- generators and ends -----------------------------------------------------------------------------------------

    def _make_item(self, frame: Frame, op: Make) -> None:
        value = Value(b"item %d" % frame.task_id, op.contained, op.is_stored, frame.task_id)
        self._yield_item(frame, value)

    def _yield_item(self, frame: Frame, value: Value) -> None:
        if not frame.item_ids:
            frame.pending_item = value
            frame.is_held_back = True
            frame.n_waiting += 1
            self.post(e.RunHeldBack(frame.task_id))
            return
        frame.pending_item = None
        object_id = frame.item_ids.popleft()
        result = Result(b"", 0, ())
        if object_id:
            value.payload = b"item %d attempt %d" % (object_id, frame.attempt)
            self.world.truth.values[object_id] = value
            result = self.seal(object_id, value)
        self.post(e.RunYielded(frame.task_id, object_id, result))
        self.world.schedule_step(frame.thread, self.world.rng.random() * 50e-6)

    def _return(self, frame: Frame, made: tuple[Make, ...]) -> None:
        if frame.spec is None:
            self._leave(frame, frame.refs)
            return
        values = self.world.truth.values
        results = []
        for object_id, make in zip(frame.return_ids, made, strict=False):
            value = Value(b"result %d attempt %d" % (object_id, frame.attempt), make.contained, make.is_stored)
            value.task_id = frame.task_id
            values[object_id] = value
            results.append(self.seal(object_id, value))
        # Local variables that are not part of the result may die before it is sent.
        early = []
        if frame.rng.random() < 0.5:
            kept = {object_id for make in made for object_id in make.contained}
            early = [object_id for object_id in frame.refs if object_id not in kept]
            frame.refs = [object_id for object_id in frame.refs if object_id in kept]
            self.release_refs(early)
        self.post(e.RunReturned(frame.task_id, tuple(results)))
        frame.spec.has_succeeded = True
        self._leave(frame, frame.refs)

    def _raise(self, frame: Frame, failure: Failure, is_retriable: bool) -> None:
        if frame.spec is not None:
            frame.spec.failures = [*frame.spec.failures, failure]
            self.post(e.RunRaised(frame.task_id, failure, is_retriable))
        self._leave(frame, frame.refs)

    def _leave(self, frame: Frame, refs: list[int]) -> None:
        """The frame ends: its refs are dropped, and the thread goes on with the frame below."""
        world = self.world
        frame.refs = []
        if refs and frame.rng.random() < 0.1:
            # A reference cycle keeps them until the garbage collector comes by.
            world.schedule(world.now + frame.rng.random() * 0.2, self.release_refs, refs)
        else:
            self.release_refs(refs)
        if frame.spec is not None:
            frame.spec.running_on = -1
            del self.runs[frame.task_id]
        else:
            world.n_threads -= 1
            if not frame.task_id:
                self.drivers.remove(frame)
        stack = frame.thread.stack
        stack.pop()
        if stack:
            below = stack[-1]
            if below.is_covered:
                below.is_covered = False
                self._comes_back.append(below)
            if below.is_interrupted:
                self._break_off(below)
            elif below.result is not None or not below.waiter_id:
                world.schedule_step(below.thread, 0.0)


def broken_link(object_id: int, rank: int) -> Failure:
    """The failure of a read that the fabric breaks off."""
    return Failure(INTERNAL, f"the link to rank {rank} broke while {object_id} was read")


def no_room(object_id: int, rank: int) -> Failure:
    """The failure of a read for which the reader's window is too full."""
    return Failure(INTERNAL, f"Rank {rank} has no room for object {name_of(object_id)}.")
