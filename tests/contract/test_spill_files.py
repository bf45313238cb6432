"""Spilled objects come back whole, or somebody says why not; on real disks, full ones and closed ones."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import numpy as np
import psutil
import pytest

from hpcfut.edges.host.nameless_file import NamelessFile
from hpcfut.edges.host.spill_files import SpillFiles
from hpcfut.edges.host.spill_folder import SpillFolder, find_spill_folder
from hpcfut.model.errors import SpillError
from hpcfut.model.ids import first_id, name_of
from tests.mpi.jobs import CHECKOUT
from tests.privileged import demand_root, run_beside_mount

PROGRAMS = Path(__file__).with_name("spill_ranks.py")
GIB = 1 << 30
ENVIRON = {**os.environ, "PYTHONPATH": str(CHECKOUT)}


def read(files: SpillFiles, file_id: int, object_id: int, nbytes: int) -> bytes:
    target = bytearray(nbytes)
    files.read(file_id, object_id, memoryview(target))
    return bytes(target)


def refuse_nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What NFS and old kernels do."""
    open_it = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return open_it(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)


@pytest.fixture(params=["nameless", "named and unlinked"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param != "nameless":
        refuse_nameless(monkeypatch)
    return tmp_path


@pytest.fixture
def files(folder: Path) -> Iterator[SpillFiles]:
    made = SpillFiles(find_spill_folder(str(folder), {}))
    yield made
    made.close()
    assert made.n_files == 0
    assert os.listdir(folder) == []


def test_objects_come_back(files: SpillFiles) -> None:
    sizes = [0, 1, 4095, 4096, 100_000, 9_000_001]
    values = {number: os.urandom(nbytes) for number, nbytes in enumerate(sizes)}
    written = files.write([(number, memoryview(value)) for number, value in values.items()])
    assert (written.nbytes, files.n_files) == (sum(sizes), 1)
    for number, value in reversed(values.items()):
        assert read(files, written.file_id, number, len(value)) == value
        assert read(files, written.file_id, number, len(value)) == value


def test_views_of_any_type_are_bytes(files: SpillFiles) -> None:
    array = np.arange(1000.0)
    written = files.write([(1, array.data)])
    target = np.zeros(1000)
    files.read(written.file_id, 1, target.data)
    assert (target == array).all()


def test_nothing_has_a_name(files: SpillFiles, folder: Path) -> None:
    files.write([(1, memoryview(b"a"))])
    assert os.listdir(folder) == []
    listed = subprocess.run(["ls", "-l", f"/proc/{os.getpid()}/fd"], capture_output=True, text=True, check=False).stdout
    (line,) = [line for line in listed.splitlines() if f" {folder}/" in line]
    assert line.endswith(" (deleted)")


@pytest.mark.parametrize("n_open_max", [1, 2, 100])
def test_dropping_in_any_order(folder: Path, n_open_max: int) -> None:
    files = SpillFiles(find_spill_folder(str(folder), {}), n_open_max)
    rng = random.Random(n_open_max)
    kept: dict[tuple[int, int], bytes] = {}
    for number in range(60):
        values = {10 * number + part: rng.randbytes(rng.choice([0, 10, 5000, 40_000])) for part in range(3)}
        written = files.write([(object_id, memoryview(value)) for object_id, value in values.items()])
        kept |= {(written.file_id, object_id): value for object_id, value in values.items()}
        for key in rng.sample(sorted(kept), rng.choice([0, 3, 6, len(kept)]) % (len(kept) + 1)):
            del kept[key]
            files.drop(*key)
        assert files.n_files <= n_open_max
        for key, value in kept.items():
            assert read(files, *key, len(value)) == value
    for key in kept:
        files.drop(*key)
    assert files.n_files == 0


def test_what_is_dropped_is_not_there(files: SpillFiles) -> None:
    written = files.write([(1, memoryview(b"a")), (2, memoryview(b"b"))])
    files.drop(written.file_id, 1)
    for wrong in ((written.file_id, 1), (written.file_id, 3), (99, 2)):
        with pytest.raises(KeyError, match="bug in hpcfut"):
            read(files, *wrong, 1)
        with pytest.raises(KeyError, match="bug in hpcfut"):
            files.drop(*wrong)
    with pytest.raises(ValueError, match="2 bytes, and it has 1"):
        read(files, written.file_id, 2, 2)
    with pytest.raises(ValueError, match="No object"):
        files.write([])


@pytest.mark.parametrize("place", [0, 123_456, 4 << 20, 9_000_000])
def test_a_damaged_object_is_named_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    opened: list[NamelessFile] = []
    make = NamelessFile.__init__

    def remember(self: NamelessFile, folder: Path) -> None:
        make(self, folder)
        opened.append(self)

    monkeypatch.setattr(NamelessFile, "__init__", remember)
    files = SpillFiles(find_spill_folder(str(tmp_path), {}))
    one, two = first_id(0, 0) + 1, first_id(0, 0) + 2
    data = os.urandom(9_000_001)
    written = files.write([(one, memoryview(data)), (two, memoryview(data))])
    os.pwrite(opened[0]._fd, bytes([data[place] ^ 1]), place)
    with pytest.raises(SpillError, match=rf"Object {name_of(one)} in spill file {written.file_id} .* is damaged"):
        read(files, written.file_id, one, len(data))
    assert read(files, written.file_id, two, len(data)) == data
    os.ftruncate(opened[0]._fd, len(data) + 100)
    with pytest.raises(SpillError, match=rf"{name_of(two)} cannot be read back .* become shorter"):
        read(files, written.file_id, two, len(data))
    files.close()


def test_threads_write_read_and_drop_at_a_time(files: SpillFiles) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        rng = random.Random(number)
        try:
            for step in range(30):
                values = {1000 * number + 2 * step + part: rng.randbytes(300_000) for part in range(2)}
                written = files.write([(object_id, memoryview(value)) for object_id, value in values.items()])
                for object_id, value in values.items():
                    assert read(files, written.file_id, object_id, len(value)) == value
                    files.drop(written.file_id, object_id)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert files.n_files == 0


def test_closing_under_a_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SpillFiles(find_spill_folder(str(folder), {}))
    flush = NamelessFile.flush

    def close_meanwhile(self: NamelessFile) -> None:
        files.close()
        flush(self)

    monkeypatch.setattr(NamelessFile, "flush", close_meanwhile)
    with pytest.raises(SpillError, match="session that is over"):
        files.write([(1, memoryview(b"abc"))])
    assert files.n_files == 0


@pytest.mark.parametrize("call", ["write", "flush"])
def test_a_write_that_fails_leaves_what_was_there(
    files: SpillFiles, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Local disks say that they are full when they are written to, network file systems when they are flushed."""
    kept = files.write([(1, memoryview(b"kept"))])

    def fail(*_: Any) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(NamelessFile, call, fail)
        with pytest.raises(SpillError) as caught:
            files.write([(2, memoryview(b"abc")), (3, memoryview(b"de"))])
    said = str(caught.value)
    assert said.startswith(f"2 objects of 5 bytes cannot be spilled to {folder}: Disk quota exceeded; ")
    assert "bytes are free there. Nothing that was stored is lost. Make room there" in said
    assert files.n_files == 1
    assert read(files, kept.file_id, 1, 4) == b"kept"


def test_a_full_disk(tmp_path: Path) -> None:
    done = run_beside_mount(tmp_path, "8m", [sys.executable, PROGRAMS, "fill", tmp_path])
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert first.startswith(f"1 objects of {6 << 20} bytes cannot be spilled to {tmp_path}: No space left on device; ")
    assert f"; {3 << 20} bytes are free there." in first
    assert second.startswith(f"2 objects of {7 << 20} bytes")
    assert last == "0 []"


def test_objects_change_places_on_a_full_disk(tmp_path: Path) -> None:
    done = run_beside_mount(tmp_path, "8m", [sys.executable, PROGRAMS, "exchange", tmp_path])
    assert done.returncode == 0, done.stderr


def test_what_has_made_way_is_in_memory_until_it_is_dropped(files: SpillFiles) -> None:
    values = [os.urandom(nbytes) for nbytes in (10_000, 20_000, 30_000)]
    file = files.write([(n, memoryview(value)) for n, value in enumerate(values)]).file_id
    other = files.write_in_place_of(file, 1, [(9, memoryview(values[0]))]).file_id
    for n, value in enumerate(values):
        assert read(files, file, n, len(value)) == value
        files.drop(file, n)
    assert read(files, other, 9, 10_000) == values[0]
    files.write_in_place_of(other, 9, [(10, memoryview(values[0]))])
    files.close()


def test_what_makes_way_and_is_damaged_is_told_to_who_reads_it(files: SpillFiles) -> None:
    file = files.write([(1, memoryview(b"one")), (2, memoryview(b"two"))]).file_id
    (disk,) = files._open
    disk.file.write(files._spilled[file][1].position, memoryview(b"One"))
    other = files.write_in_place_of(file, 1, [(9, memoryview(b"nine"))]).file_id
    assert read(files, other, 9, 4) == b"nine"
    for _ in range(2):
        with pytest.raises(SpillError, match=rf"Object {name_of(1)} in spill file {file} .* is damaged"):
            read(files, file, 1, 3)
    assert read(files, file, 2, 3) == b"two"
    files.close()


def test_a_file_size_limit(tmp_path: Path) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from hpcfut.edges.host.spill_files import SpillFiles
from hpcfut.edges.host.spill_folder import find_spill_folder
SpillFiles(find_spill_folder({str(tmp_path)!r}, {{}})).write([(1, memoryview(bytes(2 << 20)))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert "SpillError: 1 objects of 2097152 bytes cannot be spilled" in done.stderr
    assert "File too large" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_folder_of_somebody_else(mode: int) -> None:
    demand_root()
    folder = Path(tempfile.mkdtemp(prefix="test-spill-"))
    try:
        folder.chmod(mode)
        done = subprocess.run(
            [sys.executable, PROGRAMS, "be_refused", folder], capture_output=True, text=True, check=False, env=ENVIRON
        )
    finally:
        folder.rmdir()
    reason = "which may not be written to by this user. Name"
    assert done.stdout.startswith(f"Objects cannot be spilled to {folder}, {reason}"), done


@pytest.mark.parametrize("made", [False, True])
def test_a_chosen_folder_that_is_none(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "file"
    if made:
        path.write_text("")
    files = SpillFiles(find_spill_folder(str(path), {}))
    with pytest.raises(
        SpillError,
        match=rf"cannot be spilled to {path}, which is no folder that this user can reach\. Name a folder on a disk",
    ):
        files.write([(1, memoryview(b"a"))])


def test_a_folder_that_is_removed_later(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    files = SpillFiles(find_spill_folder(str(path), {}))
    path.rmdir()
    with pytest.raises(SpillError, match="the free space there is not known"):
        files.write([(1, memoryview(b"a"))])


def test_nothing_is_left_by_two_jobs_one_of_which_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAMS), "hold", str(tmp_path)]
    jobs = [Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=ENVIRON) for _ in range(2)]
    try:
        for job in jobs:
            assert job.stdout is not None
            assert job.stdout.readline() == "20\n"
        assert os.listdir(tmp_path) == []
        jobs[0].kill()
        assert jobs[0].wait() == -signal.SIGKILL
        assert os.listdir(tmp_path) == []
        assert jobs[1].communicate("go on\n", timeout=60)[0] == "whole\n"
    finally:
        for job in jobs:
            job.kill()
            job.communicate()
    assert os.listdir(tmp_path) == []


def test_an_object_of_more_than_4_gib() -> None:
    """In a file in memory, because a disk may take minutes for it."""
    folder, nbytes = Path("/dev/shm"), 4 * GIB + (64 << 20) + 1
    if psutil.virtual_memory().available < 13 * GIB or shutil.disk_usage(folder).free < 5 * GIB:
        pytest.skip("An object of 4 GiB needs 13 GiB of free memory, 5 of them in /dev/shm.")
    data = np.zeros(nbytes, np.uint8)
    data[:: 1 << 20] = np.arange(len(data[:: 1 << 20])) % 251
    data[-1] = 77
    files = SpillFiles(find_spill_folder(str(folder), {}))
    written = files.write([(1, data.data)])
    target = np.empty(nbytes, np.uint8)
    files.read(written.file_id, 1, target.data)
    for first in range(0, nbytes, 64 << 20):
        part = slice(first, first + (64 << 20))
        assert bytes(data[part]) == bytes(target[part])
    files.drop(written.file_id, 1)
    assert files.n_files == 0


# -- which folder ------------------------------------------------------------------------------------------------------


def mounted(root: Path, **points: str) -> Path:
    """A made-up machine with these kinds of file systems; points are folders below it."""
    (root / "proc/self").mkdir(parents=True)
    lines = ["1 0 8:1 / / rw - ext4 /dev/a rw"]
    for name, kind in points.items():
        (root / name).mkdir()
        lines.append(f"2 1 0:5 / {root / name} rw,relatime shared:1 - {kind} none rw")
    (root / "proc/self/mountinfo").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/nowhere")


@pytest.mark.usefixtures("no_default")
def test_the_nearest_disk_is_taken(tmp_path: Path) -> None:
    root = mounted(tmp_path, memory="tmpfs", network="nfs4", near="xfs", other="fuse.sshfs")
    environ = {"HPCFUT_JOB_SCRATCH": f"{root}/memory", "SLURM_TMPDIR": f"{root}/network", "TMPDIR": f"{root}/near"}
    assert find_spill_folder("", environ, root) == SpillFolder(root / "near", "xfs")
    environ["SLURM_TMPDIR"] = str(root)
    assert find_spill_folder("", environ, root) == SpillFolder(root, "ext4")


def test_a_chosen_folder_is_taken_even_in_memory(tmp_path: Path) -> None:
    root = mounted(tmp_path, memory="tmpfs", near="xfs")
    environ = {"TMPDIR": f"{root}/near", "HPCFUT_SPILL_FOLDER": f"{root}/memory"}
    assert find_spill_folder("", environ, root) == SpillFolder(root / "memory", "tmpfs")
    assert find_spill_folder(f"{root}/near", environ, root) == SpillFolder(root / "near", "xfs")


@pytest.mark.usefixtures("no_default")
def test_folders_in_memory_make_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = mounted(tmp_path, memory="tmpfs")
    with (root / "proc/self/mountinfo").open("a") as mounts:
        mounts.write("3 1 0:6 / /var/tmp rw - ramfs none rw\n")
    found = find_spill_folder("", {"TMPDIR": f"{root}/memory"}, root)
    assert found.trouble.startswith("Objects cannot be spilled: all folders for temporary files (")
    assert f"{root}/memory, /var/tmp) are in memory" in found.trouble
    with pytest.raises(SpillError, match="HPCFUT_SPILL_FOLDER"):
        SpillFiles(found).write([(1, memoryview(b"a"))])


def test_a_mount_with_a_space_in_its_name(tmp_path: Path) -> None:
    root = mounted(tmp_path)
    (root / "a b").mkdir()
    with (root / "proc/self/mountinfo").open("a") as mounts:
        mounts.write(f"3 1 0:6 / {root}/a\\040b rw - btrfs none rw\n")
    assert find_spill_folder(f"{root}/a b", {}, root).file_system == "btrfs"


def test_the_folder_of_this_machine() -> None:
    found = find_spill_folder("", os.environ)
    assert found.file_system
    assert found.trouble or found.path.is_dir()


def test_a_folder_that_is_out_of_reach(tmp_path: Path) -> None:
    demand_root()
    code = f"""
import os
from hpcfut.edges.host.spill_folder import find_spill_folder
os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
print(find_spill_folder({str(tmp_path / "below")!r}, {{}}).trouble)
"""
    tmp_path.chmod(0o700)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert "below, which is no folder that this user can reach. Name" in done.stdout, done
