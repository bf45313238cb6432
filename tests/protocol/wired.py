"""Two or three cores wired by hand: messages are delivered in order per pair; user code is what the test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

import msgspec

from hpcfut.core import effects as f
from hpcfut.core import events as e
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.ids import owner_of
from hpcfut.model.named import NamedActor
from hpcfut.model.place import Place
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT, STREAMING, ActorTemplate, TaskTemplate
from hpcfut.wire.messages import Message, ReadRequested, Result
from tests.core.cores import Hand, foreign

#: What the tests call a large value.
NBYTES_LARGE = 10**6
#: Late inputs that no order of messages can explain.
NEVER_STALE = ("ref to a collected object", "release of an unknown ref")


class Ranks:
    """A job. Rank 0 has a driver, which does not wait unless the test says so; so tasks go to the other ranks."""

    def __init__(self, n_ranks: int = 3, *, hosts: str = "abcdefgh", **config: Any) -> None:
        near = [tuple(other for other in range(n_ranks) if hosts[other] == hosts[rank]) for rank in range(n_ranks)]
        self._config = config
        self.hands = [Hand(rank, n_ranks, hosts=hosts, neighbours=near[rank], **config) for rank in range(n_ranks)]
        self._links: dict[tuple[int, int], deque[Message]] = {}
        #: Links that deliver nothing for now.
        self.held: list[tuple[int, int]] = []
        #: Links on which bulk data get stuck, and what is stuck there.
        self.jammed: list[tuple[int, int]] = []
        self._stuck: list[tuple[int, f.SendObject]] = []
        #: Bulk data that were sent, as (from, to).
        self.sends: list[tuple[int, int]] = []
        #: Reads from a source, as (rank, object).
        self.sources_read: list[tuple[int, int]] = []
        #: Everything that has been delivered, as (from, to, message).
        self.log: list[tuple[int, int, Message]] = []
        #: Task → the rank on which it runs.
        self.running: dict[int, int] = {}
        self.interrupted: list[int] = []
        #: Generator → names that it may use.
        self.names: dict[int, list[int]] = {}
        #: Generator → items that this attempt has made.
        self.n_made: dict[int, int] = {}
        self.woken: dict[int, f.WakeWaiter] = {}
        #: Segments: (rank, object) → bytes.
        self.segments: dict[tuple[int, int], bytes] = {}
        self._reads: dict[tuple[int, int], int] = {}
        #: Of whom the bytes of a read are asked.
        self._asked: dict[tuple[int, int], int] = {}
        self.dead: list[int] = []
        #: (rank, dead rank) of each death that somebody has heard of.
        self._heard: list[tuple[int, int]] = []
        self._functions: dict[tuple[int, int], tuple[int, ...]] = {}
        self.answers: list[f.AnswerQuery] = []
        #: What ranks were told of names, in order.
        self.told: list[NamedActor | list[tuple[str, str]] | None] = []
        #: Methods of actors that have ended, in the order in which they began.
        self.ran: list[int] = []
        #: Actors that live somewhere, as (rank, actor) → runs of it that have been told to begin, in order.
        self.begun: dict[tuple[int, int], list[int]] = {}
        self.ended: dict[int, f.EndJob] = {}
        #: (rank, dead rank) of each arena that nobody on the rank will read any more.
        self.forgotten: list[tuple[int, int]] = []
        self._n_ids = [100] * n_ranks
        self._n_waiters = 0
        #: Replacements that rank 0 wants to be started, and what it has said to the user.
        self.wanted: list[RankRecord] = []
        self.announced: list[str] = []
        #: Whether links with replacements are made only when the test says so, and those that wait for it.
        self.links_wait = False
        self.unmade: list[tuple[int, int]] = []
        self._perform: dict[type, Callable[[int, Any], None]] = {
            f.SendMessage: lambda rank, effect: self._send(rank, effect.rank, effect.message),
            f.RunTask: self._run_task,
            f.CloseArgument: lambda rank, effect: None,
            f.WakeWaiter: lambda rank, effect: self.woken.__setitem__(effect.waiter_id, effect),
            f.StartRead: self._start_read,
            f.SendObject: self._send_object,
            f.ReadSource: self._read_source,
            f.GiveRoom: lambda rank, effect: self.segments.__setitem__((rank, effect.object_id), b""),
            f.FreeSegment: lambda rank, effect: self._free(rank, effect.object_id),
            f.InterruptTask: lambda rank, effect: self.interrupted.append(effect.task_id),
            f.ResumeGenerator: self._resume,
            f.ForgetTemplate: self._forget_function,
            f.ForgetArena: lambda rank, effect: self.forgotten.append((rank, effect.rank)),
            f.SpawnRank: lambda rank, effect: self.wanted.append(effect.record),
            f.OpenPort: lambda rank, effect: self.tell(rank, e.PortReady(effect.rank, f"{rank}:{effect.rank}")),
            f.LinkRank: self._link,
            f.UseLink: lambda rank, effect: None,
            f.DeclareDead: self._declare_dead,
            f.Announce: lambda rank, effect: self.announced.append(effect.sentence),
            f.DropActor: self._drop_actor,
            f.AnswerQuery: lambda rank, effect: self.answers.append(effect),
            f.AnswerName: lambda rank, effect: self.told.append(effect.answers),
            f.EndJob: lambda rank, effect: self.ended.__setitem__(rank, effect),
        }

    # -- the world ---------------------------------------------------------------------------------------------------

    def tell(self, rank: int, *events: e.Event) -> None:
        """One turn of a rank; what it sends is under way afterwards."""
        for effect in self.hands[rank].tell(*events):
            self._perform[type(effect)](rank, effect)

    def settle(self) -> None:
        """Deliver everything, until nothing is under way but what is held."""
        while True:
            ready = [link for link, messages in self._links.items() if messages and link not in self.held]
            if not ready:
                return
            for source, destination in ready:
                self.deliver_one(source, destination)

    def deliver_one(self, source: int, destination: int) -> None:
        """Deliver the next message from one rank to another."""
        message = self._links[source, destination].popleft()
        self.log.append((source, destination, message))
        self.tell(destination, e.FrameReceived(source, self.hands[source].core.load, [message]))

    def pass_time(self, seconds: float) -> None:
        """Time passes everywhere."""
        for rank in self.alive:
            self.hands[rank].now += seconds
            self.tell(rank)
        self.settle()

    @property
    def alive(self) -> list[int]:
        """The ranks that are alive."""
        return [rank for rank in range(len(self.hands)) if rank not in self.dead]

    def kill(self, *dead: int, unaware: tuple[int, ...] = ()) -> None:
        """Ranks die. What they have sent and is under way is lost. All others hear of it at once, but for some."""
        self.dead += dead
        for (source, destination), messages in self._links.items():
            if source in dead or destination in dead:
                messages.clear()
        self.running = {task: rank for task, rank in self.running.items() if rank not in dead}
        self._functions = {place: nested for place, nested in self._functions.items() if place[0] not in dead}
        self.begun = {place: begun for place, begun in self.begun.items() if place[0] not in dead}
        self._reads = {read: object_id for read, object_id in self._reads.items() if read[0] not in dead}
        self._stuck = [(rank, effect) for rank, effect in self._stuck if rank not in dead]
        for rank in self.alive:
            if rank not in unaware:
                self.hear(rank, *(other for other in dead if self.can_hear(rank, other)))
        self.settle()

    def hear(self, rank: int, *dead: int) -> None:
        """A rank hears that others are dead; what it had under way with them has ended before."""
        for other in dead:
            for reader, transfer_id in list(self._reads):
                if reader == rank and self._asked[reader, transfer_id] == other:
                    self._break_read(reader, transfer_id)
            for entry in list(self._stuck):
                if entry[0] == rank and entry[1].rank == other:
                    self._stuck.remove(entry)
                    self.tell(rank, e.SendCompleted(entry[1].object_id))
            self._heard.append((rank, other))
            self.tell(rank, e.RankLost(other, "It was killed"))

    def _break_read(self, reader: int, transfer_id: int) -> None:
        self.segments[reader, self._reads.pop((reader, transfer_id))] = b""
        failure = Failure(LOST, f"Rank {self._asked.pop((reader, transfer_id))} was to send it, and is dead.")
        self.tell(reader, e.ReadFailed(transfer_id, failure))

    def arrive(self) -> int:
        """The replacement that rank 0 wants is there; gives its number."""
        record = self.wanted.pop()
        roster = (*self.hands[0].core.membership.roster, record)
        self.hands.append(Hand(record.rank, joins=roster, **self._config))
        self._n_ids.append(100)
        self.tell(0, e.RankArrived(record, False))
        return record.rank

    def _link(self, rank: int, effect: f.LinkRank) -> None:
        self.unmade.append((rank, effect.record.rank))
        if not self.links_wait:
            self.make_link()

    def make_link(self) -> None:
        """Two ranks are linked, and hear of it; unless one of them has died, then the other waits for ever."""
        rank, replacement = self.unmade.pop()
        if rank not in self.dead and replacement not in self.dead:
            self.tell(rank, e.LinkMade(replacement, False))
            self.tell(replacement, e.LinkMade(rank, False))

    def _declare_dead(self, rank: int, effect: f.DeclareDead) -> None:
        assert effect.rank in self.dead
        self._heard.append((rank, effect.rank))
        self.tell(rank, e.RankLost(effect.rank, effect.reason))

    def can_hear(self, rank: int, dead: int) -> bool:
        """Whether the edge of a rank notices this death: it has been linked with the dead one, and has not yet."""
        members = self.hands[rank].core.membership
        is_known = dead < members.n_ranks and dead not in members.unlinked
        return is_known and rank not in self.dead and (rank, dead) not in self._heard

    def _send(self, source: int, destination: int, message: Message) -> None:
        assert destination not in self.hands[source].core.membership.unlinked, "Nobody writes to whom he cannot reach."
        if destination in self.dead:
            assert (source, destination) not in self._heard, "Nobody writes to a rank that he knows to be dead."
            return
        self._links.setdefault((source, destination), deque()).append(message)

    def _run_task(self, rank: int, effect: f.RunTask) -> None:
        assert effect.task_id not in self.running, "A task runs twice."
        self.running[effect.task_id] = rank
        if effect.actor_id == effect.task_id:
            assert (rank, effect.actor_id) not in self.begun, "An actor is constructed where it lives already."
            self.begun[rank, effect.actor_id] = []
        elif effect.actor_id:
            self.begun[rank, effect.actor_id].append(effect.task_id)
        for argument in effect.arguments:
            is_lent = any(place.object_id == argument.object_id and place.rank != rank for place in effect.places)
            assert argument.payload is not None or is_lent or (rank, argument.object_id) in self.segments
        if effect.item_ids:
            self.names[effect.task_id] = list(effect.item_ids)
            self.n_made[effect.task_id] = 0
        nested = self.hands[rank].core.template(effect.template_id).nested
        if nested and (rank, effect.template_id) not in self._functions:
            self._functions[rank, effect.template_id] = nested
            self.tell(rank, e.RefsAdded(list(nested)))

    def _drop_actor(self, rank: int, effect: f.DropActor) -> None:
        self.ran += self.begun.pop((rank, effect.actor_id))

    def _resume(self, rank: int, effect: f.ResumeGenerator) -> None:
        # What is told once more is dropped.
        n_told = self.n_made[effect.task_id] + len(self.names[effect.task_id])
        self.names[effect.task_id].extend(effect.item_ids[n_told - effect.position :])

    def _forget_function(self, rank: int, effect: f.ForgetTemplate) -> None:
        nested = self._functions.pop((rank, effect.template_id), ())
        self.tell(rank, e.RefsReleased(list(nested)))

    def _start_read(self, rank: int, effect: f.StartRead) -> None:
        assert (rank, effect.object_id) not in self.segments
        self._reads[rank, effect.transfer_id] = effect.object_id
        self._asked[rank, effect.transfer_id] = effect.rank
        if (rank, effect.rank) in self._heard:
            self._break_read(rank, effect.transfer_id)
        else:
            self._send(rank, effect.rank, ReadRequested(effect.object_id, effect.transfer_id))

    def _send_object(self, rank: int, effect: f.SendObject) -> None:
        self.sends.append((rank, effect.rank))
        if (rank, effect.rank) in self._heard:
            self.tell(rank, e.SendCompleted(effect.object_id))
        elif (rank, effect.rank) in self.jammed or effect.rank in self.dead:
            self._stuck.append((rank, effect))
        else:
            self._end_send(rank, effect, e.ReadCompleted(effect.transfer_id))

    def _end_send(self, rank: int, effect: f.SendObject, end: e.ReadCompleted | e.ReadFailed) -> None:
        object_id = self._reads.pop((effect.rank, effect.transfer_id))
        self.segments[effect.rank, object_id] = self.segments[rank, object_id]
        self.tell(rank, e.SendCompleted(object_id))
        self.tell(effect.rank, end)

    def unjam(self, failure: Failure | None = None) -> None:
        """Bulk data move again; or the links on which they are stuck break."""
        self.jammed.clear()
        stuck, self._stuck = self._stuck, []
        for rank, effect in stuck:
            transfer_id = effect.transfer_id
            self._end_send(
                rank, effect, e.ReadFailed(transfer_id, failure) if failure else e.ReadCompleted(transfer_id)
            )
        self.settle()

    def _read_source(self, rank: int, effect: f.ReadSource) -> None:
        assert (rank, effect.object_id) not in self.segments
        self.sources_read.append((rank, effect.object_id))
        self.segments[rank, effect.object_id] = effect.recipe
        self.tell(rank, e.ReadCompleted(effect.transfer_id))

    def _free(self, rank: int, object_id: int) -> None:
        for (reader, transfer_id), read_id in self._reads.items():
            if (reader, read_id) == (rank, object_id):
                del self._reads[reader, transfer_id]
                return
        del self.segments[rank, object_id]

    # -- user code ---------------------------------------------------------------------------------------------------

    def new_id(self, rank: int) -> int:
        """The next id of a rank."""
        self._n_ids[rank] += 1
        return foreign(rank, self._n_ids[rank])

    def function(self, rank: int = 0, *, on: int = -1, **options: Any) -> TaskTemplate:
        """``@remote`` on a rank; ``on`` binds the calls to a rank."""
        template = msgspec.structs.replace(TaskTemplate(self.new_id(rank), "function", b""), affinity=on, **options)
        self.tell(rank, e.TemplateDefined(template))
        return template

    def call(
        self,
        function: TaskTemplate,
        arguments: tuple[int, ...] = (),
        nested: tuple[int, ...] = (),
        parent: int = 0,
        n_ahead: int = 2,
    ) -> int:
        """``function.remote(…)`` by the rank that made it; gives the task's id, which is that of its first result."""
        rank = owner_of(function.template_id)
        n_ids = n_ahead + 1 if function.n_returns == STREAMING else function.n_returns
        ids = tuple(self.new_id(rank) for _ in range(n_ids))
        event = e.TaskSubmitted(ids[0], function.template_id, b"call", ids, arguments, nested, parent)
        self.tell(rank, event)
        self.settle()
        return ids[0]

    def actor_class(self, rank: int = 0, *, on: int = -1, **options: Any) -> TaskTemplate:
        """``@remote class`` on a rank."""
        given = {"resources": (("CPU", RESOURCE_UNIT),)} | {
            name: options.pop(name) for name in ("resources", "name") if name in options
        }
        return self.function(rank, on=on, n_returns=0, actor=ActorTemplate(**options), **given)

    def create(
        self, kind: TaskTemplate, arguments: tuple[int, ...] = (), nested: tuple[int, ...] = (), *, runs: bool = True
    ) -> int:
        """``Class.remote(…)`` by the rank that made it; the constructor returns, if it ``runs``."""
        rank = owner_of(kind.template_id)
        actor = self.new_id(rank)
        self.tell(rank, e.ActorCreated(actor, kind.template_id, b"create", arguments, nested))
        self.settle()
        if runs:
            self.ends(actor)
        return actor

    def method(self, rank: int = 0, **options: Any) -> TaskTemplate:
        """A method as it is called from a rank."""
        return self.function(rank, **{"method": "method", "resources": (), **options})

    def call_method(
        self,
        actor: int,
        method: TaskTemplate,
        arguments: tuple[int, ...] = (),
        nested: tuple[int, ...] = (),
        parent: int = 0,
        *,
        settles: bool = True,
    ) -> int:
        """``actor.method.remote(…)`` by the rank that made the method; gives the ref."""
        rank = owner_of(method.template_id)
        n_ids = 3 if method.n_returns == STREAMING else method.n_returns
        ids = tuple(self.new_id(rank) for _ in range(n_ids))
        self.tell(rank, e.MethodCalled(ids[0], actor, method.template_id, b"call", ids, arguments, nested, parent))
        if settles:
            self.settle()
        return ids[0]

    def put(
        self, rank: int, value: bytes = b"value", contained: tuple[int, ...] = (), *, is_large: bool = False
    ) -> int:
        """``put(…)``."""
        object_id = self.new_id(rank)
        self.tell(rank, e.ObjectPut(object_id, self.seal(rank, object_id, value, contained, is_large=is_large)))
        self.settle()
        return object_id

    def put_source(self, rank: int, recipe: bytes = b"recipe") -> int:
        """Put an array that each rank reads by itself."""
        object_id = self.new_id(rank)
        self.tell(rank, e.SourcePut(object_id, recipe, NBYTES_LARGE))
        self.settle()
        return object_id

    def seal(
        self, rank: int, object_id: int, value: bytes, contained: tuple[int, ...] = (), *, is_large: bool = False
    ) -> Result:
        """A value, small or stored."""
        if not is_large:
            return Result(value, len(value), contained)
        self.segments[rank, object_id] = value
        return Result(None, NBYTES_LARGE, contained)

    def returns(
        self, task_id: int, value: bytes = b"result", contained: tuple[int, ...] = (), *, is_large: bool = False
    ) -> None:
        """The task's function returns this."""
        rank = self.running.pop(task_id)
        self.tell(rank, e.RunReturned(task_id, (self.seal(rank, task_id, value, contained, is_large=is_large),)))
        self.settle()

    def raises(self, task_id: int, failure: Failure, *, is_retriable: bool = False) -> None:
        """The task's function raises."""
        self.tell(self.running.pop(task_id), e.RunRaised(task_id, failure, is_retriable))
        self.settle()

    def yields(self, task_id: int, value: bytes = b"item", *, is_large: bool = False) -> int:
        """The generator makes its next item; gives its id, 0 for one that is thrown away."""
        object_id = self.names[task_id].pop(0)
        self.n_made[task_id] += 1
        rank = self.running[task_id]
        result = self.seal(rank, object_id, value, is_large=is_large and object_id > 0)
        self.tell(rank, e.RunYielded(task_id, object_id, result))
        self.settle()
        return object_id

    def ends(self, task_id: int) -> None:
        """The generator is exhausted."""
        self.tell(self.running.pop(task_id), e.RunReturned(task_id, ()))
        self.settle()

    def get(
        self,
        rank: int,
        *object_ids: int,
        n_wanted: int = 0,
        parent: int = 0,
        may_run: bool = False,
        is_for_good: bool = False,
    ) -> int:
        """A thread starts waiting; gives the name of the wait."""
        self._n_waiters += 1
        n_wanted = n_wanted or len(object_ids)
        wait = e.WaitStarted(self._n_waiters, list(object_ids), n_wanted, True, may_run, parent, is_for_good)
        self.tell(rank, wait)
        self.settle()
        return self._n_waiters

    def abandon(self, rank: int, waiter_id: int) -> None:
        """The thread stops waiting, because its time is over."""
        self.tell(rank, e.WaitAbandoned(waiter_id))
        self.settle()

    def value(self, rank: int, object_id: int) -> bytes | Failure:
        """What ``get`` gives: it is ready by now."""
        (value,) = self.woken[self.get(rank, object_id)].values
        return (
            self.segments[value.rank, value.object_id] if isinstance(value, Place) else cast("bytes | Failure", value)
        )

    def hold(self, rank: int, *object_ids: int) -> None:
        """User code unpickles refs."""
        self.tell(rank, e.RefsAdded(list(object_ids)))
        self.settle()

    def drop(self, rank: int, *object_ids: int) -> None:
        """User code drops refs."""
        self.tell(rank, e.RefsReleased(list(object_ids)))
        self.settle()

    # -- what is so --------------------------------------------------------------------------------------------------

    def knows(self, rank: int, object_id: int) -> bool:
        """Whether a rank has the object in a table."""
        core = self.hands[rank].core
        return object_id in core.ownership.objects or object_id in core.borrowing.objects

    def sent(self, kind: type[Message], source: int | None = None) -> list[Any]:
        """The messages of a kind that were delivered."""
        return [message for rank, _, message in self.log if isinstance(message, kind) and source in (None, rank)]

    def end(self) -> None:
        """All functions go, time passes: nothing is left."""
        self.held.clear()
        self.settle()
        assert not self.running, f"These tasks run on: {self.running}"
        for rank in self.alive:
            for template_id in list(self.hands[rank].core.templates.own):
                self.tell(rank, e.TemplateDropped(template_id))
        self.settle()
        self.pass_time(2 * self.hands[0].core.context.config.lease_linger_s)
        for hand in (self.hands[rank] for rank in self.alive):
            hand.assert_empty()
            statistics = hand.core.statistics()
            assert not statistics.n_templates
            assert not set(statistics.stale) & set(NEVER_STALE), statistics.stale
        assert not [place for place in self.segments if place[0] not in self.dead]
        assert not self._functions
        assert not self.begun, f"These actors live on: {self.begun}"
