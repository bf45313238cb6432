"""What a rank has spilled to disk: files of several objects each, from which they come back one by one.

Nothing is mapped and no file has a name, so that a full disk is an error of the write, and nothing is left behind
however the job ends. A write has succeeded when its bytes are on the disk: until then whoever spills keeps the objects,
and network file systems tell of a full disk or a quota no earlier. Each object has a checksum of its own, which is
verified by the read that brings it back.

A process may have only so many files open. Above a number of them a file is shared by several writes; the room of what
is dropped from a file that still holds other objects is given back where the file system can do that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from hpcfut.edges.host.nameless_file import NamelessFile
from hpcfut.edges.host.spill_folder import SpillFolder
from hpcfut.model.errors import SpillError
from hpcfut.model.ids import name_of

_N_OPEN_MAX: Final = 256
#: File systems give back whole blocks only.
_NBYTES_BLOCK: Final = 4096


class SpillFile(msgspec.Struct, frozen=True):
    """Objects that were spilled together."""

    file_id: int
    nbytes: int


class _Extent(msgspec.Struct, frozen=True):
    """Where an object is in its file."""

    position: int
    nbytes: int
    checksum: int


class _Disk(msgspec.Struct):
    """A file that is open, while it holds objects or somebody works on it."""

    file: NamelessFile
    nbytes_end: int = 0
    n_holds: int = 0


class _Spilled(msgspec.Struct, frozen=True):
    """What one write has left."""

    disk: _Disk
    extents: dict[int, _Extent]


class SpillFiles:
    """The spilled objects of a rank.

    Every method may be called by several threads at a time. All of them but the properties may take as long as the
    disk does, so that they belong on threads that hold no lock.
    """

    def __init__(self, folder: SpillFolder, n_open_max: int = _N_OPEN_MAX) -> None:
        """Use the files of this folder; the first write opens one."""
        self.folder = folder
        self._n_open_max = n_open_max
        self._lock = threading.Lock()
        self._spilled: dict[int, _Spilled] = {}
        self._open: list[_Disk] = []
        self._n_ever = 0
        self._is_closed = False

    def write(self, parts: Sequence[tuple[int, memoryview]]) -> SpillFile:
        """Write objects, each with its id, to one file, and come back when they are on the disk.

        Raises:
            SpillError: There is no room, or the folder cannot be written to. Nothing of these objects is left on the
                disk, and what was spilled before is untouched.
        """
        if not parts or len(dict(parts)) < len(parts):
            raise ValueError("No object, or one twice, was to be written to a spill file. This is a bug in hpcfut.")
        views = [(object_id, data.cast("B")) for object_id, data in parts]
        nbytes = sum(data.nbytes for _, data in views)
        if self.folder.trouble:
            raise SpillError(self.folder.trouble)
        try:
            disk, position = self._hold_for_write(nbytes)
        except OSError as error:
            raise self._refusal(len(views), nbytes, error) from error
        start, extents = position, dict[int, _Extent]()
        try:
            for object_id, data in views:
                extents[object_id] = _Extent(position, data.nbytes, disk.file.write(position, data))
                position += data.nbytes
            disk.file.flush()
        except BaseException as error:  # Whatever it is, no file keeps room for what was not written.
            self._release(disk, start, nbytes)
            if isinstance(error, OSError):
                raise self._refusal(len(views), nbytes, error) from error
            raise
        with self._lock:
            if not self._is_closed:
                self._n_ever += 1
                self._spilled[self._n_ever] = _Spilled(disk, extents)
                # The hold of the writing thread goes over to the first object.
                disk.n_holds += len(extents) - 1
                return SpillFile(self._n_ever, nbytes)
        self._release(disk, start, nbytes)
        raise SpillError("Objects were to be spilled in a session that is over.")

    def read(self, file_id: int, object_id: int, target: memoryview) -> None:
        """Bring an object back; it stays in its file until it is dropped.

        Args:
            file_id: What ``write`` gave.
            object_id: One of the objects that were written then.
            target: Room of the size of the object; what is in it after an error means nothing.

        Raises:
            SpillError: The disk does not give the bytes back, or not those that were written.
        """
        with self._lock:
            spilled, extent = self._find(file_id, object_id)
            disk = spilled.disk
            disk.n_holds += 1
        try:
            if target.nbytes != extent.nbytes:
                raise ValueError(
                    f"Object {name_of(object_id)} was to be read into {target.nbytes} bytes, and it has "
                    f"{extent.nbytes}. This is a bug in hpcfut."
                )
            checksum = disk.file.read(extent.position, target.cast("B"))
        except OSError as error:
            raise SpillError(
                f"Object {name_of(object_id)} cannot be read back from spill file {file_id} in {self.folder.path}: "
                f"{error.strerror}. The disk or its connection is faulty; name another folder with "
                f"init(spill_folder=...)."
            ) from error
        finally:
            self._release(disk)
        if checksum != extent.checksum:
            raise SpillError(
                f"Object {name_of(object_id)} in spill file {file_id} in {self.folder.path} is damaged: its "
                f"{extent.nbytes} bytes are not those that were written (checksum {checksum:016x}, and not "
                f"{extent.checksum:016x}). The disk or its connection is faulty; name another folder with "
                f"init(spill_folder=...)."
            )

    def drop(self, file_id: int, object_id: int) -> None:
        """Forget an object, and give its room back; the last one of a file takes the file with it."""
        with self._lock:
            if self._is_closed:
                return
            spilled, extent = self._find(file_id, object_id)
            del spilled.extents[object_id]
            if not spilled.extents:
                del self._spilled[file_id]
        self._release(spilled.disk, extent.position, extent.nbytes)

    def close(self) -> None:
        """Forget everything; what is being written or read ends by itself."""
        with self._lock:
            self._is_closed = True
            held = [spilled.disk for spilled in self._spilled.values() for _ in spilled.extents]
            self._spilled.clear()
        for disk in held:
            self._release(disk)

    @property
    def n_files(self) -> int:
        """Files that are open now."""
        return len(self._open)

    def _hold_for_write(self, nbytes: int) -> tuple[_Disk, int]:
        """A file, and where in it these bytes go; with a hold on it."""
        with self._lock:
            is_shared = len(self._open) >= self._n_open_max
            disk = min(self._open, key=lambda disk: disk.n_holds) if is_shared else None
            if disk is not None:
                return disk, self._take_room(disk, nbytes)
        disk = _Disk(NamelessFile(self.folder.path))
        with self._lock:
            self._open.append(disk)
            return disk, self._take_room(disk, nbytes)

    def _take_room(self, disk: _Disk, nbytes: int) -> int:
        start = -(-disk.nbytes_end // _NBYTES_BLOCK) * _NBYTES_BLOCK
        disk.nbytes_end = start + nbytes
        disk.n_holds += 1
        return start

    def _release(self, disk: _Disk, position: int = 0, nbytes: int = 0) -> None:
        """Give a hold back, and with it the room of these bytes."""
        if nbytes and disk.n_holds > 1:
            disk.file.give_room_back(position, nbytes)
        with self._lock:
            disk.n_holds -= 1
            if disk.n_holds:
                return
            self._open.remove(disk)
        disk.file.close()

    def _find(self, file_id: int, object_id: int) -> tuple[_Spilled, _Extent]:
        spilled = self._spilled.get(file_id)
        if spilled is None or object_id not in spilled.extents:
            raise KeyError(f"Object {name_of(object_id)} is not in spill file {file_id}. This is a bug in hpcfut.")
        return spilled, spilled.extents[object_id]

    def _refusal(self, n_objects: int, nbytes: int, error: OSError) -> SpillError:
        try:
            found = os.statvfs(self.folder.path)
            free = f"{found.f_bavail * found.f_frsize} bytes are free there"
        except OSError:
            free = "the free space there is not known"
        return SpillError(
            f"{n_objects} objects of {nbytes} bytes cannot be spilled to {self.folder.path}: {error.strerror}; {free}. "
            f"Nothing that was stored is lost. Make room there, raise your quota, or name another folder with "
            f"init(spill_folder=...)."
        )
