"""HDF5 files on one rank: what is read and written, and what is said of files, chunks and values that do not fit."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import hpcfut
from hpcfut.io import files, read_hdf5, write_hdf5


@pytest.fixture(autouse=True)
def a_session_of_its_own() -> Iterator[None]:
    hpcfut.shutdown()
    yield
    hpcfut.shutdown()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a dataset "x" of 5 × 7, in chunks of 2 × 3, and others of other types."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(35.0).reshape(5, 7), chunks=(2, 3))
        file["group/whole"] = np.arange(6, dtype=">i4").reshape(2, 3)
        file["scalar"] = 2.5
        file["flags"] = np.array([True, False, True])
        file["names"] = np.array([b"ab", b"cdefg"])
        file.create_dataset("words", data=["äß".encode(), b"x"], dtype=h5py.string_dtype("utf-8", 4))
        file.create_dataset("colours", data=[0, 1, 1], dtype=h5py.enum_dtype({"red": 0, "blue": 1}, "i1"))
        file["records"] = np.array([(1, 2.5), (3, 4.5)], dtype=[("n", "i4"), ("x", "f8")])
        file.create_dataset("texts", data=["one", "three"], dtype=h5py.string_dtype())
        file.create_dataset("grows", data=np.arange(3), maxshape=(None,), chunks=(10,))
        file["void"] = h5py.Empty("f4")
        file["none"] = np.zeros((0, 4))
    return path


@pytest.fixture(params=["nameless", "named"])
def is_nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has files without names; NFS has none."""
    open_it = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return open_it(path, flags, *rest, **more)

    if request.param == "named":
        monkeypatch.setattr(os, "open", refuse)
    return bool(request.param == "nameless")


def content_of(path: Path, dataset: str) -> Any:
    with h5py.File(path) as file:
        return file[dataset][()]


def pieces(array: Any, *chunks: int) -> list[Any]:
    """The array cut up by NumPy, in C order."""
    cut = [array]
    for axis, size in enumerate(chunks):
        cut = [part for whole in cut for part in np.split(whole, range(size, whole.shape[axis], size), axis)]
    return cut


@pytest.mark.parametrize("chunks", [(2, 3), (5, 7), (1, 7), (4, 4), (5, 1), (2, 10), (10**30, 7)])
def test_chunks_come_in_c_order(path: Path, chunks: tuple[int, int]) -> None:
    found = hpcfut.get(read_hdf5(path, "x", chunks))
    expected = pieces(np.arange(35.0).reshape(5, 7), *chunks)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]
    assert not any(part.flags.writeable for part in found)


def test_chunks_are_those_of_the_file_or_the_whole(path: Path) -> None:
    assert [part.shape for part in hpcfut.get(read_hdf5(path, "x"))] == [
        p.shape for p in pieces(np.zeros((5, 7)), 2, 3)
    ]
    (whole,) = hpcfut.get(read_hdf5(path, "/group/whole"))
    assert (whole.dtype.str, whole.tolist()) == (">i4", [[0, 1, 2], [3, 4, 5]])
    (grows,) = hpcfut.get(read_hdf5(path, "grows"))
    assert grows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dataset", ["scalar", "flags", "names", "words", "colours", "records"])
def test_elements_of_one_size_are_read(path: Path, dataset: str) -> None:
    (found,) = hpcfut.get(read_hdf5(path, dataset))
    expected = content_of(path, dataset)
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist()


def test_a_relative_path_is_one_of_who_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    refs = read_hdf5(path.name, "x")
    write_hdf5("copy.h5", "x", refs, shape=(5, 7), chunks=(2, 3))
    monkeypatch.chdir("/")
    assert hpcfut.get(refs[0])[1, 2] == 9.0
    assert content_of(path.parent / "copy.h5", "x")[4, 6] == 34.0


@pytest.mark.parametrize(
    ("dataset", "chunks", "kind", "said"),
    [
        ("y", None, ValueError, "no dataset 'y'. It has 'colours', 'flags'"),
        ("group", None, ValueError, "a group 'group', which is no dataset"),
        ("x", (2,), ValueError, r"has the shape \(5, 7\). Give one size for each axis"),
        ("x", 2, ValueError, "Give one size for each axis"),
        ("x", (0, 1), ValueError, "1 element at least"),
        ("x", (2.5, 1), TypeError, "a whole number for each axis"),
        ("x", "ab", TypeError, "a whole number for each axis"),
        ("texts", None, TypeError, "Python objects: strings of different lengths"),
        ("void", None, ValueError, "has no elements"),
        ("none", None, ValueError, "no elements"),
    ],
)
def test_what_cannot_be_read_is_said_at_the_call(
    path: Path, dataset: str, chunks: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        read_hdf5(path, dataset, chunks)
    assert dataset in str(caught.value) or "chunks is" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere.h5, at least on rank 0"):
        read_hdf5(tmp_path / "nowhere.h5", "x")
    (tmp_path / "text.h5").write_text("This is no HDF5 file.")
    with pytest.raises(OSError, match=r"text.h5 cannot be read as an HDF5 file: .* See that it is one"):
        read_hdf5(tmp_path / "text.h5", "x")
    with pytest.raises(OSError, match="cannot be read as an HDF5 file"):
        read_hdf5(tmp_path, "x")


def test_a_chunk_of_a_file_that_has_changed_says_so_to_who_wants_it(path: Path) -> None:
    refs = read_hdf5(path, "x")
    assert hpcfut.get(refs[0]).shape == (2, 3)
    with h5py.File(path, "a") as file:
        del file["x"]
        file["x"] = np.zeros((5, 6))
    with pytest.raises(
        OSError, match=r"Chunk \[0:2, 3:6\] of dataset 'x' in .*data.h5 could not be read on rank 0: "
    ) as e:
        hpcfut.get(refs[1])
    assert "has the shape (5, 6)" in str(e.value)
    with h5py.File(path, "a") as file:
        del file["x"]
    total = hpcfut.remote(np.sum)
    with pytest.raises(OSError, match="no dataset 'x'"):
        hpcfut.get(total.remote(refs[2]))
    path.unlink()
    with pytest.raises(OSError, match=r"\[4:5, 6:7\].*leave the file as it is"):
        hpcfut.get(refs[-1])


def test_what_is_written_is_read_again(tmp_path: Path, is_nameless: bool) -> None:
    field = np.random.default_rng(0).normal(size=(7, 5, 3)).astype("f4")
    refs = [hpcfut.put(part) for part in pieces(field, 3, 2, 3)]
    path = tmp_path / "field.h5"
    write_hdf5(path, "a/b/field", refs, shape=(7, 5, 3), chunks=(3, 2, 3), compression="gzip")
    write_hdf5(path, "whole", [hpcfut.put(field)], shape=field.shape)
    write_hdf5(path, "scalar", [hpcfut.put(np.float64(2.5))], shape=())
    numbers: Any = np.arange(4)
    write_hdf5(path, "counted", [hpcfut.put(field[0, 0])], shape=numbers[3], chunks=numbers[3:])
    with h5py.File(path) as file:
        assert sorted(file) == ["a", "counted", "scalar", "whole"]
        assert file["a/b/field"].compression == "gzip"
        assert file["a/b/field"].dtype == "f4"
        assert np.array_equal(file["a/b/field"][()], field)
        assert np.array_equal(file["whole"][()], field)
        assert file["scalar"][()] == 2.5


def test_refs_are_taken_as_they_are_needed(tmp_path: Path, is_nameless: bool) -> None:
    n_taken = n_taken_at_first = 0

    def refs() -> Iterator[hpcfut.ObjectRef[Any]]:
        nonlocal n_taken
        for _ in range(100):
            n_taken += 1
            yield hpcfut.put(np.zeros(10))

    def watched() -> Iterator[hpcfut.ObjectRef[Any]]:
        nonlocal n_taken_at_first
        for number, ref in enumerate(refs()):
            yield ref
            if number == 2:
                n_taken_at_first = n_taken
                found = [name.rpartition(".")[2] for name in os.listdir(tmp_path)]
                assert found == ([] if is_nameless else ["unfinished"]), (
                    "The third is asked for when the first is written."
                )

    write_hdf5(tmp_path / "x.h5", "x", watched(), shape=1000, chunks=10)
    assert n_taken_at_first == 3
    assert n_taken == 100


def write_bad(path: Path, refs: Any, **changed: Any) -> None:
    write_hdf5(path, **{"dataset": "y", "refs": refs, "shape": (4, 6), "chunks": (2, 6), **changed})


@pytest.mark.parametrize(
    ("values", "changed", "kind", "said"),
    [
        ([np.zeros((2, 6))], {}, ValueError, r"has 2 chunks of the shape \(2, 6\), but 1 refs were given"),
        ([np.zeros((2, 6))] * 3, {}, ValueError, "but 3 refs were given"),
        ([np.zeros((2, 6)), np.zeros((2, 5))], {}, ValueError, r"Chunk 1 of .*, \[2:4, 0:6\], has the shape \(2, 5\)"),
        ([np.zeros((2, 6)), np.zeros((2, 6), "f4")], {}, ValueError, r"Chunk 1 .* type float32, .* have float64"),
        ([np.zeros((2, 6)), "text"], {}, TypeError, r"Chunk 1 of .*, \[2:4, 0:6\], is a str"),
        ([np.array([[None] * 6] * 2), 0], {}, TypeError, "Chunk 0 .* is an array of Python objects"),
        ([np.zeros((2, 6))] * 2, {"chunks": (3,)}, ValueError, "one size for each axis"),
        ([], {"shape": (0, 6)}, ValueError, "no elements"),
        ([np.zeros((2, 6))] * 2, {"shape": (4.5, 6)}, TypeError, "shape is .* whole number for each axis"),
        ([np.zeros((2, 6))] * 2, {"shape": 4.5}, TypeError, "shape is 4.5. Give a whole number for each axis"),
        ([np.zeros((2, 6))] * 2, {"shape": (-4, 6)}, ValueError, "no elements"),
        ([np.zeros((2, 6))] * 2, {"dataset": "x"}, ValueError, "has a dataset 'x' already"),
        ([np.zeros((2, 6))] * 2, {"dataset": "/group"}, ValueError, "has a group 'group' already"),
        ([np.zeros((2, 6))] * 2, {"dataset": "x/y"}, ValueError, "has a dataset 'x', and so no group"),
        ([np.zeros((2, 6))] * 2, {"dataset": "/"}, ValueError, "Give it a name"),
        ([np.zeros((2, 6))] * 2, {"compression": "none such"}, ValueError, "options .*none such.*Compression"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    path: Path, values: list[Any], changed: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with h5py.File(path) as file:
        before = sorted(file)
    refs = [hpcfut.put(value) for value in values]
    with pytest.raises(kind, match=said):
        write_bad(path, refs, **changed)
    with h5py.File(path) as file:
        assert sorted(file) == before
        assert file["x"][4, 6] == 34.0
    if "dataset" not in changed:  # Else a new file could take it.
        with pytest.raises(kind, match=said):
            write_bad(path.parent / "new.h5", refs, **changed)
        assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("n", [1, 3])
def test_a_generator_of_too_few_or_too_many_refs_leaves_nothing(path: Path, n: int) -> None:
    with pytest.raises(ValueError, match="1 refs came" if n == 1 else "more refs came"):
        write_bad(path, (hpcfut.put(np.zeros((2, 6))) for _ in range(n)))
    with h5py.File(path) as file:
        assert "y" not in file


def test_a_chunk_that_failed_raises_its_error_and_leaves_nothing(tmp_path: Path, is_nameless: bool) -> None:
    broken = hpcfut.remote(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_bad(tmp_path / "new.h5", [hpcfut.put(np.zeros((2, 6))), broken.remote()])
    assert not os.listdir(tmp_path)
    with pytest.raises(hpcfut.exceptions.NotARefError):
        write_bad(tmp_path / "new.h5", [np.zeros((2, 6))] * 2)
    assert not os.listdir(tmp_path)


def test_files_that_cannot_be_written(path: Path) -> None:
    chunks = [hpcfut.put(np.zeros((2, 6)))] * 2
    with pytest.raises(
        FileNotFoundError, match=r"There is no folder .*no folder, at least on rank 0\. Make it before you write"
    ):
        write_bad(path.parent / "no folder" / "new.h5", chunks)
    (path.parent / "text.h5").write_text("This is no HDF5 file.")
    with pytest.raises(OSError, match="cannot be read as an HDF5 file"):
        write_bad(path.parent / "text.h5", chunks)
    assert (path.parent / "text.h5").read_text() == "This is no HDF5 file."


def test_what_is_complete_is_kept_if_somebody_uses_the_file(
    path: Path, is_nameless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "N_TRIES", 2)
    chunks = [hpcfut.put(np.full((2, 6), i)) for i in range(2)]
    with (
        h5py.File(path),
        pytest.raises(OSError, match=r"It is complete, and was kept .*\.unfinished") as error,
    ):
        write_bad(path, chunks)
    (kept,) = path.parent.glob("*.unfinished")
    assert str(kept) in str(error.value)
    assert content_of(kept, "y").sum() == 12
    with h5py.File(path) as file:
        assert "y" not in file


def test_a_file_that_somebody_makes_meanwhile_is_not_lost(tmp_path: Path, is_nameless: bool) -> None:
    path = tmp_path / "new.h5"

    def refs() -> Iterator[hpcfut.ObjectRef[Any]]:
        yield hpcfut.put(np.zeros((2, 6)))
        with h5py.File(path, "w") as file:
            file["x"] = 1.5
        yield hpcfut.put(np.ones((2, 6)))

    write_bad(path, refs())
    with h5py.File(path) as file:
        assert (sorted(file), file["x"][()], file["y"][()].sum()) == (["x", "y"], 1.5, 12.0)
    assert os.listdir(tmp_path) == ["new.h5"]


def test_a_file_system_without_links(tmp_path: Path, is_nameless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "new.h5"
    for number in range(2):
        write_hdf5(path, f"x{number}", [hpcfut.put(np.full(10, number))], shape=10)
    with h5py.File(path) as file:
        assert [int(file[name][()].sum()) for name in file] == [0, 10]
    assert os.listdir(tmp_path) == ["new.h5"]


def test_what_a_killed_writer_has_left_is_no_dataset_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    pid = os.fork()
    if not pid:
        with h5py.File(path, "a") as file:
            from hpcfut.io.hdf5 import UNFINISHED

            file[UNFINISHED] = np.zeros(10)
            file.flush()
            os._exit(0)
    os.waitpid(pid, 0)
    write_hdf5(path, "x", [hpcfut.put(np.ones(10))], shape=10)
    with h5py.File(path) as file:
        assert list(file) == ["x"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_who_is_killed_leaves_nothing(path: Path, how: signal.Signals) -> None:
    script = f"""
        import os
        import numpy as np
        import hpcfut
        from hpcfut.io import write_hdf5

        def refs():
            yield hpcfut.put(np.zeros(10))
            yield hpcfut.put(np.zeros(10))
            os.kill(os.getpid(), {how.value})

        hpcfut.init()
        write_hdf5({str(path.parent / "new.h5")!r}, "x", refs(), shape=30, chunks=10)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=60)
    assert done.returncode == -how, done.stderr
    assert os.listdir(path.parent) == [path.name]


def test_what_is_kept_of_a_file_without_a_name_on_a_file_system_without_links(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(files, "N_TRIES", 1)
    with h5py.File(path), pytest.raises(OSError, match="It is complete, and was kept"):
        write_hdf5(path, "y", [hpcfut.put(np.ones(10))], shape=10)
    (kept,) = path.parent.glob("*.unfinished")
    assert content_of(kept, "y").sum() == 10


def test_a_new_file_has_the_mode_that_others_have(tmp_path: Path, is_nameless: bool) -> None:
    write_hdf5(tmp_path / "x.h5", "x", [hpcfut.put(np.ones(10))], shape=10)
    (tmp_path / "other").touch()
    assert (tmp_path / "x.h5").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_disk_that_is_full_is_said(tmp_path: Path, is_nameless: bool) -> None:
    chunks = [hpcfut.put(np.zeros(100_000)) for _ in range(2)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"(?s)x.h5.* could not be written: .* See that the disk has room"):
            write_hdf5(tmp_path / "x.h5", "x", chunks, shape=200_000, chunks=100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["/q/v//u/", "./q/./v/u", "q/v/u"])
def test_a_name_has_many_forms(path: Path, name: str) -> None:
    write_hdf5(path, name, [hpcfut.put(np.ones(10))], shape=10)
    assert content_of(path, "q/v/u").sum() == 10
    assert hpcfut.get(read_hdf5(path, name)[0]).sum() == 10
    with pytest.raises(ValueError, match="has a dataset 'q/v/u' already"):
        write_hdf5(path, "/q//v/u", [hpcfut.put(np.ones(10))], shape=10)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        (5, TypeError, "called 5, which is a int. Give its name as a str"),
        (None, TypeError, "called None, which is a NoneType"),
        (b"x", TypeError, "called b'x', which is a bytes"),
        ("x\0y", ValueError, "no NUL character"),
        ("", ValueError, "Give it a name"),
        ("//.", ValueError, "Give it a name"),
    ],
)
def test_names_that_cannot_be(path: Path, name: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        read_hdf5(path, name)
    with pytest.raises(kind, match=said):
        write_hdf5(path, name, [hpcfut.put(np.ones(10))], shape=10)


def test_paths_may_be_bytes(path: Path) -> None:
    copy = os.fsencode(path.parent / "copy.h5")
    write_hdf5(copy, "x", read_hdf5(os.fsencode(path), "x"), shape=(5, 7), chunks=(2, 3))
    assert hpcfut.get(read_hdf5(copy, "x", (5, 7))[0])[4, 6] == 34.0


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"compresion": "gzip"}, TypeError, "with the options .*unexpected keyword argument 'compresion'"),
        ({"compression": "gzipp"}, ValueError, "with the options .*gzipp"),
        ({"compression": "gzip", "compression_opts": 99}, ValueError, "with the options .*99"),
        ({"maxshape": (1, 2, 3)}, ValueError, "with the options .*maxshape"),
        ({"dtype": "f4"}, TypeError, "the option 'dtype', which it gives itself"),
        ({"data": [1]}, TypeError, "the option 'data'"),
        ({"name": "z"}, TypeError, "the option 'name'"),
    ],
)
def test_options_are_tried_at_the_call(path: Path, options: dict[str, Any], kind: type[Exception], said: str) -> None:
    def refs() -> Iterator[hpcfut.ObjectRef[Any]]:
        pytest.fail("No chunk is needed to find that out.")
        yield

    with pytest.raises(kind, match=said):
        write_hdf5(path, "y", refs(), shape=20, chunks=10, **options)


def test_options_that_fit_the_elements_are_taken(path: Path) -> None:
    write_hdf5(path, "y", [hpcfut.put(np.array([b"ab", b"c"]))], shape=2, fillvalue=b"z", maxshape=(None,))
    write_hdf5(path, "z", [hpcfut.put(np.arange(10))], shape=10, scaleoffset=True, shuffle=True)
    with h5py.File(path) as file:
        assert (file["y"].maxshape, file["y"].fillvalue) == ((None,), b"z")
        assert file["z"].scaleoffset is not None
        assert file["z"][()].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("refs", "said"),
    [
        (np.zeros((2, 6)), r"write_hdf5\(\) was given a ndarray as chunk 0"),
        ([None, None], "a NoneType as chunk 0"),
        (None, "a NoneType in place of refs. Give it a list"),
        ("ab", "a str as chunk 0"),
    ],
)
def test_what_is_no_ref_is_named(path: Path, refs: Any, said: str) -> None:
    with pytest.raises(hpcfut.exceptions.NotARefError, match=said):
        write_bad(path, refs)


def test_what_is_no_ref_is_named_with_its_place(path: Path) -> None:
    ref = hpcfut.put(np.zeros((2, 6)))
    with pytest.raises(TypeError, match=r"write_hdf5\(\) was given a ObjectRef in place of refs"):
        write_bad(path, ref)
    for refs in ([ref, np.zeros((2, 6))], iter([ref, np.zeros((2, 6))])):
        with pytest.raises(TypeError, match=r"write_hdf5\(\) was given a ndarray as chunk 1"):
            write_bad(path, refs)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            np.array(["abc", "d"]),
            r"Chunk 0 of Dataset 'y' in .*, \[0:2\], has elements of the type <U3.*astype\('S20'\)",
        ),
        (np.zeros(2, "M8[s]"), r"elements of the type datetime64\[s\].*view\('i8'\)"),
        (np.zeros(2, [("n", "i4"), ("t", "<U3")]), "Chunk 0 .* HDF5 has no place for"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), r"Chunk 0 .* is a masked array, .*\.filled\("),
    ],
)
def test_elements_that_hdf5_cannot_hold(path: Path, value: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        write_hdf5(path, "y", [hpcfut.put(value)], shape=2)


def test_chunks_may_be_larger_than_the_dataset(path: Path) -> None:
    write_hdf5(path, "y", [hpcfut.put(np.ones((3, 4)))], shape=(3, 4), chunks=(100, 4))
    assert content_of(path, "y").sum() == 12


def test_links_that_lead_nowhere_are_named(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["soft"] = h5py.SoftLink("/nowhere/x")
        file["group/outside"] = h5py.ExternalLink("other.h5", "/x")
        file["live"] = h5py.SoftLink("/x")
    for dataset, said in [
        ("soft", "'soft' is a soft link to '/nowhere/x', which is not there"),
        ("soft/y", "'soft' is a soft link"),
        ("group/outside", "'group/outside' is an external link to '/x' in the file 'other.h5', which cannot be found"),
    ]:
        with pytest.raises(ValueError, match=f"no dataset '{dataset}': {said}"):
            read_hdf5(path, dataset)
        with pytest.raises(ValueError, match=f"no room for a dataset '{dataset}': {said}"):
            write_hdf5(path, dataset, [hpcfut.put(np.ones(10))], shape=10)
    assert hpcfut.get(read_hdf5(path, "live")[0])[1, 2] == 9.0
    with pytest.raises(ValueError, match="has no dataset 'x/y'"):
        read_hdf5(path, "x/y")


def test_who_finds_a_file_in_use_waits_for_its_end(path: Path) -> None:
    chunks = [hpcfut.put(np.full(10, i)) for i in range(2)]
    others = h5py.File(path)
    timer = threading.Timer(1.0, others.close)
    timer.start()
    write_hdf5(path, "y", chunks, shape=20, chunks=10)
    timer.join()
    assert content_of(path, "y").sum() == 10
    # Another process locks the file.
    script = f"import h5py, time\nwith h5py.File({str(path)!r}, 'a'): print(flush=True); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        refs = read_hdf5(path, "x", (5, 7))
    assert hpcfut.get(refs[0])[1, 2] == 9.0


def test_three_threads_write_into_one_file(path: Path) -> None:
    failures: list[BaseException] = []

    def write(dataset: str) -> None:
        try:
            for i in range(5):
                write_hdf5(path, f"{dataset}{i}", [hpcfut.put(np.full(1000, i))], shape=1000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with h5py.File(path) as file:
        assert [int(file[f"{name}{i}"][0]) for name in "abc" for i in range(5)] == [0, 1, 2, 3, 4] * 3
    assert os.listdir(path.parent) == [path.name]


def test_an_option_that_does_not_fit_the_elements_is_said(path: Path) -> None:
    with pytest.raises(TypeError, match=r"elements of the type float64, with the options {'fillvalue': 'abc'}: "):
        write_hdf5(path, "y", [hpcfut.put(np.ones(10))], shape=10, fillvalue="abc")
    with pytest.raises(ValueError, match=r"a dataset of the shape \(1000000+,\), .* with the options {}: "):
        write_hdf5(path, "y", iter(()), shape=10**30, chunks=10)
