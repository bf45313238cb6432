"""What the processes of every measured system run; `run.py` starts it, see `adapters`.

mpirun -n 2 python benchmarks/drive.py bare --output FILE
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from adapters import SYSTEMS, load
from measures import MEASURES, Check, rate_of


def main() -> None:
    """Measures one system once and writes what it found."""
    parser = argparse.ArgumentParser(description="Measures one system.")
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--measures", nargs="*", default=list(MEASURES), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measure")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    # charm4py leaves the arguments of its launcher.
    options, _ = parser.parse_known_args()
    adapter = load(options.system)

    def measure() -> None:
        check = Check(adapter.driver)
        calls = adapter.calls()
        rates = {
            name: rate_of(name, calls[name], check, options.seconds, options.small)
            for name in options.measures
            if name in calls
        }
        result = {"version": adapter.version(), "rates": rates, "hash": check.hash}
        options.output.write_text(json.dumps(result), encoding="utf-8")

    adapter.run(measure)


if __name__ == "__main__":
    main()
