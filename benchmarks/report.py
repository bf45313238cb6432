"""What a run leaves: results.json with all values, table.md and chart.png."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import describe_spread, describe_when
from goals import Found, judge
from measures import MEASURES, TASKS_ASYNC, TASKS_SYNC


def describe_machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "n_cores": len(os.sched_getaffinity(0)),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def write_report(folder: Path, found: Found, *, n_rounds: int, load: float, is_small: bool) -> list[dict[str, object]]:
    """Writes all three; gives the rows of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = judge(found)
    about = {
        **describe_when(),
        "command": " ".join(["python", *sys.argv]),
        "machine": describe_machine(),
        "load_before": load,
        "n_rounds": n_rounds,
        "is_small": is_small,
    }
    results = {**about, **asdict(found), "table": rows}
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(table_of(found, rows, about), encoding="utf-8")
    if reason := draw_chart(folder / "chart.png", found):
        print(f"There is no chart: {reason}")
    return rows


def table_of(found: Found, rows: Sequence[dict[str, object]], about: Mapping[str, Any]) -> str:
    """The tables in Markdown."""
    machine = about["machine"]
    lines = ["**The small size: these figures mean nothing.**", ""] if about["is_small"] else []
    lines += [
        f"{about['when']}, commit {about['commit']}, {machine['n_cores']} cores of {machine['cpu']}, "
        f"load {about['load_before']:.2f} before, {about['n_rounds']} rounds: `{about['command']}`",
        "",
        "| measure | value | must | goal | |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        verdict = "goal" if row["is_goal_reached"] else "must" if row["is_must_reached"] else "**missed**"
        lines.append(f"| {row['measure']} | {row['value']:.3g} | {row['must']} | {row['goal']} | {verdict} |")
    systems = [system for system in found.rates if found.rates[system]]
    if systems:
        lines += ["", f"| operations a second | {' | '.join(systems)} |", "|---" * (len(systems) + 1) + "|"]
        for measure in MEASURES:
            values = [found.rates[system].get(measure) for system in systems]
            if any(values):
                cells = [describe_spread(v, ",.0f" if min(v) > 100 else ",.2f") if v else "" for v in values]
                lines.append(f"| {measure} | {' | '.join(cells)} |")
    if found.figures:
        lines += ["", "| figure | median (smallest to largest) |", "|---|---|"]
        lines += [f"| {name} | {describe_spread(values, ',.3g')} |" for name, values in found.figures.items()]
    lines += ["", *(f"- {system}: {version}" for system, version in found.versions.items())]
    lines += [f"- not measured: {name}, because {reason}" for name, reason in found.missing.items()]
    lines += [f"- failed: {name}" for name in found.failed]
    return "\n".join(lines) + "\n"


def draw_chart(path: Path, found: Found) -> str | None:
    """Tasks a second of every system; the reason where it cannot be drawn."""
    systems = [name for name, rates in found.rates.items() if TASKS_SYNC in rates and TASKS_ASYNC in rates]
    if not systems:
        return "no tasks were measured."
    try:
        import matplotlib
    except ImportError:
        return 'matplotlib is not installed: pip install "hpcfut[bench]"'
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 0.6 + 0.45 * len(systems)), sharey=True)
    for panel, measure in zip(panels, (TASKS_SYNC, TASKS_ASYNC), strict=True):
        values = [found.rates[system][measure] for system in systems]
        medians = [statistics.median(rates) for rates in values]
        spreads = [
            [median - min(rates) for median, rates in zip(medians, values, strict=True)],
            [max(rates) - median for median, rates in zip(medians, values, strict=True)],
        ]
        colours = ["tab:red" if system == "hpcfut" else "tab:gray" for system in systems]
        bars = panel.barh(systems, medians, xerr=spreads, color=colours)
        panel.bar_label(bars, labels=[f"{median:,.0f}" for median in medians], padding=4, fontsize=8)
        panel.set_xscale("log")
        panel.set_xlim(10 ** math.floor(math.log10(min(map(min, values)))), 4 * max(map(max, values)))
        panel.set_title(f"{measure}, a second", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return None
