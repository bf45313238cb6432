"""Notes that ranks leave in the scratch folder of their job for `hpcfut run`, which started them.

``mpirun`` may report success after a death, and names no rank on every MPI; so each rank says when it starts and when
it has ended, and rank 0 leaves the exit status of the script. Ranks on other hosts, which do not see the folder, leave
no notes.

The disk may fill up while the job runs, be it with what ranks have spilled. Room for the notes is kept from the start.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from hpcfut.edges.host.processes import start_ticks
from hpcfut.edges.host.segments import mapped_segments

#: Names of a job in the environment of its processes.
ID_VARIABLE: Final = "HPCFUT_JOB_ID"
SCRATCH_VARIABLE: Final = "HPCFUT_JOB_SCRATCH"
#: Of the file that a rank holds open for as long as it lives.
ALIVE_SUFFIX: Final = ".alive"
#: Of the note that the job was ended on purpose.
ABORT_NAME: Final = "aborted"
#: Of the note that from now on the job goes on when ranks die.
_SURVIVAL_NAME: Final = "survives"
#: Of the file to which a rank that has stalled writes where its threads are.
_STACKS_SUFFIX: Final = ".stacks"
#: A file that is given up when there is no room for a note, and its size: for each rank some blocks.
_RESERVE: Final = "reserve"
_NBYTES_RESERVE, _NBYTES_RESERVE_OF_RANK = 1 << 15, 1 << 14
#: Below the usual limit of 1024, and above what libraries open.
_HIGH_DESCRIPTOR: Final = 1000


class Status(msgspec.Struct, frozen=True):
    """How the script ended."""

    status: int
    #: For people, if there is more to say than the script's own output.
    sentence: str = ""


class RankNote(msgspec.Struct, frozen=True):
    """A rank that has started."""

    rank: int
    pid: int
    #: When the process started, in ticks since the boot; tells it from a later process with the same pid.
    started: int
    host: str


class JobFiles:
    """The notes in one scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> JobFiles | None:
        """The notes of the job that this process belongs to, if `hpcfut run` started it and they are in reach."""
        folder = environ.get(SCRATCH_VARIABLE, "")
        return cls(Path(folder)) if folder and os.access(folder, os.W_OK) else None

    def reserve(self, n_ranks: int) -> None:
        """Keep room for the notes of all ranks; before they start. Raises ``OSError`` if there is none."""
        (self.scratch / _RESERVE).write_bytes(bytes(_NBYTES_RESERVE + n_ranks * _NBYTES_RESERVE_OF_RANK))

    def note_start(self, rank: int) -> None:
        """Say that this process is a rank of the job, before MPI is initialised if the rank is known by then."""
        note = RankNote(rank, os.getpid(), start_ticks(os.getpid()), socket.gethostname())
        self._write(f"rank-{rank}.pid", msgspec.json.encode(note))
        path = self.scratch / f"rank-{rank}{ALIVE_SUFFIX}"
        alive = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Kernels put the files of a dying process away from the highest descriptor down; MPICH's launcher reads of the
        # death in the closing of another one, so that ours has to be above it.
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        high = fcntl.fcntl(alive, fcntl.F_DUPFD_CLOEXEC, min(_HIGH_DESCRIPTOR, limit // 2))
        os.close(alive)
        # Only the death of this process is to close it; a forked child would keep it open for longer.
        os.register_at_fork(after_in_child=lambda: os.close(high))

    def note_segments(self, rank: int) -> None:
        """Say which named shared segments are mapped here: a death leaves them behind. After MPI has started."""
        self._write(f"rank-{rank}.segments", "\n".join(mapped_segments(os.getpid())).encode())

    def note_end(self, rank: int) -> None:
        """Say that this rank has done its part and may exit; to be said after the last barrier."""
        self._write(f"rank-{rank}.ended", b"")

    def note_abort(self) -> None:
        """Say that this rank ends the whole job on purpose; other ranks die of it, and need not be named."""
        self._write(ABORT_NAME, b"")

    def was_aborted(self) -> bool:
        """Whether a rank has ended the whole job on purpose."""
        return (self.scratch / ABORT_NAME).exists()

    def note_survival(self) -> None:
        """Say that all ranks have met, and the job goes on from now on when one dies; by rank 0 alone."""
        self._write(_SURVIVAL_NAME, b"")

    def survives(self) -> bool:
        """Whether the job goes on when a rank dies that is not rank 0."""
        return (self.scratch / _SURVIVAL_NAME).exists()

    def write_status(self, status: int, sentence: str = "") -> None:
        """Leave the exit status of the script; by rank 0 alone."""
        self._write("status", msgspec.json.encode(Status(status, sentence)))

    def read_status(self) -> Status | None:
        """The exit status that rank 0 left, if it did."""
        try:
            return msgspec.json.decode((self.scratch / "status").read_bytes(), type=Status)
        except (OSError, msgspec.MsgspecError):
            return None

    def read_ranks(self) -> list[RankNote]:
        """The ranks that have started, in order."""
        notes = []
        for path in self.scratch.glob("rank-*.pid"):
            notes.append(msgspec.json.decode(path.read_bytes(), type=RankNote))
        return sorted(notes, key=lambda note: note.rank)

    def note_death(self, note: RankNote) -> None:
        """Say that a rank has died, and the job goes on; by rank 0 alone, which knows that of all hosts."""
        self._write(f"rank-{note.rank}.died", msgspec.json.encode(note))

    def read_deaths(self) -> list[RankNote]:
        """The ranks that rank 0 knows to have died."""
        notes = [msgspec.json.decode(path.read_bytes(), type=RankNote) for path in self.scratch.glob("rank-*.died")]
        return sorted(notes, key=lambda note: note.rank)

    def open_stacks(self, rank: int) -> int:
        """A descriptor for where the threads of this rank are when it has stalled."""
        path = self.scratch / f"rank-{rank}{_STACKS_SUFFIX}"
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def read_stacks(self) -> dict[int, str]:
        """What ranks have written there, by rank."""
        found = {}
        with os.scandir(self.scratch) as entries:
            for entry in entries:
                if entry.name.endswith(_STACKS_SUFFIX) and entry.stat().st_size:
                    rank = int(entry.name.removeprefix("rank-").removesuffix(_STACKS_SUFFIX))
                    found[rank] = Path(entry.path).read_text(errors="replace")
        return found

    def has_ended(self, rank: int) -> bool:
        """Whether the rank has said that it is done."""
        return (self.scratch / f"rank-{rank}.ended").exists()

    def read_segments(self) -> set[str]:
        """Shared segments that any rank has named."""
        found: set[str] = set()
        for path in self.scratch.glob("rank-*.segments"):
            found.update(path.read_text().split("\n"))
        return found - {""}

    def _write(self, name: str, data: bytes) -> None:
        # Renamed into place, so that nobody reads half a note; two ranks may leave the same one.
        part = self.scratch / f"{name}.{os.getpid()}.part"
        try:
            part.write_bytes(data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            with suppress(FileNotFoundError):
                (self.scratch / _RESERVE).unlink()
            part.write_bytes(data)
        part.rename(self.scratch / name)
