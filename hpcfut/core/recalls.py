"""Recalls: tasks that have not started give way to who needs the memory that their arguments are in."""

from __future__ import annotations

from hpcfut.core.context import Context
from hpcfut.core.copies import Copies
from hpcfut.core.copy import LOCAL, Copy
from hpcfut.core.pressure import N_PATIENCES, Pressure
from hpcfut.core.run import FETCHING, READY
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.transfers import Transfers


class Recalls:
    """What runs do about a full store, here or on another rank of the host."""

    def __init__(
        self,
        context: Context,
        copies: Copies,
        pressure: Pressure,
        transfers: Transfers,
        scheduler: Scheduler,
        runs: Runs,
    ) -> None:
        self._context = context
        self._keeps_after_s = (1 + context.rank % N_PATIENCES) * context.config.store_full_after_s
        self._transfers = transfers
        self._scheduler = scheduler
        self._runs = runs
        #: Since when tasks have been giving way that have not had all their arguments together in between.
        self._since: dict[int, float] = {}
        copies.on_pinned = self.give_way
        pressure.hand_back = self.hand_back_waiting

    def give_way(self, copy: Copy) -> None:
        """A holder wants its memory back: runs that have not started wait for it anew, if nobody else uses it.

        They would else keep tasks on other ranks from coming to an end. The one of them that has given way for longest
        keeps what it has in the end, because two could else give way to each other for ever, and so could two arguments
        of one. It does so later on one rank than on the other, so that not too many do.
        """
        waiting = [
            (run, n)
            for run in self._runs.runs.values()
            if run.state in (FETCHING, READY) and (n := run.copies.count(copy))
        ]
        if sum(n for _, n in waiting) != copy.n_pins:
            return
        now, runs = self._context.now, self._runs.runs
        since = {task_id: at for task_id, at in self._since.items() if task_id in runs and runs[task_id].n_missing}
        self._since = since = {run.task_id: now for run, _ in waiting} | since
        longest = min(since, key=lambda task_id: (since[task_id], task_id))
        if now - since[longest] >= self._keeps_after_s and any(run.task_id == longest for run, _ in waiting):
            return
        self._transfers.ask_again(copy)
        if copy.watchers is None:
            copy.watchers = {}
        for run, _ in waiting:
            if run.task_id in copy.watchers:
                continue  # It has not even been told that the copy was here.
            copy.watchers[run.task_id] = None
            run.n_missing += 1
            if run.state == READY:
                run.room.remove_ready(run)
                run.state = self._runs.next[READY, "fetch again"]

    def hand_back_waiting(self, first: Copy) -> bool:
        """Hand back what waits with arguments in memory, but for who waits for ``first``; gives whether any did."""
        kept = first.watchers or {}
        waiting = [
            run
            for run in self._runs.runs.values()
            if run.state in (FETCHING, READY) and run.lease_id and run.task_id not in kept
            if any(copy.state == LOCAL for copy in run.copies)
        ]
        for run in waiting:
            if run.state == READY:
                self._scheduler.remove_ready(run)
        self._runs.hand_back(waiting)
        return bool(waiting)
