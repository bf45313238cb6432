"""Which tasks can never go on, because those that hold what they need wait for them: a judgement on told facts. Pure.

The facts are of one instant (``standstills.py`` sees to that). All tasks that they tell of are presumed to be stuck,
and then those are taken out, one after the other, that can go on while only the others are stuck: a run of which one
wait may end; a task in a queue for which some rank has enough that no stuck run holds; a task none of whose arguments
is stuck. What is left waits in a closed circle. Whatever the facts do not tell of is presumed to go on; so a verdict is
never wrong, though there may be none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from hpcfut.model.template import RESOURCE_UNIT, Resources, SchedulingKey
from hpcfut.model.waiting import BlockedRun, QueuedTask, WaitingTask


class Facts(msgspec.Struct):
    """What all ranks have told, by task."""

    runs: dict[int, BlockedRun] = {}
    queued: dict[int, QueuedTask] = {}
    waiting: dict[int, WaitingTask] = {}
    #: Pending object → the task that makes it.
    makers: dict[int, int] = {}
    #: The rank of each blocked run.
    ranks: dict[int, int] = {}

    def needed(self) -> Iterator[int]:
        """All pending objects that somebody needs."""
        for run in self.runs.values():
            for wait in run.waits:
                yield from wait.object_ids
        for task in self.waiting.values():
            yield from task.object_ids


class Victim(msgspec.Struct):
    """A task that cannot start before it has ended, and why."""

    task_id: int
    sentence: str


class Judgement:
    """What follows from some facts."""

    def __init__(
        self,
        facts: Facts,
        totals: Sequence[Resources],
        candidates: Callable[[SchedulingKey], tuple[int, ...]],
    ) -> None:
        self._facts = facts
        self._totals = totals
        self._candidates = candidates
        self.stuck = dict.fromkeys([*facts.runs, *facts.queued, *facts.waiting])
        #: Rank → what stuck runs hold there.
        self._held: dict[int, Resources] = {}
        for task_id, run in facts.runs.items():
            held = self._held.setdefault(facts.ranks[task_id], {})
            for name, amount in run.resources:
                held[name] = held.get(name, 0) + amount
        while self._release_some():
            pass

    def _release_some(self) -> bool:
        free = [task_id for task_id in self.stuck if self._can_go_on(task_id)]
        for task_id in free:
            del self.stuck[task_id]
            run = self._facts.runs.get(task_id)
            for name, amount in run.resources if run is not None else ():
                self._held[self._facts.ranks[task_id]][name] -= amount
        return bool(free)

    def _can_go_on(self, task_id: int) -> bool:
        facts = self._facts
        run = facts.runs.get(task_id)
        if run is not None:
            return any(
                sum(not self._is_stuck(object_id) for object_id in wait.object_ids) >= wait.n_missing
                for wait in run.waits
            )
        queued = facts.queued.get(task_id)
        if queued is not None and queued.behind:
            return any(other not in self.stuck for other in queued.behind)
        if queued is not None:
            return any(self._has_enough(rank, queued.key) for rank in self._candidates(queued.key))
        return not any(map(self._is_stuck, facts.waiting[task_id].object_ids))

    def _is_stuck(self, object_id: int) -> bool:
        return self._facts.makers.get(object_id) in self.stuck

    def _has_enough(self, rank: int, key: SchedulingKey) -> bool:
        """Cores are given back by those that wait."""
        held, total = self._held.get(rank, {}), self._totals[rank]
        return all(name == "CPU" or total.get(name, 0) - held.get(name, 0) >= amount for name, amount in key[0])

    # -- the verdict -------------------------------------------------------------------------------------------------

    def evidence(self) -> list[tuple[int, tuple[int, ...]]]:
        """Everything that the verdict rests on; equal at two instants, it was so all the time between."""
        facts = self._facts
        found = []
        for task_id in sorted(self.stuck):
            run, waiting = facts.runs.get(task_id), facts.waiting.get(task_id)
            ids: tuple[int, ...] = ()
            if run is not None:
                ids = tuple(wait.waiter_id for wait in run.waits)
            elif waiting is not None:
                ids = waiting.object_ids
            found.append((task_id, ids))
        return found

    def victims(self) -> list[Victim]:
        """Those that a stuck run waits for, directly or by others, while it holds what some of them need.

        Other stuck tasks go on when these have failed.
        """
        facts = self._facts
        wanted = {name: None for task_id in self.stuck if task_id in facts.queued for name in self._names(task_id)}
        ahead = {run: None for task_id in self.stuck if task_id in facts.queued for run in facts.queued[task_id].behind}
        pending = [
            task_id
            for task_id, run in facts.runs.items()
            if task_id in self.stuck and (task_id in ahead or any(name in wanted for name, _ in run.resources))
        ]
        seen = dict.fromkeys(pending)
        for task_id in pending:  # It grows meanwhile.
            for needed in self._needs(task_id):
                if needed in self.stuck and needed not in seen:
                    seen[needed] = None
                    pending.append(needed)
        return [
            Victim(task_id, self._sentence(facts.queued[task_id]))
            for task_id in sorted(seen)
            if task_id in facts.queued
        ]

    def _names(self, task_id: int) -> list[str]:
        return [name for name, _ in self._facts.queued[task_id].key[0] if name != "CPU"]

    def _needs(self, task_id: int) -> list[int]:
        facts = self._facts
        run, waiting = facts.runs.get(task_id), facts.waiting.get(task_id)
        object_ids: list[int] = []
        if run is not None:
            object_ids = [object_id for wait in run.waits for object_id in wait.object_ids]
        elif waiting is not None:
            object_ids = list(waiting.object_ids)
        return [facts.makers[object_id] for object_id in object_ids if object_id in facts.makers]

    def _sentence(self, victim: QueuedTask) -> str:
        facts = self._facts
        if victim.behind:
            ahead = ", ".join(dict.fromkeys(facts.runs[task_id].name for task_id in victim.behind))
            return (
                f"Method {victim.name} waits for its turn, which {ahead} has, and that waits, itself or by others, for "
                f"{victim.name}: so neither would ever end. An actor runs as many calls at a time as max_concurrency "
                f"says, and one that waits keeps its turn. Allow more calls at a time, make methods async and await "
                f"the ref, or return that instead of waiting for it."
            )
        names = self._names(victim.task_id)
        holders = [
            f"{run.name} on rank {facts.ranks[task_id]} ({_amounts(run.resources, names)})"
            for task_id, run in sorted(facts.runs.items())
            if task_id in self.stuck and any(name in names for name, _ in run.resources)
        ]
        more = f" and {len(holders) - 4} more" if len(holders) > 4 else ""
        return (
            f"Task {victim.name} asks for {_amounts(victim.key[0], names)}, but what there is of it is held by tasks "
            f"that wait, themselves or by others, for tasks that need it: {', '.join(holders[:4])}{more}. A task gives "
            f"back its cores while it waits, and nothing else. Let what it waits for ask for nothing that it holds "
            f"itself, let it return the ref instead of waiting, or give the ranks more with --resources or "
            f"init(resources=...)."
        )


def _amounts(resources: tuple[tuple[str, int], ...], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {amount / RESOURCE_UNIT:g}" for name, amount in resources if name in names)
