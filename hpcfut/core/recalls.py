"""Recalls: tasks that have not started give way to who needs the memory that their arguments are in."""

from __future__ import annotations

from hpcfut.core.copies import LOCAL, Copies, Copy
from hpcfut.core.pressure import Pressure
from hpcfut.core.run import FETCHING, READY
from hpcfut.core.runs import Runs
from hpcfut.core.scheduler import Scheduler
from hpcfut.core.transfers import Transfers


class Recalls:
    """What runs do about a full store, here or on another rank of the host."""

    def __init__(
        self, copies: Copies, pressure: Pressure, transfers: Transfers, scheduler: Scheduler, runs: Runs
    ) -> None:
        self._transfers = transfers
        self._scheduler = scheduler
        self._runs = runs
        copies.on_pinned = self.give_way
        pressure.hand_back = self.hand_back_waiting

    def give_way(self, copy: Copy) -> None:
        """A holder wants its memory back: runs that have not started wait for it anew, if nobody else uses it.

        They would else keep tasks on other ranks from coming to an end.
        """
        waiting = [
            (run, n)
            for run in self._runs.runs.values()
            if run.state in (FETCHING, READY) and (n := run.copies.count(copy))
        ]
        if sum(n for _, n in waiting) != copy.n_pins:
            return
        self._transfers.ask_again(copy)
        assert copy.watchers is not None
        for run, _ in waiting:
            copy.watchers[run.task_id] = None
            run.n_missing += 1
            if run.state == READY:
                self._scheduler.remove_ready(run)
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
