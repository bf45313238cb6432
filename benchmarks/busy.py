"""A rank that is busy in user code: how soon it answers, and what that costs the code.

    hpcfut run -n 2 benchmarks/busy.py
    python benchmarks/two_hosts.py benchmarks/busy.py       (root)

Rank 1 owns small objects, which travel inside messages, and runs a user's task; rank 0 gets one object
after the other at random moments. Each object is got once, so every `get` must ask the owner. The cost is
that of the driver's own pure Python code, with a session and without one, in turn in the same process.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from common import append_json_line, describe_spread, hash_of, parse_options, percentile, print_table
from user_code import CODES, run_python

import hpcfut

SEED = 20261121
GAP_MAX_S = 0.01
#: Asked before the figures begin.
N_WARM_UP = 3
#: So long the driver's code runs in one state before the next.
SLICE_S = 0.1
#: The tasks of a session before it settles.
N_TASKS = 1000

SPARE = "pure Python on a spare thread"

Refs = list["hpcfut.ObjectRef[int]"]


@hpcfut.remote
def own(n_objects: int) -> Refs:
    """Objects of the rank that runs this."""
    return [hpcfut.put(number) for number in range(n_objects)]


@hpcfut.remote
def be_busy(kind: str, duration_s: float) -> tuple[float, float, int, int]:
    """When it began and ended, its system calls, and those cut short."""
    began = time.monotonic()
    counted, n_cut = CODES[kind](began + duration_s)
    return began, time.monotonic(), counted, n_cut


@hpcfut.remote
def be_busy_elsewhere(rank: int, duration_s: float) -> tuple[float, float, int, int]:
    """The main thread waits in `get`, and the user's code runs on another one: a timeout forbids to run it here."""
    task = be_busy.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(rank))
    ended: tuple[float, float, int, int] = hpcfut.get(task.remote("pure Python", duration_s), timeout=duration_s + 60)
    return ended


def enough_for(duration_s: float) -> int:
    """More objects than can be asked for in this time."""
    return int(5 * duration_s / GAP_MAX_S) + 2 * N_WARM_UP


def ask(refs: Refs, duration_s: float, seed: int) -> list[tuple[float, float]]:
    """Gets one object after the other, at random moments of this time; when each was asked for, and when it was there.

    The first few are left out: the other side may not be busy yet.
    """
    gaps = random.Random(seed)
    answers: list[tuple[float, float]] = []
    until = time.monotonic() + duration_s
    for number, ref in enumerate(refs):
        time.sleep(gaps.uniform(0, GAP_MAX_S))
        started = time.monotonic()
        if started >= until:
            break
        value = hpcfut.get(ref)
        answers.append((started, time.monotonic()))
        if value != number:
            raise RuntimeError(f"Object {number} came back as {value!r}.")
    return answers[N_WARM_UP:]


@hpcfut.remote
def ask_driver(refs: Refs, duration_s: float, seed: int) -> list[tuple[float, float]]:
    """The same from rank 1, of the driver's objects."""
    return ask(refs, duration_s, seed)


def measure_answers(kind: str, duration_s: float, seed: int) -> tuple[list[float], int, int]:
    """Seconds of every answer that came while a busy task ran; its system calls, and those cut short."""
    there = hpcfut.NodeAffinitySchedulingStrategy(1)
    refs = hpcfut.get(own.options(scheduling_strategy=there).remote(enough_for(duration_s)))
    if kind == SPARE:
        task = be_busy_elsewhere.options(scheduling_strategy=there).remote(1, duration_s)
    else:
        task = be_busy.options(scheduling_strategy=there).remote(kind, duration_s)
    asked = ask(refs, duration_s, seed)
    began, ended, n_calls, n_cut = hpcfut.get(task)
    # Both hosts of the testbed have one clock, that of the machine.
    answers = [last - first for first, last in asked if began < first and last < ended]
    if len(answers) < duration_s / GAP_MAX_S / 10:
        raise RuntimeError(f"Of {len(asked)} answers only {len(answers)} came while '{kind}' ran.")
    return answers, n_calls, n_cut


def speed_of_python(duration_s: float) -> float:
    """Steps a second of the driver's own pure Python code."""
    started = time.monotonic()
    n_steps, _ = run_python(started + duration_s)
    return n_steps / (time.monotonic() - started)


def open_session() -> None:
    """And have something from the other rank, so that both are there."""
    hpcfut.init()
    hpcfut.get(own.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(1)).remote(1))


def lost(speeds: list[tuple[float, float]]) -> float:
    """The share of its speed that code loses, from pairs of its speed with and without what costs it."""
    return 1 - statistics.median(speed / bare for speed, bare in speeds)


def measure_fresh_cost(n_cycles: int, seed: int) -> tuple[float, float, list[float]]:
    """The share of its speed that the driver's code loses at the beginning of a session: unasked, and asked next.

    Code runs slower for a while after other code, such as that of a session's start, whether the session lasts or not.
    So there was a session just before each slice, also before one without. Beside these two, the answers' seconds.
    """
    there = hpcfut.NodeAffinitySchedulingStrategy(1)
    hpcfut.shutdown()
    unasked, asked = [], []
    answers: list[float] = []
    for number in range(n_cycles):
        open_session()
        hpcfut.shutdown()
        bare = speed_of_python(SLICE_S)
        open_session()
        unasked.append((speed_of_python(SLICE_S), bare))
        refs = [hpcfut.put(value) for value in range(enough_for(SLICE_S))]
        asker = ask_driver.options(scheduling_strategy=there).remote(refs, SLICE_S, seed + number)
        hpcfut.wait([asker], timeout=0.002)  # Hands it over.
        started = time.monotonic()
        asked.append((speed_of_python(SLICE_S), bare))
        ended = time.monotonic()
        answers += [last - first for first, last in hpcfut.get(asker) if started < first and last < ended]
        del refs, asker
        hpcfut.shutdown()
    hpcfut.init()
    return lost(unasked), lost(asked), answers


def measure_settled_cost(n_cycles: int, n_slices: int, settle_s: float) -> float:
    """The share of its speed that the driver's code loses to a session that is this old and has done tasks.

    Code runs faster for a while after a rest, so there is the same rest before each slice, with a session and without.
    """
    there = hpcfut.NodeAffinitySchedulingStrategy(1)
    hpcfut.shutdown()
    speeds: list[tuple[float, float]] = []
    for _ in range(n_cycles):
        open_session()
        hpcfut.get([own.options(scheduling_strategy=there).remote(1) for _ in range(N_TASKS)])
        time.sleep(settle_s)
        unasked = speeds_after_rests(n_slices)
        hpcfut.shutdown()
        time.sleep(settle_s)
        speeds += zip(unasked, speeds_after_rests(n_slices), strict=True)
    hpcfut.init()
    return lost(speeds)


def speeds_after_rests(n_slices: int) -> list[float]:
    """Of several slices, before each of which the driver rests as long as the slice takes."""
    speeds = []
    for _ in range(n_slices):
        time.sleep(SLICE_S)
        speeds.append(speed_of_python(SLICE_S))
    return speeds


def main() -> None:
    """Every kind of code in turn, then the cost, several rounds."""
    options = parse_options("Answers of a rank that is busy in user code.", n_rounds=5)
    hpcfut.init()
    nodes = hpcfut.nodes()
    if len(nodes) != 2:
        raise SystemExit(f"This needs 2 ranks and got {len(nodes)}: hpcfut run -n 2 benchmarks/busy.py")
    where = "one host" if len({node["Host"] for node in nodes}) == 1 else "two hosts"
    duration_s = 0.4 if options.small else 3.0
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(f"{name}, {where}", []).append(value)

    def note_answers(name: str, answers: list[float]) -> None:
        note(f"answer, {name}, median ms", statistics.median(answers) * 1e3)
        note(f"answer, {name}, p95 ms", percentile(answers, 0.95) * 1e3)

    there = hpcfut.NodeAffinitySchedulingStrategy(1)
    # The first one imports NumPy, which may take longer than the small size.
    hpcfut.get(be_busy.options(scheduling_strategy=there).remote("pure Python", 0.0))
    kinds: list[Any] = [*CODES, SPARE]
    n_sleeps = n_cut = 0
    for number in range(options.rounds):
        for kind in kinds:
            answers, n_calls, n_cut_now = measure_answers(kind, duration_s, SEED + number)
            note_answers(kind, answers)
            if kind == "a C library that sleeps":
                n_sleeps, n_cut = n_sleeps + n_calls, n_cut + n_cut_now
                note("system calls cut short", n_cut_now)
        settled = measure_settled_cost(*((1, 2, 0.1) if options.small else (5, 10, 2.0)))
        note("cost of the driver's Python, settled session, %", settled * 100)
        unasked, asked, answers = measure_fresh_cost(3 if options.small else 40, SEED + number)
        note("cost of the driver's Python, first 100 ms of a session, %", unasked * 100)
        note("cost of the driver's Python, the next 100 ms, asked every few ms, %", asked * 100)
        note_answers("pure Python of the driver", answers)
    print_table(
        [("a rank busy in user code", "median (smallest to largest)")]
        + [(name, describe_spread(values, ".2f")) for name, values in figures.items()]
    )
    print(f"{n_cut} of {n_sleeps} system calls of the C library were cut short.")
    print(f"result hash {hash_of([kinds, n_cut])}")
    append_json_line(options.output, benchmark="busy", where=where, figures=figures)


if __name__ == "__main__":
    main()
