"""All interleavings of a small program: what one seed leaves to chance is tried in every order.

Theory of operation

An *action* is the delivery of one frame, one step of a thread, or one end of a transfer, together with the turn that it
causes on its rank. What can happen next is a set of actions; frames between two ranks stay in order, all else is free.
Time stands still while there are actions: messages are faster than deadlines. When there are none left, the next
deadline comes. A run is a sequence of choices, so it can be repeated, and the last choice that has an untried
alternative leads to the next run (depth first, without keeping states).

Actions on different ranks commute, because a rank changes nothing but itself and appends to what is under way. So of
all orders that differ only in the order of commuting actions one is enough. That is what *sleep sets* see to (Godefroid
1996): an action that has been tried at some point sleeps in its alternatives until something on the same rank happens,
and a run in which all that could happen sleeps is given up.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from hpcfut.sim.fabric import Frame
from hpcfut.sim.frame import Thread
from hpcfut.sim.ops import Body
from hpcfut.sim.rank import SimRank
from hpcfut.sim.trace import SimulationError
from hpcfut.sim.world import Scenario, SimWorld

#: (rank on which it happens, what it is, which of these).
ActionKey = tuple[int, str, int]

Choose = Callable[[list[ActionKey]], ActionKey]
Deed = tuple[Callable[[Any], None], Any]


class EvenRandom(Random):
    """No chance: the explorer makes the choices that matter, and the others are made in the middle."""

    def random(self) -> float:
        """Always the middle."""
        return 0.5


class Redundant(Exception):
    """This run would repeat another one with commuting actions in another order."""


class ExploredWorld(SimWorld):
    """A world in which somebody else chooses what happens next."""

    def __init__(self, n_ranks: int, program: Body, scenario: Scenario, choose: Choose) -> None:
        self._choose = choose
        self._actions: dict[ActionKey, deque[Deed]] = {}
        self._deadlines: list[tuple[float, int, Deed]] = []
        self._n_deadlines = 0
        self._threads: dict[Thread, int] = {}
        super().__init__(n_ranks, 0, program, scenario, EvenRandom(0))

    def schedule(self, at: float, action: Callable[[Any], None], argument: Any) -> None:
        """Note what can happen from now on, or when it is due."""
        key = self._key_of(action, argument)
        if key is not None:
            self._actions.setdefault(key, deque()).append((action, argument))
        elif not self._is_turn_to_come(action):
            self._n_deadlines += 1
            heapq.heappush(self._deadlines, (at, self._n_deadlines, (action, argument)))

    def _key_of(self, action: Callable[[Any], None], argument: Any) -> ActionKey | None:
        """The name of an action; None for what is due at an instant."""
        if isinstance(argument, Frame):
            return argument.destination, "hears rank", argument.source
        if isinstance(argument, Thread):
            number = self._threads.setdefault(argument, len(self._threads))
            return argument.stack[-1].rank, "steps thread", number
        if action == self._has_left:
            return argument[0].rank, "has sent", argument[1]
        if action == self._has_arrived:
            return argument[0].reader.rank, "has received", argument[0].transfer_id
        return None

    @staticmethod
    def _is_turn_to_come(action: Callable[[Any], None]) -> bool:
        """Whether it is the turn of a rank that has something to hear, which it takes at once in any case."""
        rank = getattr(action, "__self__", None)
        return isinstance(rank, SimRank) and bool(rank.mailbox)

    def _run_dry(self) -> None:
        while True:
            for rank in self.ranks:
                while rank.mailbox:
                    rank.turn_at = float("inf")
                    rank.turn()
            if self._actions:
                key = self._choose(sorted(self._actions))
                queue = self._actions[key]
                action, argument = queue.popleft()
                if not queue:
                    del self._actions[key]
            elif self._deadlines:
                self.now, _, (action, argument) = heapq.heappop(self._deadlines)
            else:
                return
            self.n_steps += 1
            if self.n_steps > self.scenario.n_steps_max:
                raise SimulationError(f"The world does not come to rest: {self.n_steps} steps, {self.now:.1f} s.")
            action(argument)


class _Node(msgspec.Struct):
    """A point of the present run at which something was chosen."""

    keys: list[ActionKey]
    chosen: ActionKey
    #: What need not be tried here.
    asleep: dict[ActionKey, None]

    def awake(self) -> list[ActionKey]:
        """What is still to be tried here."""
        return [key for key in self.keys if key not in self.asleep]


class Explorer:
    """Runs a program in every order that makes a difference; a run that goes wrong raises with its story."""

    def __init__(self, n_ranks: int, program: Body, scenario: Scenario | None = None) -> None:
        self._n_ranks = n_ranks
        self._program = program
        self._scenario = scenario or Scenario()
        self._path: list[_Node] = []
        self._depth = 0
        #: Orders that were run to their end.
        self.n_runs = 0

    def explore(self, n_runs_max: int) -> bool:
        """Try all orders, but not more than so many; gives whether that were all."""
        while self.n_runs < n_runs_max:
            self._depth = 0
            world = ExploredWorld(self._n_ranks, self._program, self._scenario, self._choose)
            try:
                world.run()
                self.n_runs += 1
            except Redundant:
                pass
            if not self._turn_to_next():
                return True
        return False

    def _choose(self, keys: list[ActionKey]) -> ActionKey:
        path = self._path
        if self._depth == len(path):
            asleep: dict[ActionKey, None] = {}
            if path:
                rank = path[-1].chosen[0]
                asleep = {key: None for key in path[-1].asleep if key[0] != rank}
            node = _Node(keys, keys[0], asleep)
            awake = node.awake()
            if not awake:
                raise Redundant
            node.chosen = awake[0]
            path.append(node)
        node = path[self._depth]
        assert node.keys == keys, "The same choices lead to the same alternatives."
        self._depth += 1
        return node.chosen

    def _turn_to_next(self) -> bool:
        """Go back to the last point with an alternative; false if there is none."""
        path = self._path
        while path:
            node = path[-1]
            node.asleep[node.chosen] = None
            awake = node.awake()
            if awake:
                node.chosen = awake[0]
                return True
            path.pop()
        return False
