"""The folder that objects are spilled to: one on a disk, because a file in memory makes no room there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from hpcfut.edges.host.job_files import SCRATCH_VARIABLE

#: A rank that has been told no folder looks here; the folder may be another one on each host.
FOLDER_VARIABLE: Final = "HPCFUT_SPILL_FOLDER"
#: What there may be for temporary files, the job's own first.
_PARENT_VARIABLES: Final = (SCRATCH_VARIABLE, "SLURM_TMPDIR", "TMPDIR")
_IN_MEMORY: Final = ("devtmpfs", "hugetlbfs", "ramfs", "tmpfs")
_OVER_NETWORK: Final = (
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "pvfs2",
    "smb3",
    "wekafs",
)
_WHAT_TO_DO: Final = f"Name a folder on a disk with init(spill_folder=...) or {FOLDER_VARIABLE}."


class SpillFolder(msgspec.Struct, frozen=True):
    """A folder for spilled objects."""

    path: Path
    #: The name of its kind, as in ``ext4``; empty if it cannot be told.
    file_system: str
    #: The sentence that says why nothing can be spilled to it; empty if it can.
    trouble: str = ""


def find_spill_folder(chosen: str, environ: Mapping[str, str], root: Path = Path("/")) -> SpillFolder:
    """The folder that the user has chosen, or else the one on the nearest disk.

    A folder in memory is taken only if it was chosen: what is written there counts like the memory that it is to
    relieve, and a full one ends in the OOM killer.

    Args:
        chosen: The user's folder; empty if none was named to ``init``.
        environ: The environment of the rank.
        root: Where ``proc`` is.
    """
    chosen = chosen or environ.get(FOLDER_VARIABLE, "")
    if chosen:
        path = Path(chosen).expanduser().absolute()
        return _with_trouble(path, _file_system_of(path, root))
    parents = [environ[name] for name in _PARENT_VARIABLES if environ.get(name)]
    paths = [Path(parent).absolute() for parent in (*parents, tempfile.gettempdir(), "/var/tmp")]
    folders = [_with_trouble(path, _file_system_of(path, root)) for path in dict.fromkeys(paths)]
    nearest = min(folders, key=_distance)
    if not nearest.trouble and nearest.file_system in _IN_MEMORY:
        seen = ", ".join(str(folder.path) for folder in folders if not folder.trouble)
        trouble = (
            f"Objects cannot be spilled: all folders for temporary files ({seen}) are in memory, where files make no "
            f"room. {_WHAT_TO_DO}"
        )
        return msgspec.structs.replace(nearest, trouble=trouble)
    return nearest


def _with_trouble(path: Path, file_system: str) -> SpillFolder:
    if not os.path.isdir(path):
        reason = "is no folder that this user can reach"
    elif not os.access(path, os.W_OK | os.X_OK):
        reason = "may not be written to by this user"
    else:
        return SpillFolder(path, file_system)
    return SpillFolder(path, file_system, f"Objects cannot be spilled to {path}, which {reason}. {_WHAT_TO_DO}")


def _distance(folder: SpillFolder) -> int:
    if folder.trouble:
        return 3
    if folder.file_system in _IN_MEMORY:
        return 2
    return int(folder.file_system in _OVER_NETWORK or folder.file_system.startswith("fuse."))


def _file_system_of(path: Path, root: Path) -> str:
    """The kind of what is mounted where the path is; of several mounts on one folder the last one counts."""
    path = path.resolve()
    found, depth = "", -1
    try:
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        # Spaces and the like are written as octal numbers.
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), before.split()[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = after.split()[0], len(point.parts)
    return found
