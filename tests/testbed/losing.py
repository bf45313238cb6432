"""Loses the second host with the launch daemon there, as when its power fails."""

from __future__ import annotations

import os
import signal

import hpcfut

hpcfut.init()


@hpcfut.remote(max_retries=0)
def lose() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    while True:
        pass


last = len(hpcfut.nodes()) - 1
hpcfut.get(lose.options(scheduling_strategy=hpcfut.NodeAffinitySchedulingStrategy(last)).remote())
print("not reached")
