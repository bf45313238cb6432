"""Programs that spill, in processes of their own: spill_ranks.py PROGRAM FOLDER."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hpcfut.edges.host.spill_files import SpillFiles
from hpcfut.edges.host.spill_folder import find_spill_folder
from hpcfut.model.errors import SpillError

MIB = 1 << 20
NOBODY = 65534


def nbytes_free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(folder: Path) -> None:
    """On a disk of 8 MiB: what fits stays, what does not leaves nothing, and room that is given back can be used."""
    files = SpillFiles(find_spill_folder(str(folder), {}))
    data = memoryview(os.urandom(6 * MIB))
    one = files.write([(1, data[: 2 * MIB]), (2, data[2 * MIB : 5 * MIB])])
    free = nbytes_free(folder)
    for parts in ([(3, data)], [(3, data[:MIB]), (4, data)]):
        try:
            files.write(parts)
        except SpillError as error:
            print(error)
        assert nbytes_free(folder) == free, "What did not fit has left something behind."
    assert files.n_files == 1
    target = memoryview(bytearray(2 * MIB))
    files.read(one.file_id, 1, target)
    assert target == data[: 2 * MIB]
    # The room of one object of several comes back as well, and so does that of the last.
    files.drop(one.file_id, 1)
    assert nbytes_free(folder) >= free + 2 * MIB
    two = files.write([(3, data[: 4 * MIB])])
    files.drop(one.file_id, 2)
    target = memoryview(bytearray(4 * MIB))
    files.read(two.file_id, 3, target)
    assert target == data[: 4 * MIB]
    files.drop(two.file_id, 3)
    assert nbytes_free(folder) == 8 * MIB
    print(files.n_files, os.listdir(folder))


def hold(folder: Path) -> None:
    """Spills, and waits to be killed or told to go on."""
    files = SpillFiles(find_spill_folder(str(folder), {}))
    data = memoryview(os.urandom(MIB))
    written = [files.write([(object_id, data)]) for object_id in range(20)]
    print(files.n_files, flush=True)
    sys.stdin.readline()
    target = memoryview(bytearray(MIB))
    for object_id, file in enumerate(written):
        files.read(file.file_id, object_id, target)
        assert target == data
    print("whole", flush=True)


def be_refused(folder: Path) -> None:
    """Spills as a user who owns nothing."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    try:
        SpillFiles(find_spill_folder(str(folder), {})).write([(1, memoryview(b"a"))])
    except SpillError as error:
        print(error)


if __name__ == "__main__":
    {"fill": fill, "hold": hold, "be_refused": be_refused}[sys.argv[1]](Path(sys.argv[2]))
