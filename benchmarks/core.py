"""Events a second of the pure core, without MPI, threads and pickling:  python benchmarks/core.py

Two cores, a driver's and an executor's, in one thread. A message of a frame counts as one event, and so does each thing
that user code does. The tasks are bound to the executor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from common import append_json_line, describe_spread, hash_of, parse_options, print_table

from hpcfut.core.effects import Effect, RunTask, SendMessage, WakeWaiter
from hpcfut.core.events import (
    Event,
    FrameReceived,
    RefsReleased,
    RunReturned,
    TaskSubmitted,
    TemplateDefined,
    WaitStarted,
)
from hpcfut.core.rank import RankCore
from hpcfut.model.config import Config
from hpcfut.model.ids import first_id
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT, TaskTemplate
from hpcfut.wire.messages import Message, Result

#: So much virtual time passes in a turn.
TURN_S = 10e-6
BATCHES = (1, 64)
N_TASKS = 20_000


@dataclass
class Pair:
    """Both ranks, and what is between them."""

    cores: list[RankCore]
    now: float = 0.0
    n_events: int = 0
    mail: list[list[Message]] = field(default_factory=lambda: [[], []])
    runs: list[RunTask] = field(default_factory=list)
    woken: list[WakeWaiter] = field(default_factory=list)

    def turn(self, rank: int, events: list[Event], n_events: int) -> None:
        """One turn of a rank; its effects are sorted into lists."""
        self.now += TURN_S
        self.n_events += n_events
        self.cores[rank].turn(events, self.now, self.sort)

    def sort(self, effects: list[Effect]) -> None:
        """Perform effects."""
        for effect in effects:
            if isinstance(effect, SendMessage):
                self.mail[effect.rank].append(effect.message)
            elif isinstance(effect, RunTask):
                self.runs.append(effect)
            elif isinstance(effect, WakeWaiter):
                self.woken.append(effect)
            else:
                raise RuntimeError(f"The core gave {effect}, which no task of this benchmark needs.")

    def deliver(self) -> None:
        """Frames go to and fro, and tasks run, until nothing is under way."""
        while True:
            for rank in (1, 0):
                if messages := self.mail[rank]:
                    self.mail[rank] = []
                    self.turn(rank, [FrameReceived(1 - rank, 0, messages)], len(messages))
            if self.runs:
                runs, self.runs = self.runs, []
                for run in runs:
                    # A rank has one slot: the next task is given out when one has returned.
                    self.turn(1, [RunReturned(run.task_id, (Result(run.payload, len(run.payload)),))], 1)
            elif not any(self.mail):
                behind = [rank for rank in (0, 1) if self.cores[rank].context.put_off]
                if not behind:
                    return
                for rank in behind:
                    self.turn(rank, [], 0)


def make_pair() -> tuple[Pair, TaskTemplate]:
    """Two ranks of one CPU each, and a function that is bound to rank 1."""
    amounts = {"CPU": RESOURCE_UNIT}
    roster = [RankRecord(rank, 0, "host", "", 1 + rank, amounts) for rank in range(2)]
    pair = Pair([RankCore(rank, roster, Config(), is_driver=rank == 0, nbytes_store=0) for rank in range(2)])
    template = TaskTemplate(1, "task", b"", affinity=1)
    pair.turn(0, [TemplateDefined(template)], 1)
    return pair, template


def run(pair: Pair, template: TaskTemplate, ids: Any, n_tasks: int, n_batch: int) -> tuple[float, list[bytes]]:
    """Tasks in batches, each waited for and then dropped: seconds, and the values that came."""
    values: list[Any] = []
    started = time.perf_counter()
    for first in range(0, n_tasks, n_batch):
        made = [next(ids) for _ in range(min(n_batch, n_tasks - first))]
        events: list[Event] = [TaskSubmitted(i, template.template_id, b"%d" % i, (i,), (), (), 0) for i in made]
        events.append(WaitStarted(1, made, len(made), True, False, 0))
        pair.turn(0, events, len(events))
        pair.deliver()
        values += pair.woken.pop().values
        pair.turn(0, [RefsReleased(made)], 1)
        pair.deliver()
    return time.perf_counter() - started, values


def main() -> None:
    """Both sizes of batches in turn."""
    options = parse_options("Events a second of the pure core.", n_rounds=9)
    n_tasks = 500 if options.small else N_TASKS
    pair, template = make_pair()
    ids = count(first_id(0, 0) + 1)
    run(pair, template, ids, n_tasks // 4, 64)
    figures: dict[str, list[float]] = {}
    hashed = []
    for _ in range(options.rounds):
        for n_batch in BATCHES:
            before, first = pair.n_events, next(ids) + 1
            duration_s, values = run(pair, template, ids, n_tasks, n_batch)
            if values != [b"%d" % (first + number) for number in range(n_tasks)]:
                raise RuntimeError(f"{len(values)} values came back that are not those of the {n_tasks} tasks.")
            hashed.append(len(values))
            n_events = pair.n_events - before
            name = "one at a time" if n_batch == 1 else f"{n_batch} at a time"
            figures.setdefault(f"core events a second, {name}", []).append(n_events / duration_s)
            figures.setdefault(f"events a task, {name}", []).append(n_events / n_tasks)
            figures.setdefault(f"µs a task, {name}", []).append(duration_s / n_tasks * 1e6)
    print_table(
        [("both cores in one thread", "median (smallest to largest)")]
        + [(name, describe_spread(values, ",.1f")) for name, values in figures.items()]
    )
    print(f"result hash {hash_of(hashed)}")
    append_json_line(options.output, benchmark="core", figures=figures)


if __name__ == "__main__":
    main()
