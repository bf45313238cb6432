"""Measures hpcfut and its peers in turn, in one run.

    python benchmarks/run.py --output FOLDER                                    everything, half an hour
    python benchmarks/run.py --systems bare hpcfut --measures tasks --must      how far from the floor, a minute
    python benchmarks/run.py --small                                            a check of the results

Each round starts one system after the other, so that nothing else runs while one is measured. Then come the benchmarks
that only hpcfut has. The folder gets results.json with all values, table.md and chart.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from adapters import SYSTEMS, System
from common import hash_of
from goals import Found
from jobs import BENCHMARKS, JobFailedError, program, run_command
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
from report import write_report

#: What can be asked for of every system.
GROUPS = {
    "tasks": (TASKS_SYNC, TASKS_ASYNC, PING_PONG),
    "actors": (ACTOR_SYNC, ACTOR_ASYNC, ASYNC_ACTOR_ASYNC, N_N_WITH_ARG),
    "calls": (PUT_CALLS, GET_CALLS, WAIT_1K_REFS, GET_10K_REFS),
}
SYSTEM_TIMEOUT_S = 300.0
QUIET_LOAD = 0.3


def measure_system(system: System, measures: list[str], found: Found, options: argparse.Namespace) -> None:
    """One round of one system."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        words = ["--output", str(output), "--seconds", str(options.seconds), *(["--small"] if options.small else [])]
        command = system.command_line(*words, "--measures", *measures)
        run_command([program(command[0]), *command[1:]], SYSTEM_TIMEOUT_S)
        result = json.loads(output.read_text(encoding="utf-8"))
    found.versions[system.name] = result["version"]
    for name, rate in result["rates"].items():
        found.rates.setdefault(system.name, {}).setdefault(name, []).append(rate)
    said = ", ".join(f"{name} {rate:,.4g}/s" for name, rate in result["rates"].items())
    print(f"  {system.name}: {said}", flush=True)
    found.hashes[system.name] = result["hash"]


def measure_systems(names: list[str], measures: list[str], found: Found, options: argparse.Namespace) -> None:
    """All rounds: A B C A B C, and so on. What cannot be measured or fails is left out."""
    systems = [SYSTEMS[name] for name in names]
    for system in systems:
        if reason := system.reason_against():
            found.missing[system.name] = reason
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", flush=True)
        for system in systems:
            if system.name in found.missing or system.name in found.failed:
                continue
            try:
                measure_system(system, measures, found, options)
            except JobFailedError as error:
                found.failed[system.name] = str(error)
                found.rates.pop(system.name, None)


def measure_benchmarks(names: list[str], found: Found, *, is_small: bool) -> None:
    """Those of hpcfut alone, which know their own rounds."""
    for name in names:
        benchmark = BENCHMARKS[name]
        if reason := benchmark.reason_against():
            found.missing[name] = reason
            continue
        print(f"{name} …", flush=True)
        try:
            figures, found.hashes[name] = benchmark.run(is_small=is_small)
            found.figures |= figures
        except JobFailedError as error:
            found.failed[name] = str(error)


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Measures hpcfut and its peers in turn.")
    everything = [*GROUPS, *BENCHMARKS]
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--measures", nargs="*", choices=everything, default=everything)
    parser.add_argument("--rounds", type=int, default=7, help="of the systems in turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measure of each system in a round")
    parser.add_argument("--small", action="store_true", help="a check of the results, whose figures mean nothing")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where results.json, table.md, chart.png go")
    parser.add_argument("--must", action="store_true", help="fail where a must is missed")
    options = parser.parse_args()
    if options.small:
        options.rounds = 1
    return options


def main() -> None:
    """Measures, writes, and with --must judges."""
    options = parse()
    load = os.getloadavg()[0]
    if load > QUIET_LOAD and not options.small:
        print(f"Something else runs on this machine (load {load:.2f}), and figures will be off, both ways.")
    found = Found()
    measures = [name for group in GROUPS if group in options.measures for name in GROUPS[group]]
    if measures:
        measure_systems(options.systems, measures, found, options)
    measure_benchmarks([name for name in BENCHMARKS if name in options.measures], found, is_small=options.small)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        rows = write_report(folder, found, n_rounds=options.rounds, load=load, is_small=options.small)
        print((folder / "table.md").read_text(encoding="utf-8"))
    print(f"result hash {hash_of(found.hashes)}")
    for name, story in found.failed.items():
        print(f"{name} failed: {story}", file=sys.stderr)
    if found.failed:
        sys.exit(1)
    missed = [row for row in rows if not row["is_must_reached"]]
    if options.must and not options.small and missed:
        sys.exit("\n".join(f"Missed: {row['measure']} is {row['value']:.3g}, must: {row['must']}" for row in missed))


if __name__ == "__main__":
    main()
