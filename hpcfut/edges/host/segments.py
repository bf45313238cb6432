"""The named shared segments through which ranks of one host talk, which a death would leave behind in memory.

MPICH and Open MPI give them a name so that the ranks find each other, and take the name away when MPI ends. A rank that
is killed never comes there: MPICH's launcher then leaves the segment where it is, and so does any launcher that is
killed itself. Once all ranks of the host have mapped them the names are of no use any more, and a segment without one
lives exactly as long as its last process.

A job may have to end while ranks still start. Those of this host are then stopped first, where they stand: a process
that cannot go on makes no further segment, and what it has made is seen in what it has mapped and holds open.

MPICH's launcher also writes down for its ranks what it knows of the machine, and leaves that file when it is killed.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

from hpcfut.edges.host.processes import children_of, is_still, program_of

SHARED_MEMORY: Final = "/dev/shm/"
#: What MPICH and Open MPI open by name only while they start; windows and other libraries are none of our business.
_OF_MPI: Final = re.compile(rf"{SHARED_MEMORY}(mpich_(shm|vci)_|sm_segment\.)[^/]*")
#: UCX, through which MPICH's ranks talk, takes its names away itself, an instant after it has made a segment.
_OF_A_START: Final = re.compile(rf"{_OF_MPI.pattern}|{SHARED_MEMORY}ucx_shm_posix_[^/]*")

#: The launcher holds it open while it lives; ranks read it while they start.
_TOPOLOGY: Final = re.compile(r"/tmp/hydra_hwloc_xmlfile_\w+")
_STOPPING_TAKES_S: Final = 1.0
#: The process of MPICH's launcher that starts the ranks of a host.
_PARENT: Final = "pmi_proxy"


def mapped_segments(pid: int) -> list[str]:
    """The named shared segments that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if SHARED_MEMORY in line}
    return sorted(path for path in paths if path.startswith(SHARED_MEMORY) and not path.endswith(" (deleted)"))


def topology_files(pid: int) -> list[str]:
    """The files in which a launcher of MPICH describes the machine; none for all other processes."""
    return sorted(path for path in _opened(pid) if _TOPOLOGY.fullmatch(path))


def _opened(pid: int) -> set[str]:
    found = set()
    # Other users' processes cannot be looked into, and are not ours.
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found


def stop_and_unname(launcher: int) -> None:
    """Stop the children of MPICH's launcher for good, and take away the names of what MPI has them share.

    To be done by who ends their job right after. Where a shell stands between the launcher and a rank, that may have
    started other things, which are let be.
    """
    if _PARENT not in program_of(launcher):
        return
    ranks = [pid for pid in children_of(launcher) if pid != os.getpid()]
    for pid in ranks:
        with suppress(OSError):
            os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _STOPPING_TAKES_S
    while not all(map(is_still, ranks)) and time.monotonic() < deadline:
        time.sleep(0.001)  # No child of this process: nobody tells when it has stopped.
    shared = {path for pid in ranks for path in (*mapped_segments(pid), *_opened(pid))}
    for path in filter(_OF_A_START.fullmatch, shared):
        with suppress(OSError):
            os.unlink(path)


class StartSegments:
    """What MPI has mapped in this process by the end of its start."""

    def __init__(self) -> None:
        """Look; to be made after MPI was initialised."""
        self._topology = topology_files(os.getppid())
        self._paths = [path for path in mapped_segments(os.getpid()) if _OF_MPI.fullmatch(path)]
        #: Equal on two ranks that have mapped the same segments.
        self.digest = blake2b("\n".join(self._paths).encode(), digest_size=16).digest()

    def unname(self, digests: Sequence[bytes]) -> None:
        """Take the names away, if all these ranks, which are those of this host, have mapped the same segments.

        Otherwise some rank may still have to open one by its name. The description of the machine was for their start.
        """
        for path in self._topology:
            with suppress(OSError):
                os.unlink(path)
        if any(digest != self.digest for digest in digests):
            return
        for path in self._paths:
            # Every rank of the host does it, because the first one may be killed before it has.
            with suppress(OSError):
                os.unlink(path)
