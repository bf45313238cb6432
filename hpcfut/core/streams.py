"""Streams: generators that run on this rank, how far they are, and how far they may go."""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.effects import ResumeGenerator
from hpcfut.core.run import BLOCKED, RUNNING
from hpcfut.core.runs import Runs
from hpcfut.wire.messages import ItemYielded, Result, StreamCredit


class Streams:
    """What the runs of generators do besides starting and ending."""

    def __init__(self, context: Context, copies: Copies, runs: Runs) -> None:
        self._context = context
        self._copies = copies
        self._runs = runs

    def yielded(self, task_id: int, object_id: int, result: Result) -> None:
        """A generator made an item; id 0 means that the owner has it already."""
        run = self._runs.runs[task_id]
        run.n_items += 1
        run.item_ids = run.item_ids[1:]
        if run.is_disowned:
            if result.payload is None:
                self._copies.discard(object_id)
        elif object_id:
            self._runs.keep(run, object_id, result)
            self._context.send(run.owner, ItemYielded(task_id, object_id, result))

    def held_back(self, task_id: int) -> None:
        """A generator has used its credit: it gives its slot back until more comes."""
        run = self._runs.runs[task_id]
        if run.item_ids:
            # That it was resumed may have come before its code had begun, when there was nobody to hear it.
            self._context.count_stale("generator held back after credit had come")
            self._context.effects.append(ResumeGenerator(task_id, run.n_items, run.item_ids))
            return
        run.is_held_back = True
        self._runs.suspend(run)
        self._runs.dispatch()

    def on_credit(self, message: StreamCredit) -> None:
        """The owner allows further items."""
        run = self._runs.runs.get(message.task_id)
        if run is None:
            self._context.count_stale("credit for an ended generator")
            return
        position = run.n_items + len(run.item_ids)
        run.item_ids += message.item_ids
        if run.state not in (RUNNING, BLOCKED):
            return
        if run.is_held_back:
            run.is_held_back = False
            self._runs.go_on(run)
        self._context.effects.append(ResumeGenerator(message.task_id, position, message.item_ids))
