"""A world in which somebody else chooses what happens next.

An *action* is one thing that can happen to one rank: it hears a frame, takes a turn, one of its threads goes on, a
transfer or a file is done. Frames between two ranks stay in order, all else is free. Time stands still while there are
actions: it passes, to the next deadline, when there are none left, and before that only as often as the bounds allow.
What may happen so many times in a run, and no more, is kept in one place (``_faults``): deaths, too. When a rank has
died, each other one hears of it by an action of its own; until then it may hear what the dead had sent.

Chance has no part in it: whatever a seed would decide besides is decided in the middle.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import msgspec

from hpcfut.sim.digest import Digest
from hpcfut.sim.fabric import Frame
from hpcfut.sim.frame import Frame as UserFrame
from hpcfut.sim.frame import Thread
from hpcfut.sim.ops import Body, Program, Wait
from hpcfut.sim.rank import SimRank
from hpcfut.sim.trace import SimulationError
from hpcfut.sim.transfers import Read, Send
from hpcfut.sim.world import Scenario, SimWorld
from hpcfut.sim.writers import Writers

#: (rank to which it happens, what it is, which of these).
ActionKey = tuple[int, str, int]

#: The rank of what happens to all of them.
EVERYWHERE: Final = -1
TIME_PASSES: Final[ActionKey] = (EVERYWHERE, "time passes", 0)
EARLY: Final[ActionKey] = (EVERYWHERE, "time passes early", 0)

#: Scripts that have come to their end wait so long for everything else to come to rest.
REST_S: Final = 1e3


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried, besides the order of what happens."""

    #: Whether a rank may hear more before it takes its turn; else it takes it at once.
    has_slow_turns: bool = False
    #: How often a deadline may come while something else could happen first.
    n_early: int = 0
    #: How many ranks, other than the first, may die.
    n_deaths: int = 0


Choose = Callable[["ExploredWorld", list[ActionKey]], ActionKey]
Deed = tuple[Callable[[Any], None], Any]


class EvenRandom(Random):
    """No chance: all that is drawn is drawn from the middle."""

    def random(self) -> float:
        """Always the middle."""
        return 0.5


class ExploredWorld(SimWorld):
    """See the module's docstring.

    Args:
        n_ranks: As in ``SimWorld``.
        program: As in ``SimWorld``.
        scenario: As in ``SimWorld``.
        bounds: What is tried.
        choose: Is given the world and what can happen next; gives what does.
    """

    def __init__(self, n_ranks: int, program: Body, scenario: Scenario, bounds: Bounds, choose: Choose) -> None:
        self._choose = choose
        self._bounds = bounds
        self._actions: dict[ActionKey, deque[Deed]] = {}
        self._timers: list[tuple[float, int, Deed]] = []
        self._n_timers = 0
        self._n_early_left = bounds.n_early
        self._n_deaths_left = bounds.n_deaths
        #: Digests of ranks that nothing has happened to since.
        self._digests: dict[int, bytes] = {}
        super().__init__(n_ranks, 0, program, scenario, EvenRandom(0))
        # States are looked at, and each of them once; not turns.
        self._state_checks, self.checks.after_turn = self.checks.after_turn, []

    # -- what is to come -------------------------------------------------------------------------------------------

    def schedule(self, at: float, action: Callable[[Any], None], argument: Any) -> None:
        """Note what can happen from now on, whenever a seed would have it happen."""
        key = self._key_of(action, argument)
        if not self.ranks[key[0]].is_dead:
            self._actions.setdefault(key, deque()).append((action, argument))

    def set_timer(self, at: float, action: Callable[[Any], None], argument: Any) -> None:
        """Note what happens when its time has come."""
        self._n_timers += 1
        heapq.heappush(self._timers, (at, self._n_timers, (action, argument)))

    def schedule_turn(self, rank: SimRank, at: float) -> None:
        """The rank itself says when it is due."""

    def _key_of(self, action: Callable[[Any], None], argument: Any) -> ActionKey:
        if isinstance(argument, Frame):
            return argument.destination, "hears rank", argument.source
        if isinstance(argument, Thread):
            # Threads are told apart by the task or script that they began with.
            return argument.stack[-1].rank, "goes on with", argument.stack[0].task_id
        if isinstance(argument, SimRank):
            return argument.rank, "drops its globals", 0
        if isinstance(argument, Send):
            return argument.holder.rank, "has sent", argument.object_id
        if isinstance(argument, Read):
            return argument.reader.rank, "has not received", argument.transfer_id
        if action == self.transfers.has_arrived:
            return argument[0].reader.rank, "has received", argument[0].transfer_id
        if action in (self.deaths.notice, self.deaths.notice_in_time):
            return argument[0].rank, "hears of the death of", argument[1]
        what = action.__name__.strip("_").replace("_", " ")
        if action == self.arrivals.end_spawn:
            return 0, what, argument[0].rank
        if isinstance(argument[0], SimRank):
            return argument[0].rank, what, argument[1]
        # All else is what a rank waits for, with its number: room, a file.
        who: SimRank | Writers = action.__self__  # type: ignore[attr-defined]
        return who.rank if isinstance(who, SimRank) else who.number, what, argument[0]

    def _is_due(self, rank: SimRank) -> bool:
        return bool(rank.mailbox) or rank.turn_at <= self.now

    def _next_time(self) -> float:
        turns = (rank.turn_at for rank in self.ranks if not rank.mailbox)
        return min(*turns, self._timers[0][0] if self._timers else float("inf"), float("inf"))

    def _possible(self) -> list[ActionKey]:
        keys = list(self._actions)
        keys += [(rank.rank, "takes its turn", 0) for rank in self.ranks if self._is_due(rank)]
        if keys:
            return sorted(keys) + self._faults()
        return [TIME_PASSES] if self._next_time() < float("inf") else []

    def _faults(self) -> list[ActionKey]:
        """What may happen at any moment, but not often."""
        faults = [EARLY] if self._n_early_left and self._next_time() < REST_S else []
        if self._n_deaths_left:
            faults += [(rank.rank, "dies", 0) for rank in self.survivors()[1:]]
        return faults

    # -- what happens ----------------------------------------------------------------------------------------------

    def _run_dry(self) -> None:
        self._digests.clear()
        while True:
            if not self._bounds.has_slow_turns:
                self._take_turns()
            keys = self._possible()
            if not keys:
                return
            self.n_steps += 1
            if self.n_steps > self.scenario.n_steps_max:
                raise SimulationError(f"The world does not come to rest: {self.n_steps} steps, {self.now:.1f} s.")
            self._do(self._choose(self, keys))

    def _take_turns(self) -> None:
        for rank in self.ranks:
            while self._is_due(rank):
                self._take_turn(rank)

    def _take_turn(self, rank: SimRank) -> None:
        self._digests.pop(rank.rank, None)
        rank.turn_at = float("inf")
        rank.turn()

    def _do(self, key: ActionKey) -> None:
        if key[0] == EVERYWHERE:
            self._n_early_left -= key == EARLY
            self._pass_time()
            return
        self._digests.pop(key[0], None)
        if key[1] == "dies":
            self._kill(key[0])
            return
        if key not in self._actions:
            self._take_turn(self.ranks[key[0]])
            return
        queue = self._actions[key]
        action, argument = queue.popleft()
        if not queue:
            del self._actions[key]
        action(argument)

    def _kill(self, dead: int) -> None:
        self._n_deaths_left -= 1
        self.deaths.kill(dead)
        for survivor in self.survivors():
            if dead in survivor.reaches:
                self.schedule(self.now, self.deaths.notice, (survivor, dead))

    def forget_actions(self) -> None:
        """The dead do nothing more, and who has heard of a death has nothing more of the dead."""
        for key, queue in list(self._actions.items()):
            rank = self.ranks[key[0]]
            is_deaf = key[1] == "hears rank" and key[2] in rank.has_lost
            if key[1] == "has sent":
                queue = self._actions[key] = deque(deed for deed in queue if not deed[1].is_over)
            elif key[1] == "has received" and not self.transfers.is_open(queue[0][1][0]):
                queue = deque()
            if rank.is_dead or is_deaf or not queue:
                del self._actions[key]

    def _pass_time(self) -> None:
        self.now = self._next_time()
        self._digests.clear()
        while self._timers and self._timers[0][0] <= self.now:
            _, _, (action, argument) = heapq.heappop(self._timers)
            action(argument)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _script(self, me: UserFrame, program: Body) -> Program:
        """A driver's script, which waits for everything else to come to rest, and then drops everything."""
        yield from program(me)
        me.release(list(me.refs))
        yield Wait([], 1, may_run=False, timeout_s=REST_S)
        self._n_scripts_open -= 1
        if not self._n_scripts_open:
            for rank in self.survivors():
                self.schedule(self.now, self._drop_globals, rank)
        return None

    @staticmethod
    def _drop_globals(rank: SimRank) -> None:
        rank.drop_globals()

    def _failure(self, text: str, ids: Sequence[int]) -> SimulationError:
        where = f"In one order of {self.n_steps} actions, at {self.now * 1e3:.3f} ms"
        return SimulationError(f"{where}: {text}\n{self.trace.story(ids)}", ids)

    # -- states ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Let every checker look at this state, at every rank."""
        for rank in self.ranks:
            if rank.ended is None and not rank.is_dead:
                for check in self._state_checks:
                    check(rank)

    def digest(self) -> bytes:
        """A name of this state; see ``Digest``."""
        for rank in self.ranks:
            if rank.rank not in self._digests:
                digest = Digest()
                digest.add_rank(rank)
                self._digests[rank.rank] = digest.value()
        digest = Digest()
        digest.add([self._digests[rank.rank] for rank in self.ranks])
        digest.add(
            [
                self.now,
                self._n_early_left,
                self._n_deaths_left,
                self._n_scripts_open,
                *(rank.turn_at for rank in self.ranks),
            ]
        )
        for key in sorted(self._actions):
            digest.add(key)
            digest.add(self._actions[key])
        for at, _, deed in sorted(self._timers, key=lambda timer: timer[:2]):
            digest.add(at)
            digest.add(deed)
        for rank in self.ranks:
            digest.add(rank.window.segments)
        for task_id in sorted(self.truth.specs):
            digest.add_spec(self.truth.specs[task_id], is_mortal=self._bounds.n_deaths > 0)
        for read in sorted(self.transfers.reads):
            digest.add(self.transfers.reads[read])
        digest.add([list(self.truth.injected.values()), self.truth.given_up, self.truth.n_denied])
        digest.add(self.checks.all)
        return digest.value()
