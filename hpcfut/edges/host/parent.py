"""No rank outlives the process that started it, whatever becomes of that process."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


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
