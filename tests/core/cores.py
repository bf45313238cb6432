"""A core in the hands of a test: told events one by one, checked after each, every taken row of its tables noted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

from hpcfut.core import (
    actors,
    address,
    borrowing,
    copy,
    membership,
    ownership,
    replacements,
    resident,
    run,
    task,
    wait,
)
from hpcfut.core.context import Column, Table, Transitions
from hpcfut.core.effects import CloseArgument, Effect, GiveRoom, RunTask, SendMessage, TellWatcher, WakeWaiter
from hpcfut.core.events import (
    Event,
    FrameReceived,
    ObjectPut,
    RefsReleased,
    RoomWanted,
    RunReturned,
    RunYielded,
    TaskSubmitted,
    TemplateDefined,
    ViewsClosed,
    WaitStarted,
)
from hpcfut.core.rank import RankCore
from hpcfut.model.config import Config
from hpcfut.model.failure import RAISED, Failure
from hpcfut.model.ids import first_id, owner_of
from hpcfut.model.place import Place
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT, STREAMING, TaskTemplate
from hpcfut.wire.messages import (
    DeathNoted,
    LeaseGranted,
    LeaseRequested,
    LeaseReturned,
    Message,
    ObjectLost,
    RedirectionEnded,
    Result,
    TaskPushed,
    TemplateRegistered,
)

#: Machine, state, input.
Row = tuple[str, str, str]
Kind = TypeVar("Kind")
Test = TypeVar("Test", bound=Callable[..., None])

TABLES: dict[str, Transitions] = {
    "ownership": ownership.TRANSITIONS,
    "borrowing": borrowing.TRANSITIONS,
    "copies": copy.TRANSITIONS,
    "task": task.TRANSITIONS,
    "run": run.TRANSITIONS,
    "waits": wait.TRANSITIONS,
    "address": address.TRANSITIONS,
    "actor": actors.TRANSITIONS,
    "resident": resident.TRANSITIONS,
    "membership": membership.TRANSITIONS,
    "replacements": replacements.TRANSITIONS,
}
ROWS = [(machine, *pair) for machine, table in TABLES.items() for pair in table]

PLAIN = TaskTemplate(1, "plain", b"")
PAIR = TaskTemplate(2, "pair", b"", n_returns=2)
RETRIED = TaskTemplate(3, "retried", b"", n_retries_max=1)
GENERATOR = TaskTemplate(4, "generator", b"", n_returns=STREAMING)
GREEDY = TaskTemplate(5, "greedy", b"", resources=(("CPU", 99 * RESOURCE_UNIT),))
ON_RANK_2 = TaskTemplate(6, "on rank 2", b"", affinity=2)

SMALL = Result(b"small", 5)
LARGE = Result(None, 10**6)
BROKEN = Failure(RAISED, "The task raised.")

#: Tests by the rows that they say they take; the fixture ``make_core`` sees to it that they do.
TESTED: dict[Row, str] = {}


def takes(machine: str, *pairs: tuple[str, str]) -> Callable[[Test], Test]:
    """Say that a test takes these rows of the table of a machine."""

    def mark(test: Test) -> Test:
        rows = [(machine, *pair) for pair in pairs]
        TESTED.update(dict.fromkeys(rows, test.__name__))
        marked: Test = pytest.mark.takes(rows)(test)
        return marked

    return mark


class _NotingTable(Table):
    def __init__(self, machine: str, transitions: Transitions, rows: dict[Row, None]) -> None:
        super().__init__(machine, transitions)
        self._rows = rows

    def on(self, happening: str) -> Column:
        return Column(self, happening, {})

    def __getitem__(self, pair: tuple[str, str]) -> str:
        state = super().__getitem__(pair)
        self._rows[self.machine, *pair] = None
        return state


def written_in(events: Iterable[Event]) -> list[int]:
    """The objects that user code has stored before these events."""
    written: list[int] = []
    for event in events:
        if isinstance(event, ObjectPut | RunYielded) and event.result.payload is None:
            written.append(event.object_id)
        elif isinstance(event, RunReturned):
            stored = [result.payload is None for result in event.results]
            written += [event.task_id + index for index, is_stored in enumerate(stored) if is_stored]
    return written


def place_of(object_id: int, rank: int, nbytes: int, offset: int = 0) -> Place:
    """Where an object lies, by default at the beginning of an arena."""
    return Place(object_id, rank, offset, nbytes)


class Hand:
    """One rank. On rank 0 a driver has made all functions; other ranks have none."""

    def __init__(
        self,
        rank: int = 0,
        n_ranks: int = 3,
        *,
        cpus: int = 4,
        nbytes_store: int = 1 << 24,
        neighbours: tuple[int, ...] = (),
        hosts: str = "",
        tells_store: bool = False,
        n_spares: int = 0,
        extra: dict[int, dict[str, int]] | None = None,
        joins: Sequence[RankRecord] = (),
        **config: Any,
    ) -> None:
        self.rank = rank
        self.now = 0.0
        self.rows: dict[Row, None] = {}
        #: Whether a table may keep entries at the end of the test.
        self.may_keep = False
        #: Whether user code keeps the stored values that it is given, until the test drops them.
        self.keeps_values = False
        #: Arguments of which runs share a view.
        self.open_arguments: dict[int, None] = {}
        amounts = {"CPU": cpus * RESOURCE_UNIT}
        if tells_store:
            amounts["object_store_memory"] = nbytes_store * RESOURCE_UNIT
        # A letter for the host of each rank; without any they are on one host.
        keys = hosts or "a" * n_ranks
        #: ``extra``: what some ranks have besides.
        units = {rank: {name: n * RESOURCE_UNIT for name, n in more.items()} for rank, more in (extra or {}).items()}
        roster = [
            RankRecord(
                other,
                0,
                f"host{other}",
                keys[other],
                100 + other,
                amounts | units.get(other, {}),
                is_spare=other >= n_ranks - n_spares,
            )
            for other in range(n_ranks)
        ]
        #: ``joins``: the roster of a job that goes on, in which this rank is a replacement.
        self.core = RankCore(
            rank,
            joins or roster,
            Config(**config),
            is_driver=rank == 0,
            nbytes_store=nbytes_store,
            neighbours=neighbours,
            make_table=lambda machine, table: _NotingTable(machine, table, self.rows),
            is_joining=bool(joins),
        )
        if rank == 0:
            self.define(PLAIN, PAIR, RETRIED, GENERATOR, GREEDY, ON_RANK_2)

    # -- what happens ------------------------------------------------------------------------------------------------

    def tell(self, *events: Event) -> list[Effect]:
        """One turn. Values that are stored have been written before; those that user code is given it drops at once."""
        for object_id in written_in(events):
            if object_id in self.core.copies.copies:
                continue
            (given,) = self.core.handle(RoomWanted(99, object_id, LARGE.nbytes), self.now)
            assert isinstance(given, GiveRoom)
        effects = self._turn(events)
        if self.core.context.put_off:
            effects += self._turn(())
        deadline = self.core.next_deadline()
        assert deadline is None or self.core.context.due_at <= deadline, "The deadline would be missed."
        assert deadline is None or deadline > self.now, "The deadline would be due for ever."
        return effects

    def _turn(self, events: Sequence[Event]) -> list[Effect]:
        effects: list[Effect] = []
        told: Sequence[Event] | None = events
        while told is not None:
            some: list[Effect] = []
            self.core.turn(told, self.now, some.extend)
            effects += some
            dropped = self._drop_values(some)
            told = (ViewsClosed(dropped),) if dropped and not self.keeps_values else None
        self.core.check()
        return effects

    def _drop_values(self, effects: list[Effect]) -> list[int]:
        """User code drops the stored values that it was given; of arguments, a view stays open for further runs."""
        dropped: list[int] = []
        for effect in effects:
            if isinstance(effect, RunTask):
                self.open_arguments.update(dict.fromkeys(place.object_id for place in effect.places))
            elif isinstance(effect, CloseArgument):
                del self.open_arguments[effect.object_id]
                dropped.append(effect.object_id)
            elif isinstance(effect, WakeWaiter | TellWatcher):
                dropped += [value.object_id for value in effect.values if isinstance(value, Place)]
        return dropped

    def get(self, source: int, *messages: Message, load: int = 0) -> list[Effect]:
        """A frame comes."""
        return self.tell(FrameReceived(source, load, list(messages)))

    def wait(self, seconds: float) -> list[Effect]:
        """Time passes, and nothing happens."""
        self.now += seconds
        return self.tell()

    def define(self, *templates: TaskTemplate) -> None:
        """User code makes functions."""
        self.tell(*map(TemplateDefined, templates))

    def submit(
        self,
        n: int,
        template: TaskTemplate = PLAIN,
        arguments: tuple[int, ...] = (),
        nested: tuple[int, ...] = (),
        parent: int = 0,
    ) -> list[Effect]:
        """User code calls a function; ``own(n)`` and the following ids are its results."""
        n_ids = {STREAMING: 3}.get(template.n_returns, template.n_returns)
        ids = tuple(self.own(n + index) for index in range(n_ids))
        return self.tell(TaskSubmitted(ids[0], template.template_id, b"call", ids, arguments, nested, parent))

    def start_waiting(
        self, *object_ids: int, waiter: int = 1, n_wanted: int = 0, may_run: bool = False, parent: int = 0
    ) -> list[Effect]:
        """A thread calls ``get`` (``n_wanted`` 0: for all of them)."""
        n_wanted = n_wanted or len(object_ids)
        return self.tell(WaitStarted(waiter, list(object_ids), n_wanted, True, may_run, parent))

    def release(self, *object_ids: int) -> list[Effect]:
        """User code drops refs."""
        return self.tell(RefsReleased(list(object_ids)))

    def grant(self, rank: int = 1, depth: int = 1, lease_id: int = 1) -> list[Effect]:
        """A rank opens a lease that was asked for."""
        return self.get(rank, LeaseGranted(lease_id, depth))

    def push_to_1(self, n: int = 1, template: TaskTemplate = PLAIN, **submission: Any) -> int:
        """Submit a task, which goes to rank 1; gives its id."""
        effects = self.submit(n, template, **submission)
        assert of(effects, TaskPushed) or of(self.grant(), TaskPushed)
        return self.own(n)

    def lend(self, template: TaskTemplate = PLAIN, owner: int = 0, lease_id: int = 1) -> list[Effect]:
        """An owner asks for a lease, and tells the function."""
        return self.get(owner, TemplateRegistered(template), LeaseRequested(lease_id, template.resources))

    def accept(self, n: int = 1, template: TaskTemplate = PLAIN, owner: int = 0, **fields: Any) -> list[Effect]:
        """An owner pushes a task under its lease."""
        task_id = foreign(owner, n)
        message = TaskPushed(task_id, fields.pop("lease_id", 1), template.template_id, b"call", **fields)
        return self.get(owner, message)

    # -- what is so --------------------------------------------------------------------------------------------------

    def own(self, n: int) -> int:
        """The n-th id of this rank."""
        return foreign(self.rank, n)

    def stale(self, name: str) -> int:
        """How often a late input of this kind was counted."""
        return self.core.context.stale.get(name, 0)

    def give_leases_back(self) -> None:
        """Every owner returns its leases on this rank, and the own ones are returned after their time."""
        for owner, lease_id in list(self.core.scheduler.grants):
            if owner != self.rank:
                self.get(owner, LeaseReturned(lease_id))
        self.wait(2 * self.core.context.config.lease_linger_s)

    def note_deaths(self) -> None:
        """All ranks that live note the deaths that this one knows of."""
        for dead in list(self.core.deaths.burials.unburied):
            for rank in range(self.core.context.n_ranks):
                if rank not in self.core.context.apart:
                    self.get(rank, DeathNoted(dead))

    def free_kept(self) -> list[Effect]:
        """Whoever stores what was read here frees it, so that nobody is redirected here any more."""
        kept = {copy.object_id: copy.holder for copy in self.core.copies.copies.values() if copy.is_kept}
        return [
            effect
            for object_id, holder in kept.items()
            for effect in self.get(owner_of(object_id) if holder < 0 else holder, RedirectionEnded(object_id))
        ]

    def owned(self, n: int) -> ownership.OwnedObject:
        """The record of the n-th object of this rank."""
        return self.core.ownership.objects[self.own(n)]

    def assert_empty(self) -> None:
        """Nothing is left in any table."""
        statistics = self.core.statistics()
        assert statistics.is_empty, statistics


MakeCore = Callable[..., Hand]


def foreign(rank: int, n: int) -> int:
    """The n-th id of a rank."""
    return first_id(rank, 0) - 1 + n


def sent(effects: Iterable[Effect]) -> list[tuple[int, Message]]:
    """All messages, with the ranks that they go to."""
    return [(effect.rank, effect.message) for effect in effects if isinstance(effect, SendMessage)]


def of(effects: Iterable[Effect], kind: type[Kind]) -> list[Kind]:
    """The effects of one kind, or the messages of one kind."""
    things = [effect.message if isinstance(effect, SendMessage) else effect for effect in effects]
    return [thing for thing in things if isinstance(thing, kind)]


def asked(effects: Iterable[Effect]) -> list[int]:
    """The ranks that are asked for a lease."""
    return [rank for rank, message in sent(effects) if isinstance(message, LeaseRequested)]


def pushed(effects: Iterable[Effect]) -> list[tuple[int, int]]:
    """(rank, task) of every push."""
    messages = sent(effects)
    return [(rank, message.task_id) for rank, message in messages if isinstance(message, TaskPushed)]


def lost(effects: Iterable[Effect]) -> Failure:
    """Why the owner of an object is told that it is lost."""
    return only(effects, ObjectLost).failure


def only(effects: Iterable[Effect], kind: type[Kind]) -> Kind:
    """The one effect (or message) of a kind."""
    (thing,) = of(effects, kind)
    return thing
