"""A process that cleans up after `hpcfut run` if that is killed, which no handler of its own could survive."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from hpcfut.cli.leftovers import Leftovers

#: The launcher of the ranks hears of the death as well, and tidies up what only it knows of.
_LAUNCHER_GRACE_S = 0.7


class Janitor:
    """Waits at the reading end of a pipe, whose other end closes with the process that holds it."""

    def __init__(self, leftovers: Leftovers) -> None:
        """Fork the janitor. To be made before any thread and any other child."""
        reading, self._writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._writing)
                _wait_and_clean(reading, leftovers)
                status = 0
            finally:
                os._exit(status)
        os.close(reading)

    def dismiss(self) -> None:
        """There is nothing left to clean up."""
        # Somebody may have ended it, and the end may have been heard of among those of others.
        with suppress(BrokenPipeError):
            os.write(self._writing, b"x")
        os.close(self._writing)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _wait_and_clean(reading: int, leftovers: Leftovers) -> None:
    # In a session of its own, and deaf to what a terminal or a batch system sends to all of the job at once.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whoever reads the output of the job must not wait for the janitor.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    if os.read(reading, 1):
        return
    # What the launcher does about the death meanwhile can be waited for, but not asked: it is no child of this process.
    time.sleep(_LAUNCHER_GRACE_S)
    leftovers.end_processes(0.0)
    leftovers.remove_files()
