"""A file without a name: its room is given back when it is closed or when the process ends, however it ends.

Large writes and reads go in pieces, and each piece is summed up while the processor still has it in its cache. All
calls let go of the GIL, and may be made by several threads at a time for different parts of the file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from pathlib import Path
from typing import Final

import xxhash

#: The checksum of a longer run of bytes depends on this number.
_NBYTES_PIECE: Final = 1 << 20
#: What file systems and old kernels say that have no files without a name.
_UNSUPPORTED: Final = (errno.EINVAL, errno.EISDIR, errno.ENOSYS, errno.EOPNOTSUPP)
_KEEP_SIZE_AND_PUNCH_HOLE: Final = 0x01 | 0x02


class NamelessFile:
    """Bytes on a disk that nobody else can open. It is never mapped: a full disk would be a bus error there."""

    def __init__(self, folder: Path) -> None:
        """Make one in this folder, and raise ``OSError`` if that cannot be."""
        self._fd = _open_nameless(folder)

    def write(self, position: int, data: memoryview) -> int:
        """Write bytes, and return their checksum. Raises ``OSError``: the disk is full, or it cannot be written to."""
        checksum = 0
        for first in range(0, data.nbytes, _NBYTES_PIECE):
            piece = data[first : first + _NBYTES_PIECE]
            checksum = xxhash.xxh3_64_intdigest(piece, checksum)
            n_written = 0
            while n_written < piece.nbytes:
                n_written += os.pwrite(self._fd, piece[n_written:], position + first + n_written)
        return checksum

    def flush(self) -> None:
        """Come back when everything is on the disk. Network file systems tell of a full one only now (``OSError``)."""
        os.fdatasync(self._fd)

    def read(self, position: int, target: memoryview) -> int:
        """Fill the target, and return the checksum of what has been read. Raises ``OSError`` if that cannot be."""
        checksum = 0
        for first in range(0, target.nbytes, _NBYTES_PIECE):
            piece = target[first : first + _NBYTES_PIECE]
            n_read = 0
            while n_read < piece.nbytes:
                n_more = os.preadv(self._fd, [piece[n_read:]], position + first + n_read)
                if n_more == 0:
                    raise OSError(errno.EIO, "the file has become shorter")
                n_read += n_more
            checksum = xxhash.xxh3_64_intdigest(piece, checksum)
        return checksum

    def give_room_back(self, position: int, nbytes: int) -> None:
        """Free the room of bytes that nobody will read; where the file system cannot, it is free when the file is."""
        ctypes.CDLL(None).fallocate(
            self._fd, _KEEP_SIZE_AND_PUNCH_HOLE, ctypes.c_longlong(position), ctypes.c_longlong(nbytes)
        )

    def close(self) -> None:
        """Give all its room back."""
        os.close(self._fd)


def _open_nameless(folder: Path) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    fd, name = tempfile.mkstemp(prefix="hpcfut-", dir=folder)
    # NFS gives it another name, which goes with the last one who has it open.
    os.unlink(name)
    return fd
