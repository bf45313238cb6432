"""No rank outlives the process that started it, whatever becomes of that process, and its remains do not either."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Container
from contextlib import suppress
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel for this signal at the death of the parent (of a launcher, a launch daemon, or a proxy of one).

    The kernel knows about the thread that made this process, and the setting does not pass to children.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


class ParentWatch:
    """Tells whether the parent has changed, for kernels and containers in which the signal does not come."""

    def __init__(self) -> None:
        """Remember the parent; to be made as early as possible."""
        self._parent = os.getppid()

    def is_orphaned(self) -> bool:
        """Whether the parent has died since."""
        return os.getppid() != self._parent


def adopt_orphans(is_wanted: bool) -> None:
    """Be the parent of all descendants whose own one has ended, in place of process 1, or be it no more.

    A process is there until its parent has heard of its end. Process 1 of some containers takes its time to hear of it,
    or never does.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(is_wanted), 0, 0, 0)


def bury_orphans(own: Container[int]) -> None:
    """Hear of all children that have ended, up to the first of these own ones, of which somebody else wants to hear."""
    with suppress(ChildProcessError):  # There are no children.
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in own:
                return
            os.waitpid(ended.si_pid, 0)
