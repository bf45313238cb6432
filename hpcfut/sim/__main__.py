"""``python -m hpcfut.sim [WORDS] [--states N] [--write FILE]``: explore small programs in every order of events.

``WORDS`` select the cases whose names hold them all; without any, those that the file names are explored, or all.
``--write`` puts the numbers of states into the file, in place of those it had for the same cases.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hpcfut.sim.cases import CASES, decode_counts, encode_counts
from hpcfut.sim.explorer import Counts
from hpcfut.sim.trace import SimulationError

#: More states than that are not visited, unless somebody asks for it.
N_STATES_MAX = 20_000


def main(arguments: list[str]) -> int:
    """Explore; gives the exit status: 1 if a case fails or has too many states."""
    parser = argparse.ArgumentParser(prog="python -m hpcfut.sim", description=__doc__)
    parser.add_argument("words", nargs="*", help="explore the cases whose names hold all of these")
    parser.add_argument("--states", type=int, default=N_STATES_MAX, help="visit not many more than so many of a case")
    parser.add_argument("--write", type=Path, help="the file of the numbers of states")
    options = parser.parse_args(arguments)
    known = decode_counts(options.write.read_bytes()) if options.write and options.write.exists() else {}
    names = [name for name in CASES if all(word in name for word in options.words)]
    if known and not options.words:
        names = [name for name in names if name in known]
    found: dict[str, Counts] = {}
    for name in names:
        counts = _explore(name, options.states)
        if counts is not None:
            found[name] = counts
    if options.write:
        kept = known | found
        options.write.write_bytes(encode_counts({name: kept[name] for name in CASES if name in kept}))
    return 0 if len(found) == len(names) else 1


def _explore(name: str, n_states_max: int) -> Counts | None:
    explorer = CASES[name].explorer()
    try:
        is_whole = explorer.explore(n_states_max)
    except SimulationError as error:
        print(f"{name}: {error}")
        return None
    counts = explorer.counts
    print(f"{name}: {'' if is_whole else 'more than '}{counts.n_states} states, {counts.n_actions} actions", flush=True)
    return counts if is_whole else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
