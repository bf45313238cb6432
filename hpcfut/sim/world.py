"""The virtual world: N real cores over a virtual fabric in virtual time, from one seed.

There is one heap of (time, tiebreak, what happens). Everything random comes from one generator, and nothing iterates
over a set, so one seed gives one trace. After every turn the checkers, who know everything, compare what the cores
believe with what is true. A run ends in two phases, as in TigerBeetle's simulator: first the programs run; then the
drivers drop everything, no more is asked for, and the world must come to rest with every table of every rank empty.
"""

from __future__ import annotations

import heapq
import traceback
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from hpcfut.core import events as e
from hpcfut.core.context import Table, Transitions
from hpcfut.core.ownership import STORED
from hpcfut.core.rank import RankCore
from hpcfut.model.config import Config
from hpcfut.model.errors import HpcfutError
from hpcfut.model.failure import LOST, Failure
from hpcfut.model.ids import name_of, owner_of
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.sim.arrivals import Arrivals
from hpcfut.sim.checkers import Checks
from hpcfut.sim.deaths import Death, Deaths
from hpcfut.sim.fabric import Fabric, Frame, Weather
from hpcfut.sim.frame import Frame as UserFrame
from hpcfut.sim.frame import Thread
from hpcfut.sim.ops import Body, Program, Wait
from hpcfut.sim.rank import SimRank
from hpcfut.sim.trace import SimulationError, Trace, ids_in
from hpcfut.sim.transfers import Transfers
from hpcfut.sim.truth import Truth

Row = tuple[str, str, str]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What a world is like, besides its seed and its program."""

    weather: Weather = Weather()
    config: Config = Config()
    #: Amounts of resources, one dict a rank; fewer than ranks repeat.
    resources: tuple[dict[str, int], ...] = ({"CPU": 2 * RESOURCE_UNIT},)
    #: Ranks that read each other's memory.
    n_ranks_on_host: int = 2
    #: Ranks with a driver's script of their own.
    n_drivers: int = 1
    #: Events that come within this time are told in one turn.
    turn_delay_s: float = 10e-6
    #: A rank that is slow takes its turns only within this time; -1: none.
    slow_rank: int = -1
    slow_turn_s: float = 0.02
    #: The session is cut short soon after so many tasks have been submitted (0: never): then a rank dies, or (-1)
    #: rank 0 ends the session.
    cut_at_n_tasks: int = 0
    dies: int = -1
    #: Deaths that the job survives; and how many ranks, the last ones, are kept aside until then.
    deaths: tuple[Death, ...] = ()
    n_spares: int = 0
    #: Within how many seconds a process is started that replaces one of them; and the chance that it cannot be.
    spawn_s: float = 0.05
    p_spawn_fails: float = 0.0
    #: Ranks that do nothing for a long while, but live: (after so many tasks, rank, seconds).
    pauses: tuple[tuple[int, int, float], ...] = ()
    #: Bytes of large objects that a rank has room for.
    nbytes_store: int = 1 << 20
    #: Chance that objects cannot be spilled.
    p_disk_full: float = 0.0
    #: So many objects the disk of a rank has room for; 0: any number.
    n_spilled_max: int = 0
    #: Chance that a read breaks off.
    p_broken_read: float = 0.0
    #: Whether an owner learns now and then that something is lost.
    loses: bool = False
    uses_codec: bool = False
    #: A deep check of everything after every so many turns.
    n_turns_a_deep_check: int = 16
    n_steps_max: int = 200_000
    seconds_max: float = 3600.0


class HitTable(Table):
    """A transition table that notes which of its rows are taken: it fills itself from the real one."""

    def __init__(self, machine: str, transitions: Transitions, hits: dict[Row, None]) -> None:
        super().__init__(machine, {})
        self._all = Table(machine, transitions)
        self._hits = hits

    def __missing__(self, pair: tuple[str, str]) -> str:
        state = self[pair] = self._all[pair]
        self._hits[self.machine, *pair] = None
        return state


class SimWorld:
    """See the module's docstring.

    Args:
        n_ranks: How many ranks there are; rank 0 (and more, as the scenario says) has a driver.
        seed: All choices come from it.
        program: The script of each driver.
        scenario: What the world is like.
        rng: Where choices come from instead, if not from the seed.
    """

    def __init__(
        self, n_ranks: int, seed: int, program: Body, scenario: Scenario | None = None, rng: Random | None = None
    ) -> None:
        self.seed = seed
        self.rng = rng or Random(seed)
        self.scenario = scenario = scenario or Scenario()
        self.now = 0.0
        self.n_steps = 0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._n_scheduled = 0
        self.trace = Trace(n_ranks)
        self.truth = Truth(
            n_ranks, is_tight=scenario.nbytes_store < (1 << 20), nbytes_lineage_max=scenario.config.nbytes_lineage_max
        )
        self.templates: dict[int, TaskTemplate] = {}
        #: All rows of the transition tables of the cores, and those that were taken.
        self.rows: dict[Row, None] = {}
        self.hits: dict[Row, None] = {}
        self.transfers = Transfers(self)
        self.deaths = Deaths(self)
        self.arrivals = Arrivals(self)
        self.fabric = Fabric(self.schedule, self.rng, scenario.weather, uses_codec=scenario.uses_codec)
        store = {"object_store_memory": scenario.nbytes_store * RESOURCE_UNIT}
        amounts = [store | each for each in scenario.resources]
        self.roster = [
            RankRecord(
                rank,
                0,
                host,
                host,
                1000 + rank,
                amounts[rank % len(amounts)],
                is_spare=rank >= n_ranks - scenario.n_spares,
            )
            for rank in range(n_ranks)
            for host in [f"h{rank // scenario.n_ranks_on_host}"]
        ]
        self.ranks: list[SimRank] = []
        self.ranks += [self._make_rank(rank) for rank in range(n_ranks)]
        self.checks = Checks(self)
        #: Scripts that go on, and those that have not even passed the time until all others were done.
        self._n_scripts = self._n_scripts_open = scenario.n_drivers
        self.is_cut = False
        #: Deaths and losses that will happen, or be heard of, and may make tasks run again.
        self.n_faults_to_come = 0
        #: Threads of user code, the scripts included.
        self.n_threads = scenario.n_drivers
        for rank in self.ranks[: scenario.n_drivers]:
            rank.threads.start_driver(lambda me: self._script(me, program))

    def _make_rank(self, rank: int) -> SimRank:
        own, is_joining = self.roster[rank], self.roster[rank].replaces >= 0
        reaches = [0] if is_joining else [other.rank for other in self.roster if other.rank != rank]
        core = RankCore(
            rank,
            self.roster,
            self.scenario.config,
            is_driver=rank < self.scenario.n_drivers,
            nbytes_store=self.scenario.nbytes_store,
            neighbours=[other for other in (rank, *reaches) if self.roster[other].host_key == own.host_key],
            make_table=self._make_table,
            is_joining=is_joining,
        )
        self.truth.watch(core)
        return SimRank(self, rank, core, reaches)

    def add_rank(self, record: RankRecord) -> SimRank:
        """A process has been started in place of a rank that has died."""
        self.roster.append(record)
        self.truth.held.append({})
        rank = self._make_rank(record.rank)
        rank.news += [(other.rank, True) for other in self.roster[:-1] if other.replaces >= 0]
        self.ranks.append(rank)
        for check in self.checks.on_start:
            check(rank)
        return rank

    def _make_table(self, machine: str, transitions: Transitions) -> Table:
        self.rows.update({(machine, *pair): None for pair in transitions})
        return HitTable(machine, transitions, self.hits)

    # -- time ------------------------------------------------------------------------------------------------------

    def schedule(self, at: float, action: Callable[[Any], None], argument: Any) -> None:
        """Let something happen at an instant."""
        self._n_scheduled += 1
        heapq.heappush(self._heap, (at, self._n_scheduled, action, argument))

    def forget_actions(self) -> None:
        """Some of what was to happen will not, because somebody is dead; it does nothing when its time has come."""

    def set_timer(self, at: float, action: Callable[[Any], None], argument: Any) -> None:
        """Let something happen when its time has come, which is what somebody waits for."""
        self.schedule(at, action, argument)

    def schedule_turn(self, rank: SimRank, at: float) -> None:
        """Let a rank take a turn at an instant, if it has not taken it earlier."""
        self.schedule(at, rank.turn_if_due, at)

    def schedule_step(self, thread: Thread, seconds: float) -> None:
        """Let a thread go on after a while, unless that is settled already."""
        if not thread.is_scheduled:
            thread.is_scheduled = True
            rank = thread.stack[-1].world_rank
            self.schedule(self.now + seconds, rank.threads.step, thread)

    def run(self) -> None:
        """Run to the end: everything done, everything dropped, everything empty."""
        try:
            self._run_dry()
            if not self.is_cut:
                for check in self.checks.at_rest:
                    check()
                self.ranks[0].post(e.StopRequested(0, "", True))
                self.deaths.note_end()
                self._run_dry()
            for check in self.checks.at_end:
                check()
        except SimulationError as error:
            raise self._failure(str(error), error.ids) from error
        except (HpcfutError, KeyError, IndexError, AssertionError, TypeError, AttributeError, ValueError) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} in {last.name} ({last.filename}:{last.lineno}): {error}"
            raise self._failure(where, self._ids_of_last()) from error

    def _run_dry(self) -> None:
        heap, scenario = self._heap, self.scenario
        while heap:
            self.now, _, action, argument = heapq.heappop(heap)
            self.n_steps += 1
            if self.n_steps > scenario.n_steps_max or self.now > scenario.seconds_max:
                raise SimulationError(f"The world does not come to rest: {self.n_steps} steps, {self.now:.1f} s.")
            action(argument)

    def _ids_of_last(self) -> tuple[int, ...]:
        _, _, events, _ = self.trace.entries[-1]
        found = {some_id for event in events for some_id in ids_in(event) if some_id in self.truth.specs}
        return tuple(sorted(found))[:3]

    def _failure(self, text: str, ids: Sequence[int]) -> SimulationError:
        story = self.trace.story(ids)
        return SimulationError(f"Seed {self.seed}, at {self.now * 1e3:.3f} ms: {text}\n{story}", ids)

    # -- scripts ---------------------------------------------------------------------------------------------------

    def _script(self, me: UserFrame, program: Body) -> Program:
        """A driver's script, and what it does at the end: wait for what others have started, and drop everything."""
        yield from program(me)
        self._n_scripts -= 1
        me.release(list(me.refs))
        while self._n_scripts or self.n_threads > self._n_scripts_open or self._has_tasks() or self.n_faults_to_come:
            # A rank with a driver works only while its driver waits, so the driver waits: for nothing, for a while.
            yield Wait([], 1, may_run=False, timeout_s=0.05)
        self._n_scripts_open -= 1
        if not self._n_scripts_open:
            for rank in self.survivors():
                rank.drop_globals()
        return None

    def _has_tasks(self) -> bool:
        return any(
            rank.core.tasks.tasks or rank.threads.runs or any(type(event) is e.TaskSubmitted for event in rank.mailbox)
            for rank in self.survivors()
        )

    def survivors(self) -> list[SimRank]:
        """The ranks that are alive."""
        return [rank for rank in self.ranks if not rank.is_dead]

    # -- the fabric --------------------------------------------------------------------------------------------------

    def note_submitted(self) -> None:
        """User code has submitted a task."""
        if self.scenario.loses:
            self.n_faults_to_come += 1
            self.schedule(self.now + self.rng.random() * 0.02, self._lose_something, None)
        n_tasks = len(self.truth.specs)
        if n_tasks == self.scenario.cut_at_n_tasks:
            self.schedule(self.now + self.rng.random() * 0.05, self._cut, None)
        self.deaths.note_submitted(n_tasks)
        for after, rank, seconds in self.scenario.pauses:
            if after == n_tasks:
                self.ranks[rank].pauses_until = self.now + seconds

    def _cut(self, _: None) -> None:
        """The session is cut short: by rank 0, or because a rank dies, of which others hear sooner or later."""
        self.is_cut = True
        dies = self.scenario.dies
        if dies < 0:
            self.ranks[0].post(e.StopRequested(3, "", True))
            return
        self.ranks[dies].is_dead = True
        survivors = [rank for rank in self.ranks if rank.rank != dies]
        # Only if rank 0 dies, everybody has to notice by himself.
        n_noticing = self.rng.randrange(1, len(survivors) + 1) if dies else len(survivors)
        for rank in self.rng.sample(survivors, n_noticing):
            at = self.now + self.rng.random() * 0.1
            self.schedule(at, rank.post, e.RankLost(dies, "its connection was closed"))

    def deliver(self, frame: Frame) -> None:
        """A frame arrives."""
        if not self.deaths.is_heard(frame):
            return
        if self.scenario.config.survives_deaths:
            self.truth.note_replies(frame.messages)
        receiver = self.ranks[frame.destination]
        if frame.source not in receiver.reaches:
            receiver.unheard.setdefault(frame.source, []).append(frame)
            return
        self.arrivals.note_heard(receiver, frame)
        receiver.post(e.FrameReceived(frame.source, frame.load, frame.messages))
        self.deaths.note_boundary(receiver)

    def _lose_something(self, _: None) -> None:
        """An owner learns that the bytes of an object are lost; what cannot be made again is there all the same."""
        self.n_faults_to_come -= 1
        tables = [rank.core.ownership.objects for rank in self.survivors()]
        stored = [record for table in tables for record in table.values() if record.state == STORED]
        if stored:
            record = self.rng.choice(stored)
            owner = self.ranks[owner_of(record.object_id)]
            reason = f"Object {name_of(record.object_id)} has gone."
            self.truth.lost[record.bytes_id] = None
            self.truth.note_injected(Failure(LOST, reason), record.bytes_id)
            owner.post(e.BytesLost(record.object_id, reason))

    # -- what is so ------------------------------------------------------------------------------------------------

    def active(self, news: Sequence[tuple[int, bool]]) -> list[int]:
        """The ranks that may be given tasks, for one who has heard this of deaths, and of who takes tasks."""
        known = dict(news)
        n_active = sum(not record.is_spare and record.replaces < 0 for record in self.roster)
        return [record.rank for record in self.roster if known.get(record.rank, record.replaces < 0)][:n_active]

    def is_hopeless(self, template: TaskTemplate, owner: SimRank) -> bool:
        """Whether a task can run nowhere, as its owner has heard, nor on a rank that may come for one that could."""
        if self.candidates(template, owner.news):
            return False
        is_bound = template.affinity >= 0 and not template.affinity_soft
        if is_bound or owner.awaits_nobody or not self.scenario.config.n_respawns_minute_max:
            return True
        taken = {self.roster[rank].place: None for rank in self.active(owner.news)}
        places = [record.rank for record in self.roster if record.replaces < 0 and not record.is_spare]
        if len(taken) == len(places):  # Spares stand in.
            return True
        return not any(rank not in taken and self._has(rank, template) for rank in places)

    def _has(self, rank: int, template: TaskTemplate) -> bool:
        return all(self.roster[rank].resources.get(name, 0) >= amount for name, amount in template.resources)

    def note_hopeless(self, owner: SimRank) -> None:
        """A rank has heard something, so that tasks of it may be given up."""
        for spec in self.truth.specs.values():
            if owner_of(spec.task_id) == owner.rank:
                spec.is_unschedulable |= self.is_hopeless(self.templates[spec.template_id], owner)

    def may_run(self, template: TaskTemplate, owner: int, rank: int) -> bool:
        """Whether an owner may have sent a task to a rank, when it had heard so much of its news."""
        news = self.ranks[owner].news
        return any(rank in self.candidates(template, news[:n]) for n in range(len(news) + 1))

    def candidates(self, template: TaskTemplate, news: Sequence[tuple[int, bool]] = ()) -> list[int]:
        """The ranks that can ever run a task of this template, worked out anew."""
        able = [rank for rank in self.active(news) if self._has(rank, template)]
        # A soft affinity that is not to be had, or to a rank that is called later, does not count.
        bound = template.affinity if template.affinity in able else -1
        is_called_later = self.roster[bound].is_spare or self.roster[bound].replaces >= 0
        if template.affinity < 0 or (template.affinity_soft and (bound < 0 or is_called_later)):
            return able
        return [rank for rank in able if rank == template.affinity]
