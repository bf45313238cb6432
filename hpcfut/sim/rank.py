"""One virtual rank: a real core, and a simulated runtime that performs its effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hpcfut.core import effects as f
from hpcfut.core import events as e
from hpcfut.core.context import increment
from hpcfut.core.rank import RankCore
from hpcfut.model.failure import INTERNAL, LOST, Failure
from hpcfut.model.ids import first_id, name_of
from hpcfut.model.place import Place
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.sim.arguments import OpenArguments
from hpcfut.sim.disk import SimDisk
from hpcfut.sim.fabric import Frame as Batch
from hpcfut.sim.ops import Wait
from hpcfut.sim.threads import Threads
from hpcfut.sim.trace import SimulationError
from hpcfut.sim.window import SimWindow
from hpcfut.sim.writers import Writers
from hpcfut.wire.messages import Message, ReadRequested

if TYPE_CHECKING:
    from hpcfut.sim.arrivals import Link
    from hpcfut.sim.world import SimWorld


class SimRank:
    """See the module's docstring."""

    def __init__(self, world: SimWorld, rank: int, core: RankCore, reaches: Sequence[int]) -> None:
        self.world = world
        self.rank = rank
        self.core = core
        self.host = world.roster[rank].host_key
        #: Ranks to which there is a way that is used; and those of them whose memory this one can view.
        self.reaches = dict.fromkeys(reaches)
        self.neighbours = {other: None for other in reaches if world.roster[other].host_key == self.host}
        #: Ranks to which there is a way that is not used yet; and what has come from ranks that are not heard yet.
        self.offered: dict[int, Link] = {}
        self.unheard: dict[int, list[Batch]] = {}
        self.window = SimWindow(rank)
        self.threads = Threads(self)
        self.arguments = OpenArguments(self)
        self.mailbox: list[e.Event] = []
        scenario = world.scenario
        self._turn_delay_s = scenario.slow_turn_s if rank == scenario.slow_rank else scenario.turn_delay_s
        #: When the next turn is due; infinity for none.
        self.turn_at = float("inf")
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
        #: Ranks that this one has heard are dead; and those whose memory it has let go of since.
        self.has_lost: dict[int, None] = {}
        self.has_forgotten: dict[int, None] = {}
        #: Which ranks it has heard take tasks from then on (true), or are dead, in this order.
        self.news: list[tuple[int, bool]] = []
        #: Whether it has heard that no task is to wait for a rank that may come.
        self.awaits_nobody = False
        #: Those of which its core knew before the present turn.
        self.knew_dead: dict[int, None] = {}
        #: Query → the ranks that are to answer.
        self.asked: dict[int, list[int]] = {}
        #: What it has told and heard, thing by thing.
        self.n_boundaries = 0
        #: Until then it does nothing, as if it were dead.
        self.pauses_until = 0.0
        #: (rank, object) → values of user code here that are built over that memory.
        self.views: dict[tuple[int, int], int] = {}
        self._last_id = first_id(rank, 0) - 1
        self._outgoing: dict[int, list[Message]] = {}
        self.writers = Writers(self)
        self.disk = SimDisk(scenario.n_spilled_max)
        self._perform = self._effects()

    def _effects(self) -> dict[type, Callable[[Any], None]]:
        """How each effect is performed."""
        return {
            f.SendMessage: self._send_message,
            f.RunTask: self.threads.run_task,
            f.CloseArgument: self.arguments.close,
            f.WakeWaiter: self.threads.wake,
            f.TellWatcher: self.threads.tell,
            f.StartRead: self._start_read,
            f.SendObject: self._send_object,
            f.SpillObjects: self._spill_objects,
            f.RestoreObject: self._restore_object,
            f.ReadSource: self._read_source,
            f.DropSpilled: self._drop_spilled,
            f.GiveRoom: self.writers.give_room,
            f.DenyRoom: self.writers.deny_room,
            f.FreeSegment: self._free_segment,
            f.InterruptTask: self.threads.interrupt,
            f.ResumeGenerator: self.threads.resume,
            f.ForgetTemplate: self._forget_template,
            f.ForgetArena: self._forget_arena,
            f.AnswerQuery: self._answer_query,
            f.EndJob: self._end_job,
            **self.world.arrivals.effects(self),
        }

    # -- turns -----------------------------------------------------------------------------------------------------

    def post(self, event: e.Event) -> None:
        """Put an event into the mailbox, and see to it that a turn comes soon."""
        if self.is_dead:
            return
        self.mailbox.append(event)
        world = self.world
        at = world.now + world.rng.random() * self._turn_delay_s
        if at < self.turn_at:
            self.turn_at = at
            world.schedule_turn(self, at)

    def turn_if_due(self, at: float) -> None:
        """Take the turn that was to come at this instant, if it has not been taken earlier."""
        if at != self.turn_at or self.is_dead:
            return
        if self.pauses_until > self.world.now:
            self.turn_at = self.pauses_until
            self.world.schedule_turn(self, self.turn_at)
            return
        self.turn_at = float("inf")
        self.turn()

    def die(self) -> None:
        """It does nothing more, and what it holds, or reads in place, it does so no more."""
        self.is_dead = True
        self.turn_at = float("inf")
        self.threads.die()
        for object_id, n in self.held.items():
            for _ in range(n):
                self.world.truth.release(object_id)
        for (rank, object_id), n in self.views.items():
            self.world.ranks[rank].window.segments[object_id].n_views -= n
        tables = (self.mailbox, self.held, self.stash, self.templates, self.views, self.writers.waiting)
        for table in (*tables, self.offered, self.unheard):
            table.clear()

    def turn(self) -> None:
        """Take one turn of the core and perform its effects."""
        events, self.mailbox = self.mailbox, []
        self.threads.turn_begins()
        self.tell(events)
        self.threads.turn_ends()
        if self.has_lost:
            self.knew_dead = dict(self.has_lost)
        if self.ended is None and not self.is_dead:
            for check in self.world.checks.after_turn:
                check(self)

    def tell(self, events: list[e.Event]) -> None:
        """Tell the core, now, and perform its effects; in the middle of them the rank may die."""
        world = self.world
        effects: list[f.Effect] = []
        world.trace.entries.append((world.now, self.rank, events, effects))

        def perform(some: list[f.Effect]) -> None:
            for effect in some:
                if not self.is_dead:
                    effects.append(effect)
                    self._perform[type(effect)](effect)

        self.core.turn(events, world.now, perform)
        outgoing, self._outgoing = self._outgoing, {}
        for destination, messages in outgoing.items():
            batch = Batch(self.rank, destination, self.core.load, messages)
            world.fabric.send(batch, world.now, world.deliver)
        deadline = self.core.next_deadline() if not self.is_dead else None
        if deadline is not None and deadline < self.turn_at:
            self.turn_at = max(deadline, world.now)
            world.schedule_turn(self, self.turn_at)

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
        if self.is_dead:
            return
        held = self.held
        for object_id in object_ids:
            held[object_id] -= 1
            if not held[object_id]:
                del held[object_id]
            self.world.truth.release(object_id)
        if object_ids:
            self.post(e.RefsReleased(object_ids))

    def keeps(self, object_id: int) -> bool:
        """Whether the bytes of an object are complete here, in memory or in a file."""
        segment = self.window.segments.get(object_id)
        return (segment is not None and segment.is_sealed) or self.disk.holds(object_id)

    def place_at_hand(self, op: Wait) -> Place | None:
        """A value that can be read without a turn."""
        if len(op.object_ids) != 1 or not op.has_values or self.mailbox or self.world.rng.random() < 0.5:
            return None
        return self.core.waits.open_at_hand(op.object_ids[0])

    def open_views(self, places: Sequence[Place]) -> None:
        """User code here builds values over segments of this rank or of others of its host."""
        for place in places:
            if place.rank in self.has_forgotten:
                name = name_of(place.object_id)
                text = f"Rank {self.rank} opens object {name} in memory of the dead that it has let go."
                raise SimulationError(text, [place.object_id])
            self.world.ranks[place.rank].window.open(place)
            increment(self.views, (place.rank, place.object_id), 1)

    def close_views(self, places: list[Place]) -> None:
        """These values are gone."""
        if self.is_dead:
            return
        for place in places:
            self.world.ranks[place.rank].window.close(place)
            increment(self.views, (place.rank, place.object_id), -1)
        if places:
            self.post(e.ViewsClosed([place.object_id for place in places]))

    def ask(self, query: e.ResourcesQueried | e.InventoriesQueried) -> None:
        """Ask all ranks that take tasks, and spares."""
        known = dict(self.news)
        records = self.world.roster
        self.asked[query.query_id] = [each.rank for each in records if known.get(each.rank, each.replaces < 0)]
        self.post(query)

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
        self.world.deaths.note_boundary(self)

    def _start_read(self, effect: f.StartRead) -> None:
        self.window.receive(effect.object_id, effect.offset)
        self.world.transfers.open(self, effect)
        if effect.rank not in self.has_lost:
            self._send_message(f.SendMessage(effect.rank, ReadRequested(effect.object_id, effect.transfer_id)))

    def _send_object(self, effect: f.SendObject) -> None:
        for check in self.world.checks.on_send:
            check(self, effect)
        self.world.transfers.send(self, effect)

    def _spill_objects(self, effect: f.SpillObjects) -> None:
        world = self.world
        payloads = {place.object_id: self.window.start_send(place) for place in effect.places}
        what = effect.spill_id, payloads, effect.in_place_of
        world.schedule(world.now + world.rng.random() * 0.01, self._end_spill, what)

    def _end_spill(self, what: tuple[int, dict[int, bytes], tuple[int, int] | None]) -> None:
        spill_id, payloads, in_place_of = what
        if self.is_dead:
            return
        for object_id in payloads:
            self.window.end_send(object_id)
        is_refused = self.world.rng.random() < self.world.scenario.p_disk_full
        file_id = 0 if is_refused else self.disk.write(payloads, in_place_of)
        if file_id:
            self.post(e.ObjectsSpilled(spill_id, file_id))
        else:
            self.post(e.SpillFailed(spill_id, "The disk is full."))

    def _restore_object(self, effect: f.RestoreObject) -> None:
        self._read(effect, self.disk.files[effect.file_id][effect.object_id], "file")

    def _read_source(self, effect: f.ReadSource) -> None:
        # The recipe of a virtual object is its value.
        self._read(effect, effect.recipe, "source")

    def _read(self, effect: f.RestoreObject | f.ReadSource, payload: bytes, where: str) -> None:
        self.window.receive(effect.object_id, effect.offset)
        what = effect.transfer_id, effect.object_id, payload, where
        self.world.schedule(self.world.now + self.world.rng.random() * 0.01, self._end_read, what)

    def _end_read(self, what: tuple[int, int, bytes, str]) -> None:
        transfer_id, object_id, payload, where = what
        if self.is_dead:
            return
        world = self.world
        if world.rng.random() < world.scenario.p_broken_read:
            self.window.break_off(object_id)
            kind = LOST if where == "file" else INTERNAL
            world.truth.lost[object_id] = None
            failure = broken_file(object_id, self.rank, where, kind)
            world.truth.note_injected(failure, object_id)
            self.post(e.ReadFailed(transfer_id, failure))
        else:
            self.window.arrive(object_id, payload)
            self.post(e.ReadCompleted(transfer_id))

    def _drop_spilled(self, effect: f.DropSpilled) -> None:
        self.disk.drop(effect.file_id, effect.object_id)

    def _free_segment(self, effect: f.FreeSegment) -> None:
        self.world.transfers.cancel(self, effect.object_id)
        self.window.free(effect.object_id)

    def _forget_template(self, effect: f.ForgetTemplate) -> None:
        nested = self.functions.pop(effect.template_id, ())
        self.release_refs(list(nested))

    def _forget_arena(self, effect: f.ForgetArena) -> None:
        if effect.rank not in self.has_lost or effect.rank in self.has_forgotten:
            raise SimulationError(f"Rank {self.rank} forgets the memory of rank {effect.rank}: not dead, or once more.")
        viewed = [object_id for rank, object_id in self.views if rank == effect.rank]
        if viewed:
            raise SimulationError(f"Rank {self.rank} forgets memory of rank {effect.rank} that it reads.", viewed[:3])
        self.has_forgotten[effect.rank] = None

    def _answer_query(self, effect: f.AnswerQuery) -> None:
        for check in self.world.checks.on_answer:
            check(self, effect)

    def _end_job(self, effect: f.EndJob) -> None:
        self.ended = effect
        if self.rank == 0:
            self.world.arrivals.dismiss(self)


def broken_file(object_id: int, rank: int, where: str, kind: str) -> Failure:
    """The failure of an object that cannot be read back."""
    return Failure(kind, f"The {where} of object {name_of(object_id)} on rank {rank} is damaged.")
