"""The core of one rank: it has events routed to the machines (``routes.py``), and nothing else.

Order within one event: the handler of the event, then what it caused, until nothing is left: messages of the rank to
itself, objects that became ready, copies that arrived, tasks that found no room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcfut.core import events as e
from hpcfut.core.actors import Actors
from hpcfut.core.addresses import Addresses
from hpcfut.core.answers import Answers
from hpcfut.core.borrowing import Borrowing
from hpcfut.core.calls import Calls
from hpcfut.core.cancellations import Cancellations
from hpcfut.core.cancelled_runs import CancelledRuns
from hpcfut.core.context import NEVER, Context, Handler, Handlers, MakeTable, Table
from hpcfut.core.copies import Copies
from hpcfut.core.deaths import Deaths
from hpcfut.core.disowned import DisownedRuns
from hpcfut.core.effects import Effect
from hpcfut.core.events import TaskSubmitted
from hpcfut.core.fates import Fates
from hpcfut.core.inventories import Inventories
from hpcfut.core.leases import Leases
from hpcfut.core.lineage import Lineage
from hpcfut.core.membership import Membership
from hpcfut.core.names import Names
from hpcfut.core.notices import Notices
from hpcfut.core.orphans import Orphans
from hpcfut.core.ownership import Ownership
from hpcfut.core.pressure import Pressure
from hpcfut.core.recalls import Recalls
from hpcfut.core.recovery import Recovery
from hpcfut.core.references import References
from hpcfut.core.residents import Residents
from hpcfut.core.routes import MessageHandler, events_of, messages_of
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.standstills import Standstills
from hpcfut.core.statistics import Statistics
from hpcfut.core.stranded import Stranded
from hpcfut.core.streams import Streams
from hpcfut.core.tasks import Tasks
from hpcfut.core.templates import Templates
from hpcfut.core.transfers import Transfers
from hpcfut.core.waits import Waits
from hpcfut.core.watches import Watches
from hpcfut.model.config import Config
from hpcfut.model.errors import FrameRefusedError, InvariantError
from hpcfut.model.failure import ACTOR_DIED, ACTOR_EXITED, Failure
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import TaskTemplate
from hpcfut.wire import messages as m


class RankCore:
    """All machines of one rank behind ``handle(event, now) -> effects``."""

    def __init__(
        self,
        rank: int,
        roster: Sequence[RankRecord],
        config: Config,
        *,
        is_driver: bool,
        nbytes_store: int,
        neighbours: Sequence[int] = (),
        make_table: MakeTable = Table,
        is_joining: bool = False,
    ) -> None:
        self.context = context = Context(rank, len(roster), config, make_table)
        self.membership = Membership(context, roster, is_joining=is_joining)
        self.ownership = Ownership(context)
        self.borrowing = Borrowing(context)
        self.copies = copies = Copies(context, nbytes_store)
        self.pressure = pressure = Pressure(context, copies)
        self.transfers = Transfers(context, copies, pressure, self.membership.host_of, neighbours)
        self.references = References(context, self.ownership, self.borrowing, copies, self.transfers)
        self.answers = Answers(context, self.references, copies, self.transfers)
        self.templates = Templates(context, self.references)
        self.lineage = Lineage(context, self.references, self.templates)
        pressure.give_way = self.lineage.give_way
        self.addresses = Addresses(context, self.references, self.transfers, self.templates)
        self.leases = Leases(context, self.references, self.transfers, self.templates, self.membership)
        rooms = (self.leases, self.addresses)
        self.tasks = Tasks(context, self.references, self.templates, *rooms, self.membership, self.lineage)
        self.calls = Calls(context, self.references, self.addresses, self.tasks)
        self.cancellations = Cancellations(context, self.references, self.tasks)
        self.names = Names(context, self.references)
        self.actors = Actors(context, self.references, self.templates, self.tasks, self.cancellations, self.names)
        self.scheduler = Scheduler(context, self.membership, is_driver=is_driver)
        self.membership.own_load = self.scheduler.load
        self.runs = Runs(context, self.references, self.templates, copies, self.transfers, self.scheduler)
        disowned = DisownedRuns(context, self.references, copies, self.templates, self.runs)
        room = (self.transfers, self.scheduler, self.runs, disowned)
        self.residents = Residents(context, self.references, *room)
        self.streams = Streams(context, copies, self.runs)
        self.waits = Waits(
            context, self.references, copies, self.transfers, self.leases, self.tasks, self.runs, self.scheduler
        )
        self.watches = Watches(context, self.references, self.scheduler, self.runs, self.waits)
        self.recovery = Recovery(
            context, self.references, self.answers, copies, self.lineage, self.tasks, self.cancellations, self.waits
        )
        waiting = (self.tasks, self.scheduler, self.runs, self.residents, self.waits)
        self.standstills = Standstills(context, self.references, self.membership, *waiting, self.cancellations)
        self.inventories = Inventories(context, self.references, copies, self.tasks, self.scheduler)
        Recalls(context, copies, pressure, self.transfers, self.scheduler, self.runs)
        self._notices = Notices(
            self.references, self.tasks, self.scheduler, self.runs, self.waits, self.watches, self.recovery
        )
        self.stranded = Stranded(context, self.templates, self.membership, *rooms, self.tasks)
        self.cancelled_runs = CancelledRuns(context, self.cancellations, self.runs)
        running = (self.scheduler, self.runs, self.cancelled_runs)
        self.orphans = Orphans(context, self.templates, copies, self.membership, self.cancellations, *running)
        held = (self.membership, self.references, self.answers, copies, self.transfers)
        fates = Fates(self.membership, self.addresses, self.actors, self.residents, self.names)
        self.deaths = Deaths(
            context, *held, self.stranded, self.orphans, self.recovery, self.standstills, self.tasks, fates
        )
        self._on_event = Handlers(events_of(self) | self._own_events())
        self._on_message = messages_of(self) | self._own_messages()

    # -- the contract ------------------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> Sequence[Effect]:
        """Take one event; returns the effects to perform, in order."""
        effects: list[Effect] = []
        self.turn((event,), now, effects.extend)
        return effects

    def turn(self, events: Sequence[e.Event], now: float, perform: Callable[[list[Effect]], None]) -> None:
        """One turn, for the runtime as for the simulator.

        What happened is told first, in the order in which it happened, and ``perform`` is given the effects. So what
        somebody waits for leaves before that is settled which an earlier turn has put off, and what is due is done. The
        core is never entered while it is inside.
        """
        context = self.context
        put_off = context.put_off
        is_behind = len(put_off)
        context.now = now
        if events:
            effects: list[Effect] = []
            context.effects = effects
            on_event = self._on_event
            for event in events:
                kind = type(event)
                if put_off and kind is not TaskSubmitted:
                    self._catch_up()
                on_event[kind](event)
                if context.inbox or context.ready or context.runnable or context.arrived:
                    self._settle()
            perform(effects)
        if (is_behind and put_off) or context.due_at <= now:
            perform(self._reach_deadline(now))

    def end_turn(self, refused: FrameRefusedError, now: float, perform: Callable[[list[Effect]], None]) -> None:
        """A turn has met a frame that cannot be: what had been decided before is performed, and the session ends."""
        self.context.put_off.clear()
        perform(self.context.effects)
        self.turn((e.FrameRefused(refused.rank, refused.reason),), now, perform)

    def end_run(self, event: e.RunReturned, now: float) -> list[Effect]:
        """What ``turn`` does, on the task path: this event is all that is told, and nothing is put off or due."""
        context, effects = self.context, list[Effect]()
        context.now, context.effects = now, effects
        self._on_event[e.RunReturned](event)
        if context.inbox or context.ready or context.runnable or context.arrived:
            self._settle()
        return effects

    def next_deadline(self) -> float | None:
        """The earliest instant at which a turn has something to do, whatever happens."""
        if self.membership.is_stopping:
            return None
        if self.context.put_off:
            return self.context.now
        due = (self.leases.check_at, self.pressure.deny_at, self.actors.due_at, self.deaths.replacements.late_at)
        deadlines = (self.scheduler.next_deadline(), *due)
        return min((at for at in deadlines if at is not None), default=None)

    def _reach_deadline(self, now: float) -> list[Effect]:
        context = self.context
        effects: list[Effect] = []
        context.effects = effects
        if context.put_off:
            self._catch_up()
            if context.due_at > now:
                return effects
        if self.membership.is_stopping:
            context.due_at = NEVER
            return effects
        if self.leases.check_at is not None and self.leases.check_at <= now:
            self.leases.tick()
        if self.scheduler.suspect_at is not None and self.scheduler.suspect_at <= now:
            self.standstills.look()
        if self.scheduler.tick():
            self.runs.hand_back_all()
        if self.pressure.deny_at is not None and self.pressure.deny_at <= now:
            self.pressure.tick()
        if self.deaths.replacements.late_at is not None and self.deaths.replacements.late_at <= now:
            self.deaths.replacements.tick()
        if self.actors.due_at is not None and self.actors.due_at <= now:
            self.actors.tick()
        self._settle()
        deadline = self.next_deadline()
        context.due_at = NEVER if deadline is None else deadline
        return effects

    def check(self) -> None:
        """Assert every invariant; raises ``InvariantError`` with the story."""
        context = self.context
        if context.inbox or context.ready or context.runnable or context.arrived:
            raise InvariantError(f"Rank {context.rank} left something unsettled after an event.")
        memory = (self.references, self.copies, self.pressure, self.templates)
        users = (self.tasks, self.scheduler, self.runs, self.waits, self.watches)
        actors = (self.addresses, self.actors, self.residents)
        for machine in (*memory, self.leases, *users, *actors, self.lineage, self.recovery, self.deaths):
            machine.check()

    def statistics(self) -> Statistics:
        """The sizes of all tables."""
        return Statistics.of(self)

    @property
    def load(self) -> int:
        """What this rank gossips with every frame."""
        return self.scheduler.load()

    def template(self, template_id: int) -> TaskTemplate:
        """The template of a task that runs here."""
        return self.templates.find(template_id)

    # -- routing -----------------------------------------------------------------------------------------------------

    def _own_events(self) -> dict[type, Handler]:
        closing, ending = self._closing, self.membership
        return {
            e.FrameReceived: self._on_frame,
            e.RunReturned: self._on_run_returned,
            e.RunRaised: self._on_run_raised,
            e.RankLost: closing(self.deaths.on_rank_lost),
            e.FrameRefused: closing(lambda event: ending.refuse(event.rank, event.reason)),
            e.StopRequested: closing(lambda it: ending.stop(it.status, it.failure, is_final=it.is_final)),
        }

    def _own_messages(self) -> dict[type, MessageHandler]:
        end = self._closing(self.membership.on_end)
        return {m.JobEnded: end, m.RankFailed: end, m.DriverDone: end}

    def _on_frame(self, event: e.FrameReceived) -> None:
        source = event.source
        self.membership.load[source] = event.load
        on_message, context = self._on_message, self.context
        try:
            for message in event.messages:
                on_message[type(message)](source, message)
                if context.inbox or context.ready or context.runnable or context.arrived:
                    self._settle()
        except Exception as error:
            # Whatever the machines trip over: what the sender says does not fit what this rank knows.
            raise FrameRefusedError.of_message(source, type(message).__name__, error) from error

    def _catch_up(self) -> None:
        for settle, entry in self.context.put_off:
            settle(entry)
            if self.context.arrived:  # Who was denied room is told before the next one in line is looked at.
                self._settle()
        self.context.put_off.clear()
        self._settle()

    def _settle(self) -> None:
        context = self.context
        while True:
            if context.inbox:
                message = context.inbox.popleft()
                self._on_message[type(message)](context.rank, message)
            elif context.ready:
                self._notices.tell_of_object(context.ready.popleft())
            elif context.arrived:
                self._notices.tell_of_copy(self.copies.copies.get(context.arrived.popleft()))
            elif context.runnable:
                self.waits.offer(context.runnable.popleft())
            else:
                return

    def _on_run_returned(self, event: e.RunReturned) -> None:
        run = self.runs.returned(event.task_id, event.results)
        if run.waiter_id:
            self._on_inline_run_ended(run.waiter_id)

    def _on_run_raised(self, event: e.RunRaised) -> None:
        if event.failure.kind == ACTOR_EXITED:
            run = self.residents.on_exited(event.task_id, Failure(ACTOR_DIED, event.failure.text))
        else:
            run = self.runs.raised(event.task_id, event.failure, is_retriable=event.is_retriable)
        if run.is_cancelled_below:
            self.cancellations.cancel_children(run.task_id)
        if run.waiter_id:
            self._on_inline_run_ended(run.waiter_id)

    def _on_inline_run_ended(self, waiter_id: int) -> None:
        self.waits.on_run_ended(waiter_id)
        self._settle()
        if not self.scheduler.is_wanted_by_others:
            self.waits.run_next(waiter_id)
        self.runs.dispatch()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _closing(self, handler: Handler) -> Handler:
        """A handler after which the session may be over."""

        def handle(*what: Any) -> None:
            handler(*what)
            self._fall_silent()

        return handle

    def _fall_silent(self) -> None:
        """After the end only deaths are of interest; two ranks that went on would hand tasks to each other for ever."""
        if not self.membership.is_stopping:
            return
        context = self.context
        for table, last in (
            (self._on_event, (e.FrameReceived, e.RankLost, e.FrameRefused, e.StopRequested)),
            (self._on_message, (m.JobEnded, m.RankFailed)),
        ):
            for kind in table:
                if kind not in last:
                    table[kind] = lambda *_: context.count_stale("told after the end of the session")
        for queue in (context.inbox, context.ready, context.runnable, context.put_off, context.arrived):
            queue.clear()
