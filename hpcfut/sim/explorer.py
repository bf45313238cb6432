"""All interleavings of a small program: what one seed leaves to chance is tried in every order.

Theory of operation

A *state* is a world between two actions. From the first one all others are reached by a search in depth; a state that
has been seen is not gone on from again. Worlds cannot be copied, because user code stands in the middle of functions:
so to try another action, the program is run once more with the choices that led there, which costs less than a
millisecond, and the states on the way are neither named nor looked at again.

Actions on different ranks commute, because a rank changes nothing but itself and appends to what is under way. So of
all orders that differ only in the order of commuting actions one is enough. That is what *sleep sets* see to (Godefroid
1996): an action that has been tried at some point sleeps in its alternatives until something on the same rank happens.
They spare ways, not states: every state that can be reached is. A state that is reached again is gone on from only with
what slept each time before, and sleeps no longer.

Every checker looks at every state, the world has to come to rest at the end of every way, and a state from which a way
leads back to itself is a livelock.
"""

from __future__ import annotations

import msgspec

from hpcfut.sim.explored import EVERYWHERE, ActionKey, Bounds, ExploredWorld
from hpcfut.sim.ops import Body
from hpcfut.sim.trace import SimulationError
from hpcfut.sim.world import Scenario

#: A way with more actions than this does not end: small programs take a few hundred.
N_STEPS_MAX = 5000


class Redundant(Exception):
    """All that this way could lead to is known."""


class Counts(msgspec.Struct):
    """How much there is to a program."""

    #: States, and actions that led from one to another.
    n_states: int = 0
    n_actions: int = 0
    #: States in which nothing can happen any more: the session has ended everywhere.
    n_ends: int = 0


class _Node(msgspec.Struct):
    """A state on the present way."""

    keys: list[ActionKey]
    digest: bytes
    #: What is to be tried here, the present choice first.
    todo: list[ActionKey]
    #: What need not be tried here.
    asleep: dict[ActionKey, None]


def commute(one: ActionKey, other: ActionKey) -> bool:
    """Whether the order of two actions makes no difference."""
    return one[0] != other[0] and EVERYWHERE not in (one[0], other[0])


class Explorer:
    """Runs a program in every order that makes a difference; one that goes wrong raises with its story."""

    def __init__(
        self, n_ranks: int, program: Body, scenario: Scenario | None = None, bounds: Bounds | None = None
    ) -> None:
        self._n_ranks = n_ranks
        self._program = program
        scenario = scenario or Scenario()
        self._scenario = msgspec.structs.replace(scenario, n_turns_a_deep_check=1, n_steps_max=N_STEPS_MAX)
        self._bounds = bounds or Bounds()
        self._path: list[_Node] = []
        self._depth = 0
        #: State → what slept whenever it was reached.
        self._seen: dict[bytes, dict[ActionKey, None]] = {}
        self._ends: dict[bytes, None] = {}
        self.counts = Counts()

    def explore(self, n_states_max: int) -> bool:
        """Visit all states, but not many more than so many; gives whether those were all."""
        while self.counts.n_states < n_states_max:
            self._depth = 0
            world = ExploredWorld(self._n_ranks, self._program, self._scenario, self._bounds, self._choose)
            try:
                world.run()
                self._ends[world.digest()] = None
            except Redundant:
                pass
            if not self._turn_to_next():
                self.counts.n_ends = len(self._ends)
                return True
        return False

    def _choose(self, world: ExploredWorld, keys: list[ActionKey]) -> ActionKey:
        if self._depth == len(self._path):
            self._path.append(self._reach(world, keys))
        node = self._path[self._depth]
        assert node.keys == keys, "The same choices lead to the same alternatives."
        self._depth += 1
        return node.todo[0]

    def _reach(self, world: ExploredWorld, keys: list[ActionKey]) -> _Node:
        """A state is reached for the first time, or in another way."""
        asleep: dict[ActionKey, None] = {}
        if self._path:
            self.counts.n_actions += 1
            last = self._path[-1]
            asleep = {key: None for key in last.asleep if commute(key, last.todo[0])}
        digest = world.digest()
        slept = self._seen.get(digest)
        if slept is None:
            self.counts.n_states += 1
            world.check()
            todo = [key for key in keys if key not in asleep]
        else:
            if any(node.digest == digest for node in self._path):
                raise SimulationError("The world comes back to where it was, and can do so for ever.")
            todo = [key for key in keys if key in slept and key not in asleep]
            asleep = {key: None for key in asleep if key in slept}
        self._seen[digest] = asleep
        if not todo:
            raise Redundant
        return _Node(keys, digest, todo, dict(asleep))

    def _turn_to_next(self) -> bool:
        """Go back to the last state with an alternative; false if there is none."""
        while self._path:
            node = self._path[-1]
            node.asleep[node.todo.pop(0)] = None
            if node.todo:
                return True
            self._path.pop()
        return False
