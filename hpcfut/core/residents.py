"""Residents: the actors that live on this rank, and whose method runs next.

An actor comes to live here when its constructor, an ordinary task, has returned. Its methods run when it is their turn:
in each concurrency group so many at a time, those of one caller in the order in which they came. A method whose
arguments are still to be read holds up the later ones of its caller only. Methods take no slot of the rank, and what
the actor holds for life is not free for tasks.

An actor that is dismissed is out when the methods that run have ended. Their callers are answered at once.
"""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.disowned import DisownedRuns
from hpcfut.core.effects import DropActor
from hpcfut.core.events import OwnActorHeld
from hpcfut.core.references import References
from hpcfut.core.resident import LIVING, OUT, TRANSITIONS, Group, Resident
from hpcfut.core.run import BLOCKED, FETCHING, READY, RUNNING, Run
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.transfers import Transfers
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import ACTOR_DIED, INTERNAL, Failure
from hpcfut.model.ids import name_of
from hpcfut.model.template import TaskTemplate
from hpcfut.wire.actors import ActorDismissed, ActorLeft, MethodGivenUp, MethodPushed, MethodRefused


class Residents:
    """The table of actors on this rank."""

    def __init__(
        self,
        context: Context,
        references: References,
        transfers: Transfers,
        scheduler: Scheduler,
        runs: Runs,
        disowned: DisownedRuns,
    ) -> None:
        self._context = context
        self._next = context.make_table("resident", TRANSITIONS)
        self._references = references
        self._transfers = transfers
        self._scheduler = scheduler
        self._runs = runs
        self._disowned = disowned
        self.residents: dict[int, Resident] = {}
        #: Those that have been dismissed, or have ended themselves, while methods run that do not end at once.
        self.leaving: list[Resident] = []
        runs.on_turn = self._give_turns
        runs.on_constructed = self._move_in

    def _move_in(self, run: Run) -> None:
        """A constructor has returned."""
        template, owner = run.template, run.owner
        assert template.actor is not None
        if owner in self._context.apart and owner != self._context.rank:
            self._context.effects.append(DropActor(run.actor_id))  # Nobody can ever call it.
            return
        groups = {name: Group(n_at_once) for name, n_at_once in template.actor.groups}
        self.residents[run.actor_id] = Resident(run.actor_id, owner, template, groups, self._scheduler.suspect)
        self._take_for_life(template.actor.held, 1)

    # -- methods -----------------------------------------------------------------------------------------------------

    def on_called(self, source: int, message: MethodPushed) -> None:
        """A rank calls a method."""
        resident = self.residents.get(message.actor_id)
        if resident is None:
            self._transfers.return_loans(message.arguments)
            self._context.send(source, MethodRefused(message.task_id))
            return
        run = self._runs.call(source, message, resident)
        group = resident.groups.get(run.template.group)
        if group is None:
            self._runs.drop(run, no_group(run.template, resident))
            return
        if run.state == READY and group.n_free > 0 and not group.queue:
            self._runs.start(run)
        else:
            group.queue.append(run)
            if group.n_free > 0:
                self._give_turns(resident)

    def on_given_up(self, message: MethodGivenUp) -> None:
        """A call could never begin."""
        run = self._runs.runs.get(message.task_id)
        if run is not None and run.state == READY:
            self._runs.drop(run, message.failure)
        elif run is not None and run.state in (RUNNING, BLOCKED) and not run.is_disowned:
            # It has begun in an event loop that another call keeps.
            self._disowned.disown(run, message.failure, is_final=True)
        else:
            self._context.count_stale("standstill that was over")

    def _give_turns(self, resident: Resident) -> None:
        """Let begin what may; the last method of one that leaves takes it out."""
        if resident.state == LIVING:
            while (run := resident.take_next()) is not None:
                self._runs.start(run)
        elif not resident.running and resident.state != OUT:
            self._go(resident)

    # -- the end -----------------------------------------------------------------------------------------------------

    def on_dismissed(self, message: ActorDismissed) -> None:
        """The owner wants an actor to end."""
        resident = self.residents.get(message.actor_id)
        if resident is None:
            self._context.count_stale("dismissal of an actor that had left")
        else:
            self._end(resident, message.failure)

    def on_exited(self, task_id: int, failure: Failure) -> Run:
        """A method has ended its actor, which the owner does not know."""
        run = self._runs.runs[task_id]
        resident = run.room
        if isinstance(resident, Resident) and resident.state == LIVING:
            self._context.send(resident.owner, ActorLeft(run.actor_id, failure))
            del resident.running[task_id]  # It is answered like any method that raises.
            self._leave(resident, failure)
            resident.running[task_id] = run
        return self._runs.raised(task_id, failure, is_retriable=False)

    def forget_owner(self, dead: int, obituary: str) -> None:
        """A rank is dead: the actors that it owned share its fate."""
        for resident in list(self.residents.values()):
            if resident.owner == dead:
                name = f"{name_of(resident.actor_id)} ({resident.template.name})"
                self._end(resident, Failure(ACTOR_DIED, f"Actor {name} has ended with its owner. {obituary}."))

    def _end(self, resident: Resident, failure: Failure) -> None:
        self._leave(resident, failure)
        if not resident.running:
            self._go(resident)

    def _leave(self, resident: Resident, failure: Failure) -> None:
        resident.state = self._next[resident.state, "leave"]
        for group in resident.groups.values():
            queue = list(group.queue)
            group.queue.clear()
            for run in queue:
                if run.state in (FETCHING, READY):
                    self._runs.refuse(run)
        del self.residents[resident.actor_id]
        self.leaving.append(resident)
        for run in list(resident.running.values()):
            if run.state in (RUNNING, BLOCKED):  # Else it has been answered, and only its account is put off.
                self._disowned.disown(run, failure)
        self._context.effects.append(DropActor(resident.actor_id))

    def _go(self, resident: Resident) -> None:
        resident.state = self._next[resident.state, "go"]
        self.leaving.remove(resident)
        assert resident.template.actor is not None
        self._take_for_life(resident.template.actor.held, -1)
        self._runs.dispatch()

    def _take_for_life(self, resources: tuple[tuple[str, int], ...], sign: int) -> None:
        free, for_life = self._scheduler.free, self._scheduler.for_life
        for name, amount in resources:
            free[name] = free.get(name, 0) - sign * amount
            for_life[name] = for_life.get(name, 0) + sign * amount

    def hold_own(self, event: OwnActorHeld) -> None:
        """A method makes a handle on its own actor, which it has from its caller, who holds the actor meanwhile."""
        run = self._runs.runs.get(event.task_id)
        if run is not None and not run.is_disowned and run.actor_id not in run.covered:
            run.covered += (run.actor_id,)
            self._references.hold(run.actor_id)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for actor_id, resident in self.residents.items():
            n_begun = sum(
                run.room is resident and run.state not in (FETCHING, READY) for run in self._runs.runs.values()
            )
            if n_begun > len(resident.running):
                raise InvariantError(f"Actor {name_of(actor_id)} runs {n_begun} methods, and knows {resident.running}.")
            for name, group in resident.groups.items():
                if group.n_free < 0:
                    raise InvariantError(f"Actor {name_of(actor_id)} runs too many methods of group {name!r}.")
                if group.n_free > 0 and any(run.state == READY for run in group.queue):
                    self._check_order(actor_id, group)

    def _check_order(self, actor_id: int, group: Group) -> None:
        callers: dict[int, None] = {}
        for run in group.queue:
            if run.state == FETCHING:
                callers[run.owner] = None
            elif run.state == READY and (run.owner not in callers or not run.template.is_ordered):
                raise InvariantError(f"A method of actor {name_of(actor_id)} could begin, and does not: {run}.")


def no_group(method: TaskTemplate, resident: Resident) -> Failure:
    """A call names a concurrency group that its actor does not have."""
    known = ", ".join(repr(name) for name in resident.groups if name) or "none"
    return Failure(
        INTERNAL,
        f"Method {method.name} was called with the concurrency group {method.group!r}, but the class of its actor has "
        f"{known}. Give the class the option concurrency_groups, a dict from names to how many calls run at a time.",
    )
