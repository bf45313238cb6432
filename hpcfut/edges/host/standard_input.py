"""Rank 0 reads what `hpcfut run` was given to read, without the launcher in between.

Open MPI's launcher does not tell rank 0 of the end of its input, so that a script that reads to the end waits for ever
(openpmix/openpmix#4024, in 5.0.11), and repeats parts of a long input (openpmix/prrte#2579). MPICH's launcher fails if
the input comes faster than rank 0 reads it.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcfut.edges.host.processes import start_ticks

#: The process whose input it is, as host, pid and start in ticks.
INPUT_VARIABLE: Final = "HPCFUT_INPUT"


def offered_input() -> str:
    """What to say of this process's input to rank 0, if that runs on this host; empty if it cannot be opened again."""
    try:
        os.close(_open_input("self"))
    except OSError:
        return ""
    return f"{socket.gethostname()} {os.getpid()} {start_ticks(os.getpid())}"


def take_input(environ: Mapping[str, str]) -> None:
    """Read from the offered input from now on; before anything has been read."""
    host, pid, started = environ.get(INPUT_VARIABLE, "- - -").split()
    # Another host may have a process of the same number.
    if host != socket.gethostname() or start_ticks(int(pid)) != int(started):
        return
    with suppress(OSError):
        descriptor = _open_input(pid)
        os.dup2(descriptor, 0)
        os.close(descriptor)


def _open_input(pid: str) -> int:
    # A terminal must not become the terminal of the rank's session.
    descriptor = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NOCTTY)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        # Somebody may have read a part of the file.
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/fdinfo/0").read_text().splitlines())
        os.lseek(descriptor, int(fields["pos"]), os.SEEK_SET)
    return descriptor
