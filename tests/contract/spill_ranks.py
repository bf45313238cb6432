"""Programs that spill, in processes of their own: spill_ranks.py PROGRAM FOLDER."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

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


def exchange(folder: Path) -> None:
    """On a disk of 8 MiB that is full: objects take each other's places, or all stay where they are."""
    files = SpillFiles(find_spill_folder(str(folder), {}))
    values = [memoryview(os.urandom(MIB - 100)) for _ in range(12)]
    file = files.write([(n, values[n]) for n in range(3)]).file_id
    places = dict.fromkeys(range(3), file)
    while True:
        try:
            places[len(places)] = files.write([(len(places), values[len(places)])]).file_id
        except SpillError:
            break
    free, n_stored = nbytes_free(folder), len(places)
    assert n_stored >= 7
    target = memoryview(bytearray(MIB - 100))
    for n in (1, n_stored - 1):  # One of several in a file, and one that has a file of its own.
        with pytest.raises(SpillError, match="No space left on device"):
            files.write_in_place_of(places[n], n, [(100, values[8]), (101, values[9])])
        assert nbytes_free(folder) == free, "Nothing of it is on the disk, and the other one is back."
        files.read(places[n], n, target)
        assert target == values[n]
        there = files.write_in_place_of(places[n], n, [(100, values[8])]).file_id
        for _ in range(2):
            files.read(places[n], n, target)
            assert target == values[n], "It is in memory."
        with pytest.raises(SpillError, match="No space left on device"):
            files.write_in_place_of(places[n], n, [(101, values[9])])
        files.read(there, 100, target)
        assert target == values[8]
        files.drop(places[n], n)
        assert nbytes_free(folder) == free
        files.drop(there, 100)
        places[n] = files.write([(n, values[n])]).file_id
    for n, file in places.items():
        files.read(file, n, target)
        assert target == values[n]
        files.drop(file, n)
    # What was dropped just before makes no way, and does not harm.
    files.drop(files.write_in_place_of(places[0], 0, [(100, values[8])]).file_id, 100)
    assert (files.n_files, nbytes_free(folder)) == (0, 8 * MIB)


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
    {"fill": fill, "exchange": exchange, "hold": hold, "be_refused": be_refused}[sys.argv[1]](Path(sys.argv[2]))
