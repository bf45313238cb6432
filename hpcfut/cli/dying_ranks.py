"""What `hpcfut doctor` runs to see whether a job goes on when a rank dies: the last rank kills itself in a task.

Ends with status 0 if the others know, and still do tasks.
"""

from __future__ import annotations

import os
import signal
import sys

import hpcfut

#: The others may take so long to find out.
_WITHIN_S = 8.0


def die() -> None:
    """End this rank as the kernel does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Kill the last rank, and have the others do something."""
    last = len(hpcfut.nodes()) - 1
    doomed = hpcfut.remote(die).options(max_retries=0, scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(last))
    try:
        hpcfut.get(doomed.remote(), timeout=_WITHIN_S)
    except hpcfut.exceptions.WorkerCrashedError:
        hpcfut.get(hpcfut.remote(lambda: None).remote(), timeout=_WITHIN_S)
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
