"""Whether the checkers would notice: for each of them a fault is planted in the core, and the sweep must fail on it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.effects import SendMessage
from hpcfut.core.leases import Leases
from hpcfut.core.lineage import Lineage, Spec
from hpcfut.core.ownership import STORED, OwnedObject
from hpcfut.core.pushes import Pushes
from hpcfut.core.readers import NOBODY, Readers
from hpcfut.core.recovery import Recovery
from hpcfut.core.references import References
from hpcfut.core.replacements import Replacements
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.stuck import Judgement
from hpcfut.core.task import TaskRecord
from hpcfut.core.tasks import Tasks
from hpcfut.core.waits import Waits
from hpcfut.core.watches import Watches
from hpcfut.sim import checkers
from hpcfut.sim.checkers.attempts import Attempts
from hpcfut.sim.checkers.departed import Departed
from hpcfut.sim.checkers.emptiness import Emptiness
from hpcfut.sim.checkers.futures import Futures
from hpcfut.sim.checkers.invariants import Invariants
from hpcfut.sim.checkers.lineage import LineageInScope
from hpcfut.sim.checkers.lives import Lives
from hpcfut.sim.checkers.owners import Owners
from hpcfut.sim.checkers.progress import Progress
from hpcfut.sim.checkers.rosters import Rosters
from hpcfut.sim.checkers.segments import Segments
from hpcfut.sim.checkers.slots import Slots
from hpcfut.sim.checkers.spread import Spread
from hpcfut.sim.checkers.standstills import Standstills
from hpcfut.sim.checkers.values import Values
from hpcfut.sim.sweep import run_seed
from hpcfut.sim.trace import SimulationError
from hpcfut.wire.messages import Message

N_SEEDS = 200


class Fault(NamedTuple):
    """One wrong method in the core, and who must complain of it, in which words."""

    checker: type[Any]
    owner: type[Any]
    method: str
    #: Makes the wrong method out of the right one.
    plant: Callable[[Callable[..., Any]], Callable[..., Any]]
    complaint: str


def forgets(right: Callable[..., Any]) -> Callable[..., Any]:
    """A method that does nothing."""
    return lambda *arguments, **options: None


def gives_no_slot_back(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Scheduler, run: Any) -> None:
        right(self, run)
        self.n_slots_free -= 1

    return wrong


def counts_no_borrower_of_its_own(right: Callable[..., Any]) -> Callable[..., Any]:
    """An owner does not count whom it gives its refs to."""

    def wrong(self: References, object_id: int, borrower: int) -> None:
        if object_id not in self.ownership.objects:
            right(self, object_id, borrower)

    return wrong


def notes_another_place(right: Callable[..., Any]) -> Callable[..., Any]:
    """An owner notes that what it put is stored on the next rank."""

    def wrong(self: References, object_id: int, result: Any) -> None:
        right(self, object_id, result)
        record = self.ownership.objects[object_id]
        record.rank += record.state == STORED

    return wrong


def makes_twice(right: Callable[..., Any]) -> Callable[..., Any]:
    """An owner has a lost object made by two attempts."""

    def wrong(self: Recovery, spec: Spec, wanted: list[OwnedObject], attempt: TaskRecord | None) -> None:
        right(self, spec, wanted, attempt)
        if spec.items is None:
            ids = self._new_ids(spec, len(spec.return_ids))
            self._run_again(spec, ids[0], ids, 0)
            self._references.drop_local(list(ids))

    return wrong


def loses_contents(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Pushes, task: Any) -> Any:
        return tuple(msgspec.structs.replace(argument, contained=()) for argument in right(self, task))

    return wrong


def forgets_attempts(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Tasks, source: int, message: Any) -> None:
        self.tasks[message.task_id].n_retries = -9
        right(self, source, message)

    return wrong


def serves_everybody(right: Callable[..., Any]) -> Callable[..., Any]:
    """A holder takes each rank for a host of its own, and redirects nobody."""

    def wrong(self: Readers, copy: Any, reader: int) -> int:
        copy.readers = {**(copy.readers or {}), f"host of rank {reader}": reader}
        return NOBODY

    return wrong


def fits_always(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, resources: True


def denies_always(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, rank, key: False


def announces_elsewhere(right: Callable[..., Any]) -> Callable[..., Any]:
    """An owner sends for a stored argument to the rank after the true one."""

    def wrong(self: Pushes, task: Any) -> Any:
        found = right(self, task)
        n_ranks = self._context.n_ranks
        return tuple(msgspec.structs.replace(a, rank=(a.rank + 1) % n_ranks) if a.payload is None else a for a in found)

    return wrong


def forgets_what_nobody_can_wait_for(right: Callable[..., Any]) -> Callable[..., Any]:
    """A task without results is not run at all."""

    def wrong(self: Tasks, event: Any) -> None:
        if event.return_ids:
            right(self, event)

    return wrong


def answers_the_dead(right: Callable[..., Any]) -> Callable[..., Any]:
    """What is sent to a rank that is known to be dead leaves all the same."""

    def wrong(self: Context, rank: int, message: Message) -> None:
        if rank == self.rank:
            right(self, rank, message)
        else:
            self.effects.append(SendMessage(rank, message))

    return wrong


def waits_for_ever(right: Callable[..., Any]) -> Callable[..., Any]:
    """Rank 0 does not notice that a replacement takes tasks."""

    def wrong(self: Replacements, how: str) -> None:
        if how != "activate":
            right(self, how)

    return wrong


def frees_what_is_used(right: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: Copies, copy: Any) -> None:
        copy.n_sends = 0
        right(self, copy)

    return wrong


FAULTS = (
    Fault(Invariants, Scheduler, "block", gives_no_slot_back, r"\d slots are free, and \d runs hold one"),
    Fault(
        Lives,
        References,
        "report",
        counts_no_borrower_of_its_own,
        "its owner forgot it|can be reached, but was collected",
    ),
    Fault(Owners, References, "put", notes_another_place, "says that it is stored on rank"),
    Fault(Values, Pushes, "arguments_of", loses_contents, "is told the wrong contents of"),
    Fault(Attempts, Tasks, "on_raised", forgets_attempts, r"has had all its \d attempts"),
    Fault(LineageInScope, Lineage, "keep", forgets, "is stored without its spec"),
    Fault(
        Attempts, Recovery, "_make_again", makes_twice, r"is being run already, to make the same|all its \d attempts"
    ),
    Fault(Slots, Scheduler, "fits_resources", fits_always, "takes too much (CPU|GPU) on rank"),
    Fault(Segments, Pushes, "arguments_of", announces_elsewhere, "is announced as stored on rank"),
    Fault(Spread, Readers, "redirect", serves_everybody, "is sent to rank .*, though rank . of the same host has read"),
    Fault(Departed, Context, "send", answers_the_dead, "sends a .* to rank .*, which it knows is dead"),
    Fault(Rosters, Replacements, "_end", waits_for_ever, "At rest, a replacement is activating"),
    Fault(Progress, Waits, "on_arrived", forgets, "was never woken; it waits for"),
    Fault(Futures, Tasks, "submit", forgets_what_nobody_can_wait_for, "was submitted, and nothing has become of it"),
    Fault(Standstills, Judgement, "_has_enough", denies_always, "was given up, but could start on rank"),
    Fault(Emptiness, Leases, "_return", forgets, r"At rest, rank \d still has .*n_grants=[1-9]"),
)


def first_failure(*, is_livelock_told: bool = False) -> SimulationError:
    """The first that a checker tells; programs that ask again and again may also keep the world from coming to rest."""
    for seed in range(N_SEEDS):
        try:
            run_seed(seed)
        except SimulationError as error:
            if is_livelock_told or "does not come to rest" not in str(error):
                return error
    raise AssertionError(f"Nothing was noticed in {N_SEEDS} seeds.")


def complains(error: SimulationError) -> list[str]:
    """The modules of checkers through which the error came."""
    cause = error.__cause__
    assert cause is not None
    while cause.__cause__ is not None:  # The core takes what is raised while it hears a frame for the frame's fault.
        cause = cause.__cause__
    frames = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(cause.__traceback__)]
    return [name for name in frames if name.startswith(f"{checkers.__name__}.")]


def test_every_checker_has_a_fault() -> None:
    assert {fault.checker for fault in FAULTS} == set(checkers.ALL)


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.checker.__name__ for fault in FAULTS])
def test_the_checker_complains(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault.owner, fault.method, fault.plant(getattr(fault.owner, fault.method)))
    error = first_failure()
    assert set(complains(error)) == {fault.checker.__module__}
    assert re.search(fault.complaint, str(error).splitlines()[0])


def test_the_window_complains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Copies, "let_go", frees_what_is_used(Copies.let_go))
    assert "while it is sent, received or viewed" in str(first_failure())


def test_a_watch_that_is_told_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watches, "on_ready", forgets(Watches.on_ready))
    told = str(first_failure(is_livelock_told=True))
    assert re.search("Watch .* was not told of|does not come to rest", told)


def test_a_failure_names_its_seed_and_tells_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waits, "on_arrived", forgets(Waits.on_arrived))
    text = str(first_failure())
    assert re.match(r"Seed \d+, at \d+\.\d+ ms: Waiter \d+ on rank \d was never woken; it waits for \['\d\.\d+'", text)
    assert "\nThe story of " in text
    assert "\nThe last events:\n" in text
