"""The life of one task, and of one call of an actor: where each microsecond of a round trip goes.

    hpcfut run -n 2 benchmarks/task_life.py

Tasks go to rank 1 one at a time, and calls to an actor there in turn with them. Both ranks, which have one clock, note
when each frame is handed to MPI and when it is taken from it, the task notes when it runs, and the driver when it calls
and has the value. A note takes 0.1 µs.
"""

from __future__ import annotations

import statistics
import time
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Any

from common import append_json_line, describe_spread, hash_of, parse_options, print_table
from frame_notes import Notes, note_frames, take_notes

import hpcfut

EXECUTOR = 1
STEPS = (
    ("remote() called", "task handed to MPI"),
    ("task handed to MPI", "task taken from MPI"),
    ("task taken from MPI", "task's code begins"),
    ("task's code begins", "task's code ends"),
    ("task's code ends", "result handed to MPI"),
    ("result handed to MPI", "result taken from MPI"),
    ("result taken from MPI", "get() returns"),
)


def stamped(number: int) -> tuple[float, int, float]:
    """A task that does little but look at the clock."""
    return time.perf_counter(), number + 1, time.perf_counter()


class Actor:
    """The same as a method."""

    def stamped(self, number: int) -> tuple[float, int, float]:
        return stamped(number)


def round_trips(task: Any, n_trips: int) -> list[tuple[float, float, float, float]]:
    """When each call was made, the task began and ended, and the value was there."""
    trips = []
    for number in range(n_trips):
        called = time.perf_counter()
        began, value, ended = hpcfut.get(task.remote(number))
        trips.append((called, began, ended, time.perf_counter()))
        if value != number + 1:
            raise RuntimeError(f"Task {number} gave {value}.")
    return trips


def last_before(stamps: list[float], moment: float) -> float:
    """The last of these moments before another."""
    return stamps[bisect_left(stamps, moment) - 1]


def first_after(stamps: list[float], moment: float) -> float:
    """The first of these moments after another."""
    return stamps[bisect_right(stamps, moment)]


def lives(trips: list[tuple[float, float, float, float]], here: Notes, there: Notes) -> list[list[float]]:
    """Microseconds of every step of every task."""
    found = []
    for called, began, ended, had in trips:
        taken = last_before(there.taken, began)
        sent = last_before(here.handed, taken)
        answered = first_after(there.handed, ended)
        heard = first_after(here.taken, answered)
        moments = (called, sent, taken, began, ended, answered, heard, had)
        if list(moments) == sorted(moments):  # Or else a frame of another kind came in between.
            found.append([(after - before) * 1e6 for before, after in pairwise(moments)])
    return found


def main() -> None:
    """Measures several rounds of round trips."""
    options = parse_options("Where each microsecond of a task goes.", n_rounds=9)
    nodes = hpcfut.nodes()
    if len(nodes) != 2 or nodes[0]["Host"] != nodes[1]["Host"]:
        raise SystemExit("This needs 2 ranks on one host: hpcfut run -n 2 benchmarks/task_life.py")
    there = {"scheduling_strategy": hpcfut.NodeAffinitySchedulingStrategy(EXECUTOR)}
    actor = hpcfut.remote(**there)(Actor).remote()
    kinds = {"a task": hpcfut.remote(stamped).options(**there), "an actor call": actor.stamped}
    note, take = (hpcfut.remote(function).options(**there) for function in (note_frames, take_notes))
    n_trips = 50 if options.small else 2000
    for thing in kinds.values():
        round_trips(thing, n_trips)  # A warm-up.
    note_frames()
    hpcfut.get(note.remote())
    names = [*(f"{before} → {after}, µs" for before, after in STEPS), "the whole round trip, µs"]
    steps: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in names} for kind in kinds}
    for _ in range(options.rounds):
        for kind, thing in kinds.items():
            trips = round_trips(thing, n_trips)
            found = lives(trips, take_notes(), hpcfut.get(take.remote()))
            if len(found) < n_trips // 2:
                raise RuntimeError(f"Of {n_trips} round trips of {kind} only {len(found)} could be followed.")
            medians = [statistics.median(step) for step in zip(*found, strict=True)]
            medians.append(statistics.median((had - called) * 1e6 for called, _, _, had in trips))
            for values, median in zip(steps[kind].values(), medians, strict=True):
                values.append(median)
    print_table(
        [("one at a time, median (smallest to largest)", *kinds)]
        + [(name, *(describe_spread(steps[kind][name], ".1f") for kind in kinds)) for name in names]
    )
    figures = {f"{kind}: {name}": values for kind, medians_of in steps.items() for name, values in medians_of.items()}
    print(f"result hash {hash_of([n_trips, list(figures)])}")
    append_json_line(options.output, benchmark="task_life", figures=figures)


if __name__ == "__main__":
    main()
