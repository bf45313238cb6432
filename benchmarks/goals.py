"""What has to be reached: each row of the table is a figure or a ratio, with its must and its goal."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from measures import (
    ACTOR_ASYNC,
    ACTOR_SYNC,
    ASYNC_ACTOR_ASYNC,
    GET_10K_REFS,
    GET_CALLS,
    N_N_WITH_ARG,
    PING_PONG,
    PUT_CALLS,
    TASKS_ASYNC,
    TASKS_SYNC,
    WAIT_1K_REFS,
)

N_PING_PONGS_MAX = 6.0


@dataclass
class Found:
    """All values of a run."""

    #: System → measure → operations a second, round by round.
    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    #: Figures of hpcfut's own benchmarks, round by round.
    figures: dict[str, list[float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    #: Of the results, of each system's last round; the same every time in the small size.
    hashes: dict[str, str] = field(default_factory=dict)
    #: What cannot be measured here, and why.
    missing: dict[str, str] = field(default_factory=dict)
    #: What should have been measured and failed, and how.
    failed: dict[str, str] = field(default_factory=dict)

    def figure(self, name: str) -> float | None:
        """The median of the rounds."""
        values = self.figures.get(name)
        return statistics.median(values) if values else None

    def rate(self, system: str, measure: str) -> float | None:
        """The median of the rounds."""
        values = self.rates.get(system, {}).get(measure)
        return statistics.median(values) if values else None

    def ratio(self, system: str, other: str, measure: str, of: str | None = None) -> float | None:
        """The median of the ratios of the rounds."""
        above = self.rates.get(system, {}).get(measure, [])
        below = self.rates.get(other, {}).get(of or measure, [])
        ratios = [a / b for a, b in zip(above, below, strict=False)]
        return statistics.median(ratios) if ratios else None


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    title: str
    value_of: Callable[[Found], float | None]
    must: float
    goal: float | None = None
    unit: str = ""
    #: Whether less is better.
    is_cost: bool = False

    def is_reached(self, value: float, bound: float) -> bool:
        """Whether the value is as good as this."""
        return value <= bound if self.is_cost else value >= bound

    def describe(self, bound: float | None) -> str:
        """A must or a goal, as text."""
        return "" if bound is None else f"{'≤' if self.is_cost else '≥'} {bound:g}{self.unit}"


def _ratio(title: str, measure: str, other: str, must: float, goal: float | None = None) -> Row:
    unit = "" if other == "bare" else " ×"
    name = {"bare": "the bare mpi4py loop", "ray": "Ray", "charm4py": "charm4py's pool"}[other]
    if other == "charm4py" and measure == ACTOR_SYNC:
        name = "charm4py's chares"
    return Row(f"{title}, of {name}", lambda found: found.ratio("hpcfut", other, measure), must, goal, unit)


def _figure(title: str, name: str, must: float, goal: float | None, unit: str, *, is_cost: bool = True) -> Row:
    return Row(title, lambda found: found.figure(name), must, goal, unit, is_cost)


def _answers(where: str) -> list[Row]:
    """Rows of the kind of user code that keeps others waiting longest; `busy.py` names the figures."""

    def worst(statistic: str) -> Callable[[Found], float | None]:
        def value_of(found: Found) -> float | None:
            wanted = f" {statistic} ms, {where}"
            medians = [
                statistics.median(values)
                for name, values in found.figures.items()
                if name.startswith("answer, ") and name.endswith(wanted)
            ]
            return max(medians, default=None)

        return value_of

    title = f"get of an inline object whose owner is busy, {where}, the worst kind of code"
    return [
        Row(f"{title}, median", worst("median"), 2, 1, " ms", is_cost=True),
        Row(f"{title}, p95", worst("p95"), 4, None, " ms", is_cost=True),
        _figure(f"system calls of the user's cut short, {where}", f"system calls cut short, {where}", 0, None, ""),
    ]


def _costs(where: str) -> list[Row]:
    """Rows of what answering costs the user's Python, if nobody asks."""
    title, name = "cost of answering, of the user's Python", "cost of the driver's Python"
    return [
        _figure(f"{title}, {when}, {where}", f"{name}, {when}, %, {where}", 4, 2, " %")
        for when in ("settled session", "first 100 ms of a session")
    ]


ROWS: tuple[Row, ...] = (
    Row(
        "ping-pongs in a task of the bare loop",
        lambda found: found.ratio("bare", "bare", PING_PONG, TASKS_SYNC),
        N_PING_PONGS_MAX,
        is_cost=True,
    ),
    _ratio("tasks one at a time", TASKS_SYNC, "bare", 0.4, 0.55),
    _ratio("tasks with many in flight", TASKS_ASYNC, "bare", 0.7, 1.1),
    _ratio("tasks one at a time", TASKS_SYNC, "ray", 35, 60),
    _ratio("tasks with many in flight", TASKS_ASYNC, "ray", 45, 80),
    _ratio("tasks one at a time", TASKS_SYNC, "charm4py", 4, 7),
    _ratio("tasks with many in flight", TASKS_ASYNC, "charm4py", 4, 7),
    _ratio("actor calls one at a time", ACTOR_SYNC, "bare", 0.4, 0.55),
    _ratio("actor calls in flight", ACTOR_ASYNC, "bare", 0.7, 1.1),
    _ratio("actor calls one at a time", ACTOR_SYNC, "ray", 25, 40),
    _ratio("actor calls in flight", ACTOR_ASYNC, "ray", 22, 40),
    _ratio("actor calls one at a time", ACTOR_SYNC, "charm4py", 3, 5),
    _ratio("async actor calls in flight", ASYNC_ACTOR_ASYNC, "ray", 20),
    _ratio("n:n actor calls with a ref argument", N_N_WITH_ARG, "ray", 15),
    _ratio("put calls", PUT_CALLS, "ray", 15, 50),
    _ratio("get calls", GET_CALLS, "ray", 10, 25),
    _ratio("wait on 1k refs", WAIT_1K_REFS, "ray", 20, 40),
    _ratio("get of an object holding 10k refs", GET_10K_REFS, "ray", 5, 10),
    *_answers("one host"),
    *_answers("two hosts"),
    *_costs("one host"),
    *_costs("two hosts"),
    _figure("waiting worker", "waiting worker, % of a core", 1, 0.5, " % of a core"),
    _figure("driver in time.sleep", "driver in time.sleep, % of a core", 1, 0.5, " % of a core"),
    _figure("task to a rank idle for 100 ms", "task to an idle rank, median µs", 250, 120, " µs"),
    _figure("a queued task of a million", "bytes a queued task", 2000, 1000, " B"),
    _figure(
        "20,000 tasks of 1 ms, share of the ideal", "tasks of 1 ms, share of the ideal", 0.85, 0.95, "", is_cost=False
    ),
    _figure("1,000 actors created on 4 ranks and called once", "actors created and called, s", 1, None, " s"),
    _figure("import hpcfut", "import hpcfut, s", 0.15, None, " s"),
    _figure("get of 64 MiB, both ranks awake", "store: get, both awake, µs", 60, 15, " µs"),
    _figure("get of 64 MiB, the owner idle for 100 ms", "store: get, owner idle for 100 ms, µs", 250, 120, " µs"),
    _figure("get and first sum, of a private sum", "store: get and first sum, of a private sum", 1.6, 1.3, " ×"),
    _figure("second sum, of a private sum", "store: second sum, of a private sum", 1.1, 1.0, " ×"),
    _figure(
        "one object for all of 8 ranks on 2 hosts, bytes over the link, of the object",
        "readers: bytes over the link, of the object",
        1.1,
        None,
        " ×",
    ),
    _figure("put, of warm memcpy", "store: put, of a copy's bandwidth", 0.85, 0.95, "", is_cost=False),
    _figure(
        "64 MiB from a task to a consumer, of mpi4py.futures",
        "store: mpi4py.futures, of task to consumer",
        5,
        10,
        " ×",
        is_cost=False,
    ),
    _figure(
        "64 MiB built with empty, not read, of mpi4py.futures",
        "store: mpi4py.futures, of the same built with empty, not read",
        100,
        None,
        " ×",
        is_cost=False,
    ),
    _figure(
        "tasks with a stored argument, of tasks without",
        "store: tasks with a stored argument, of tasks without",
        0.8,
        None,
        "",
        is_cost=False,
    ),
    _figure("spilling, of plain files", "spill write and read, of plain", 0.7, 0.9, "", is_cost=False),
)


def judge(found: Found) -> list[dict[str, object]]:
    """Every row that was measured: its value, and whether must and goal are reached."""
    rows = []
    for row in ROWS:
        value = row.value_of(found)
        if value is not None:
            rows.append(
                {
                    "measure": row.title,
                    "value": value,
                    "must": row.describe(row.must),
                    "goal": row.describe(row.goal),
                    "is_must_reached": row.is_reached(value, row.must),
                    "is_goal_reached": row.goal is not None and row.is_reached(value, row.goal),
                }
            )
    return rows
