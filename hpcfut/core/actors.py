"""Actors: what their owner knows of them, from creation to death.

Theory of operation

The rank that creates an actor owns it. Its handles are refs to an object that has no value, so that they are counted
like any others (``borrowing.py``): when the last one is gone, wherever it was, the actor ends. Who calls an actor holds
it until the call has ended.

The constructor is an ordinary task of the owner's, placed as any other, whose id is that of the actor. Where it has
run the actor lives (``residents.py``). Whoever calls it asks the owner once where that is, and is told of every change
(``addresses.py``). Calls and replies go straight between caller and actor.

An actor dies when nobody holds it, when it is killed or ends itself, when its constructor fails, or with its rank. If
it may be started again, the owner constructs it anew, which makes it another *incarnation*. Killing for good, ending
itself, and a constructor that raises are final. What had been sent to the old incarnation is answered by its rank, if
that lives: running methods fail, those that had not begun are refused and go to the new one. Nobody but the owner tells
that an actor is dead.

A constructor that does not return in time is given up. An actor whose owner dies is gone with it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from hpcfut.core.cancellations import Cancellations
from hpcfut.core.context import Context, Unheld
from hpcfut.core.events import ActorCreated, ActorKillWanted, TaskSubmitted
from hpcfut.core.names import Names
from hpcfut.core.references import References
from hpcfut.core.task import PUSHED
from hpcfut.core.tasks import Tasks
from hpcfut.core.templates import OwnTemplate, Templates
from hpcfut.model.errors import InvariantError
from hpcfut.model.failure import ACTOR_DIED, ACTOR_UNAVAILABLE, CRASHED, Failure
from hpcfut.model.ids import name_of, owner_of
from hpcfut.model.template import ActorTemplate
from hpcfut.wire.actors import (
    ActorAsked,
    ActorDismissed,
    ActorGone,
    ActorKilled,
    ActorLeft,
    ActorLocated,
    HandleAsked,
    HandleGiven,
)

PENDING: Final = "pending"
ALIVE: Final = "alive"
RESTARTING: Final = "restarting"
DEAD: Final = "dead"

TRANSITIONS: Final = {
    (PENDING, "construct"): ALIVE,
    (PENDING, "restart"): RESTARTING,
    (PENDING, "die"): DEAD,
    (ALIVE, "restart"): RESTARTING,
    (ALIVE, "die"): DEAD,
    (RESTARTING, "construct"): ALIVE,
    (RESTARTING, "restart"): RESTARTING,
    (RESTARTING, "die"): DEAD,
}


class OwnActor(msgspec.Struct, eq=False):
    """An actor that this rank created."""

    #: What it is constructed from; arguments and refs in it are held for as long as it may be constructed once more.
    made: ActorCreated
    template: OwnTemplate
    state: str = PENDING
    #: Where it lives, if it is alive.
    rank: int = -1
    incarnation: int = 0
    #: Whether the task that constructs it has not ended.
    is_constructing: bool = False
    #: When that must have ended; 0: any time.
    due_at: float = 0.0
    #: Whether it was with a rank when that was looked at last.
    was_pushed: bool = False
    #: Whether it was killed while it was constructed, and is to be constructed once more.
    is_killed: bool = False
    #: Ranks that want to know where it is.
    callers: dict[int, None] = {}
    failure: Failure | None = None
    #: Whether nobody holds it any more.
    is_dropped: bool = False

    @property
    def kind(self) -> ActorTemplate:
        """What its class says."""
        assert self.template.template.actor is not None
        return self.template.template.actor

    @property
    def described(self) -> str:
        """Its id and its class."""
        return f"{name_of(self.made.actor_id)} ({self.template.template.name})"


class Actors:
    """The table of actors that this rank created."""

    def __init__(
        self,
        context: Context,
        references: References,
        templates: Templates,
        tasks: Tasks,
        cancellations: Cancellations,
        names: Names,
    ) -> None:
        self._context = context
        self._next = context.make_table("actor", TRANSITIONS)
        self._references = references
        self._templates = templates
        self._tasks = tasks
        self._cancellations = cancellations
        self._names = names
        self.actors: dict[int, OwnActor] = {}
        self.due_at: float | None = None
        tasks.on_constructed = self._on_constructed

    # -- construction ------------------------------------------------------------------------------------------------

    def create(self, event: ActorCreated) -> None:
        """User code created an actor."""
        template = self._templates.own[event.template_id]
        template.n_tasks += 1
        actor = self.actors[event.actor_id] = OwnActor(event, template)
        self._references.ownership.add_actor(event.actor_id)
        self._references.hold_all(event.arguments)
        self._references.hold_all(event.nested)
        self._construct(actor)

    def _construct(self, actor: OwnActor) -> None:
        made = actor.made
        actor.is_constructing = True
        if actor.kind.start_within_s:
            actor.due_at, actor.was_pushed = self._context.now + actor.kind.start_within_s, False
            self._look_by(actor.due_at)
        self._tasks.submit(
            TaskSubmitted(made.actor_id, made.template_id, made.payload, (), made.arguments, made.nested)
        )

    def _on_constructed(self, actor_id: int, outcome: int | Failure) -> None:
        """The constructor has returned, on which rank, or failed."""
        actor = self.actors[actor_id]
        actor.is_constructing = False
        actor.due_at = 0.0
        if actor.state == DEAD:
            if isinstance(outcome, int):
                assert actor.failure is not None
                self._context.send(outcome, ActorDismissed(actor_id, actor.failure))
            self._forget_if_over(actor)
        elif actor.is_killed:
            if isinstance(outcome, int):
                self._dismiss(actor, outcome)
            self._restart(actor)
        elif isinstance(outcome, int):
            actor.state = self._next[actor.state, "construct"]
            actor.rank = outcome
            self._tell(actor, self._place_of(actor))
        elif outcome.kind == CRASHED and self._may_restart(actor):
            self._restart(actor)
        else:
            told = f"Actor {actor.described} never came to be. {outcome.text}"
            if actor.incarnation:
                told = f"Actor {actor.described} could not be started again. {outcome.text}"
            self._die(actor, Failure(ACTOR_DIED, told, outcome.payload))

    def _place_of(self, actor: OwnActor) -> ActorLocated:
        return ActorLocated(actor.made.actor_id, actor.rank, self._may_restart(actor))

    def _may_restart(self, actor: OwnActor) -> bool:
        return actor.incarnation < actor.kind.n_restarts_max and not actor.is_dropped

    def _restart(self, actor: OwnActor) -> None:
        actor.state = self._next[actor.state, "restart"]
        actor.rank, actor.is_killed = -1, False
        actor.incarnation += 1
        self._construct(actor)

    # -- what others say ---------------------------------------------------------------------------------------------

    def on_asked(self, source: int, message: ActorAsked) -> None:
        """A rank calls the actor, and wants to know where it lives."""
        actor = self.actors.get(message.actor_id)
        if actor is None:
            sentence = (
                f"Actor {name_of(message.actor_id)} is not known to its owner, rank {self._context.rank}, any more."
            )
            self._context.send(source, ActorGone(message.actor_id, Failure(ACTOR_DIED, sentence)))
        elif actor.failure is not None:
            self._context.send(source, ActorGone(message.actor_id, actor.failure))
        else:
            actor.callers[source] = None
            if actor.state == ALIVE:
                self._context.send(source, self._place_of(actor))

    def on_handle_asked(self, source: int, message: HandleAsked) -> None:
        """A rank has found the actor by its name, and wants to hold it."""
        actor = self.actors.get(message.actor_id)
        if actor is None or actor.is_dropped or actor.state == DEAD:
            self._context.send(source, HandleGiven(message.query_id, 0))
            return
        if source != self._context.rank:
            self._references.report(message.actor_id, source)
        self._context.send(source, HandleGiven(message.query_id, message.actor_id))

    def kill(self, event: ActorKillWanted) -> None:
        """User code here wants an actor to die."""
        self._context.send(owner_of(event.actor_id), ActorKilled(event.actor_id, event.is_final))

    def on_killed(self, message: ActorKilled) -> None:
        """Somebody wants the actor to die."""
        actor = self.actors.get(message.actor_id)
        if actor is None or actor.state == DEAD:
            self._context.count_stale("kill of a dead actor")
            return
        failure = Failure(ACTOR_DIED, f"Actor {actor.described} was killed with kill().")
        if message.final or not self._may_restart(actor):
            self._end(actor, failure)
        elif actor.state == ALIVE:
            self._dismiss(actor, actor.rank)
            self._restart(actor)
        else:
            actor.is_killed = True
            self._cancellations.cancel(self._tasks.tasks[message.actor_id], is_recursive=True)

    def _dismiss(self, actor: OwnActor, rank: int) -> None:
        """It was killed on this rank, and lives elsewhere soon."""
        text = f"Actor {actor.described} was killed with kill(). It is being started again."
        self._context.send(rank, ActorDismissed(actor.made.actor_id, Failure(ACTOR_UNAVAILABLE, text)))

    def on_left(self, source: int, message: ActorLeft) -> None:
        """The actor has ended itself, and is not started again."""
        actor = self.actors.get(message.actor_id)
        if actor is None or actor.state != ALIVE or actor.rank != source:
            self._context.count_stale("end of an earlier incarnation")
        else:
            self._die(actor, message.failure)

    def on_rank_lost(self, dead: int, obituary: str) -> None:
        """A rank is dead, and with it the actors that lived there."""
        for actor in list(self.actors.values()):
            actor.callers.pop(dead, None)
            if actor.state != ALIVE or actor.rank != dead:
                continue
            if self._may_restart(actor):
                self._restart(actor)
                continue
            n_restarts = actor.kind.n_restarts_max
            why = f"It has been started again {n_restarts} times" if n_restarts else "It is not to be started again"
            told = f"Actor {actor.described} was on rank {dead} when that died. {obituary}. {why}: max_restarts=N."
            self._die(actor, Failure(ACTOR_DIED, told))

    # -- the end -----------------------------------------------------------------------------------------------------

    def on_unheld(self, message: Unheld) -> None:
        """Nobody holds the actor any more."""
        actor = self.actors[message.actor_id]
        actor.is_dropped = True
        if actor.state == DEAD:
            self._forget_if_over(actor)
            return
        failure = Failure(ACTOR_DIED, f"Actor {actor.described} has ended, because nobody held a handle on it.")
        self._end(actor, failure)

    def _end(self, actor: OwnActor, failure: Failure) -> None:
        """It is to live nowhere any more."""
        rank, actor_id = actor.rank, actor.made.actor_id
        self._die(actor, failure)
        if rank >= 0:
            self._context.send(rank, ActorDismissed(actor_id, failure))
        elif actor.is_constructing:
            self._cancellations.cancel(self._tasks.tasks[actor_id], is_recursive=True)

    def _die(self, actor: OwnActor, failure: Failure) -> None:
        actor.state = self._next[actor.state, "die"]
        actor.failure, actor.rank, actor.due_at = failure, -1, 0.0
        actor_id = actor.made.actor_id
        self._tell(actor, ActorGone(actor_id, failure))
        actor.callers = {}
        self._names.give_up(actor_id)
        self._references.drop_all(actor.made.arguments)
        self._references.drop_all(actor.made.nested)
        template = actor.template
        template.n_tasks -= 1
        if template.is_dropped:
            self._templates.forget_if_unused(template)
        self._forget_if_over(actor)

    def _forget_if_over(self, actor: OwnActor) -> None:
        if actor.is_dropped and not actor.is_constructing:
            self.actors.pop(actor.made.actor_id, None)

    def _tell(self, actor: OwnActor, message: ActorLocated | ActorGone) -> None:
        for rank in actor.callers:
            self._context.send(rank, message)

    # -- time --------------------------------------------------------------------------------------------------------

    def _look_by(self, at: float) -> None:
        if self.due_at is None or at < self.due_at:
            self.due_at = at
            self._context.wake_at(at)

    def tick(self) -> None:
        """Give up the constructors that have been with a rank for too long: seen there once, and a whole time later."""
        now, self.due_at = self._context.now, None
        for actor in list(self.actors.values()):
            if not actor.due_at:
                continue
            task = self._tasks.tasks.get(actor.made.actor_id)
            is_pushed = task is not None and task.state == PUSHED
            if actor.due_at <= now and task is not None and is_pushed and actor.was_pushed:
                failure = Failure(
                    ACTOR_DIED,
                    f"Actor {actor.described} never came to be: its constructor has not returned within "
                    f"{actor.kind.start_within_s:g} s on rank {task.rank}, and is given up. Let a method do what takes "
                    f"long, or allow more time: HPCFUT_ACTOR_START_S=N.",
                )
                self._end(actor, failure)
                continue
            if actor.due_at <= now:
                actor.due_at, actor.was_pushed = now + actor.kind.start_within_s, is_pushed
            self._look_by(actor.due_at)

    def check(self) -> None:
        """Assert what must hold between turns."""
        for actor_id, actor in self.actors.items():
            if (actor.state in (PENDING, RESTARTING)) and not actor.is_constructing:
                raise InvariantError(f"Actor {actor.described} is {actor.state}, and nothing constructs it.")
            if (actor.state == ALIVE) != (actor.rank >= 0):
                raise InvariantError(f"Actor {actor.described} is {actor.state} on rank {actor.rank}.")
            if not actor.is_dropped and actor_id not in self._references.ownership.objects:
                raise InvariantError(f"Actor {actor.described} is held by nobody, and has not been dropped.")
