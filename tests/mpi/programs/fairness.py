"""Owners share the ranks: one with very many tasks does not keep others waiting until its last one is done."""

from __future__ import annotations

import time

import hpcfut
from tests.mpi.support import on_rank

N_TASKS = 1500
TASK_S = 0.002


@hpcfut.remote
def compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@hpcfut.remote
def ask(n: int) -> None:
    for _ in range(n):
        hpcfut.get(compute.remote(TASK_S))


def case_single_tasks_have_their_turns_among_very_many(n_ranks: int) -> None:
    for task_s, n_tasks in ((TASK_S, N_TASKS), (0.03, 40 * n_ranks)):
        crowd = [compute.remote(task_s) for _ in range(n_tasks)]
        asking = [on_rank(ask, rank, num_cpus=0).remote(3) for rank in range(n_ranks)]
        waiting = list(asking)
        while waiting:
            _, waiting = hpcfut.wait(waiting)
        n_done = len(hpcfut.wait(crowd, num_returns=len(crowd), timeout=0)[0])
        assert n_done < 0.8 * n_tasks, f"All of {n_ranks} owners were served after {n_done} tasks of rank 0."
        hpcfut.get(asking + crowd)
