"""Unfinished files: what is being written has no name in its folder before it is whole, however its writer ends.

Linux has files without a name, which are gone when the last process that has them open ends, by whatever signal, and
which can be given a name. Not every file system can do that (NFS cannot). There the file has a name beside the one
that was asked for, and is removed in the end: only a writer that is killed leaves it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from typing import Final

#: What there is of an open file in the file system.
_OPEN_FILES: Final = "/proc/self/fd"


class Unfinished:
    """A file that is going to have a path, or whose content goes into the file that has it.

    Used with ``with``, after which nothing is left of what was neither given its place nor kept.

    Attributes:
        path: Where it can be opened meanwhile, by this process.
        driver: The driver of HDF5 that can do that.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        # In the same folder, so on the same disk.
        self._name = f"{target}.{uuid.uuid4().hex[:8]}.unfinished"
        self._descriptor = _open_nameless(os.path.dirname(target))
        self._is_kept = False
        self.path = self._name if self._descriptor is None else f"{_OPEN_FILES}/{self._descriptor}"
        # The usual driver wants to know what the name of an open file stands for, and this one stands for no other.
        self.driver = None if self._descriptor is None else "stdio"

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        if not self._is_kept:
            with suppress(FileNotFoundError):  # It may have had no name, or have been renamed.
                os.unlink(self._name)

    def take_place(self) -> bool:
        """Make it the file that was asked for, unless there is one; returns whether it is that."""
        try:
            self._link(self._target)  # Which spares a file that somebody else has made meanwhile.
        except FileExistsError:
            return False
        except OSError:  # Not every file system has links.
            if os.path.exists(self._target):
                return False
            os.rename(self.keep(), self._target)
        return True

    def keep(self) -> str:
        """Have it stay under a name of its own, which is returned."""
        if self._descriptor is not None and not self._is_kept:
            try:
                self._link(self._name)
            except OSError:
                shutil.copyfile(self.path, self._name)
        self._is_kept = True
        return self._name

    def clear(self) -> None:
        """Give the room of what was written back."""
        os.truncate(self.path, 0)

    def _link(self, name: str) -> None:
        # An absolute path has no use for the descriptor of a folder; but only with one does Python ask for the file
        # that a symbolic link leads to.
        os.link(self.path, name, src_dir_fd=self._descriptor, follow_symlinks=True)


def _open_nameless(folder: str) -> int | None:
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError:  # If something else is wrong than this kind of file, the named one will tell.
        return None
    if os.path.exists(f"{_OPEN_FILES}/{descriptor}"):
        return descriptor
    os.close(descriptor)
    return None
