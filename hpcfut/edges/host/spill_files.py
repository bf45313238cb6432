"""What a rank has spilled to disk: files of several objects each, from which they come back one by one.

Nothing is mapped and no file has a name, so that a full disk is an error of the write, and nothing is left behind
however the job ends. A write has succeeded when its bytes are on the disk: until then whoever spills keeps the objects,
and network file systems tell of a full disk or a quota no earlier. Each object has a checksum of its own, which is
verified by the read that brings it back.

A process may have only so many files open. Above a number of them a file is shared by several writes; the room of what
is dropped from a file that still holds other objects is given back where the file system can do that. So that this is
all of its room, every object begins on a block of its own.

On a full disk, objects can be written in place of one that is there, whose bytes are in memory then until it goes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
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


class _Disk(msgspec.Struct, eq=False):
    """A file that is open, while it holds objects or somebody works on it."""

    file: NamelessFile
    nbytes_end: int = 0
    n_holds: int = 0


class _Extent(msgspec.Struct, frozen=True, eq=False):
    """Where an object is in which file; or its bytes, if its room there was given to others."""

    disk: _Disk
    position: int
    nbytes: int
    checksum: int
    kept: bytearray | None = None
    #: What is to be said to who reads it, if the bytes were not those that had been written.
    damage: str = ""


class _DamageError(SpillError):
    """The disk gives bytes, but not those that were written."""


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
        self._spilled: dict[int, dict[int, _Extent]] = {}
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
        extents = self._write(views)
        with self._lock:
            if not self._is_closed:
                self._n_ever += 1
                self._spilled[self._n_ever] = extents
                return SpillFile(self._n_ever, sum(data.nbytes for _, data in views))
        for extent in extents.values():
            self._give_back(extent)
        raise SpillError("Objects were to be spilled in a session that is over.")

    def write_in_place_of(self, file_id: int, object_id: int, parts: Sequence[tuple[int, memoryview]]) -> SpillFile:
        """Write objects, and use the room of another one for that, whose bytes are in memory until it is dropped.

        Raises:
            SpillError: As ``write`` does it; the other object goes back to the disk, if that still has room for it.
                That its bytes are damaged is told to who reads it.
        """
        kept = self._take_out(file_id, object_id)
        try:
            return self.write(parts)
        except BaseException:
            if kept:
                with suppress(SpillError):
                    (extent,) = self._write([(object_id, memoryview(kept))]).values()
                    if not self._replace(file_id, object_id, extent):
                        self._give_back(extent)
            raise

    def _take_out(self, file_id: int, object_id: int) -> bytearray | None:
        """Keep the bytes of an object in memory, and give its room back.

        They are ``None`` if that is done already, and empty if they are damaged.
        """
        with self._lock:
            extent = self._spilled.get(file_id, {}).get(object_id)
            if extent is None or extent.kept is not None:
                return None
            extent.disk.n_holds += 1
        try:
            kept = bytearray(extent.nbytes)
        except MemoryError as error:
            self._release(extent.disk)
            raise SpillError(f"There is no memory for {extent.nbytes} bytes that are to be read back.") from error
        damage = ""
        try:
            self._read(extent, file_id, object_id, memoryview(kept))
        except _DamageError as error:
            kept, damage = bytearray(), str(error)
        if self._replace(file_id, object_id, _Extent(extent.disk, 0, extent.nbytes, extent.checksum, kept, damage)):
            self._give_back(extent)
        return kept

    def _write(self, views: list[tuple[int, memoryview]]) -> dict[int, _Extent]:
        """Write objects to one file; each of the extents holds it."""
        nbytes = sum(data.nbytes for _, data in views)
        if self.folder.trouble:
            raise SpillError(self.folder.trouble)
        rooms = [_whole_blocks(data.nbytes) for _, data in views]
        try:
            disk, start = self._hold_for_write(sum(rooms), len(views))
        except OSError as error:
            raise self._refusal(len(views), nbytes, error) from error
        position, extents = start, dict[int, _Extent]()
        try:
            for (object_id, data), room in zip(views, rooms, strict=True):
                extents[object_id] = _Extent(disk, position, data.nbytes, disk.file.write(position, data))
                position += room
            disk.file.flush()
        except BaseException as error:  # Whatever it is, no file keeps room for what was not written.
            self._release(disk, start, sum(rooms), len(views))
            if isinstance(error, OSError):
                raise self._refusal(len(views), nbytes, error) from error
            raise
        return extents

    def _replace(self, file_id: int, object_id: int, extent: _Extent) -> bool:
        """Note that an object is elsewhere, unless it was dropped; gives whether it is still there."""
        with self._lock:
            extents = self._spilled.get(file_id)
            if extents is None or object_id not in extents:
                return False
            extents[object_id] = extent
            return True

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
            extent = self._find(file_id, object_id)
            if extent.kept is None:
                extent.disk.n_holds += 1
        if extent.kept is None:
            self._read(extent, file_id, object_id, target)
        elif extent.damage:
            raise SpillError(extent.damage)
        else:
            target.cast("B")[:] = extent.kept

    def _read(self, extent: _Extent, file_id: int, object_id: int, target: memoryview) -> None:
        """Read from a file, and give back a hold on it."""
        try:
            if target.nbytes != extent.nbytes:
                raise ValueError(
                    f"Object {name_of(object_id)} was to be read into {target.nbytes} bytes, and it has "
                    f"{extent.nbytes}. This is a bug in hpcfut."
                )
            checksum = extent.disk.file.read(extent.position, target.cast("B"))
        except OSError as error:
            raise SpillError(
                f"Object {name_of(object_id)} cannot be read back from spill file {file_id} in {self.folder.path}: "
                f"{error.strerror}. The disk or its connection is faulty; name another folder with "
                f"init(spill_folder=...)."
            ) from error
        finally:
            self._release(extent.disk)
        if checksum != extent.checksum:
            raise _DamageError(
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
            extent = self._find(file_id, object_id)
            del self._spilled[file_id][object_id]
            if not self._spilled[file_id]:
                del self._spilled[file_id]
        self._give_back(extent)

    def close(self) -> None:
        """Forget everything; what is being written or read ends by itself."""
        with self._lock:
            self._is_closed = True
            held = [extent for extents in self._spilled.values() for extent in extents.values()]
            self._spilled.clear()
        for extent in held:
            if extent.kept is None:
                self._release(extent.disk)

    @property
    def n_files(self) -> int:
        """Files that are open now."""
        return len(self._open)

    def _hold_for_write(self, nbytes: int, n_holds: int) -> tuple[_Disk, int]:
        """A file, held so many times, and where in it these bytes go."""
        with self._lock:
            is_shared = len(self._open) >= self._n_open_max
            disk = min(self._open, key=lambda disk: disk.n_holds) if is_shared else None
            if disk is not None:
                return disk, _take_room(disk, nbytes, n_holds)
        disk = _Disk(NamelessFile(self.folder.path))
        with self._lock:
            self._open.append(disk)
            return disk, _take_room(disk, nbytes, n_holds)

    def _give_back(self, extent: _Extent) -> None:
        """An object is not where it was any more."""
        if extent.kept is None:
            self._release(extent.disk, extent.position, _whole_blocks(extent.nbytes))

    def _release(self, disk: _Disk, position: int = 0, nbytes: int = 0, n_holds: int = 1) -> None:
        """Give holds back, and with them the room of these bytes."""
        if nbytes and disk.n_holds > n_holds:
            disk.file.give_room_back(position, nbytes)
        with self._lock:
            disk.n_holds -= n_holds
            if disk.n_holds:
                return
            self._open.remove(disk)
        disk.file.close()

    def _find(self, file_id: int, object_id: int) -> _Extent:
        extents = self._spilled.get(file_id)
        if extents is None or object_id not in extents:
            raise KeyError(f"Object {name_of(object_id)} is not in spill file {file_id}. This is a bug in hpcfut.")
        return extents[object_id]

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


def _whole_blocks(nbytes: int) -> int:
    return -(-nbytes // _NBYTES_BLOCK) * _NBYTES_BLOCK


def _take_room(disk: _Disk, nbytes: int, n_holds: int) -> int:
    start = disk.nbytes_end
    disk.nbytes_end = start + nbytes
    disk.n_holds += n_holds
    return start
