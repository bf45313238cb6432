"""Reading and writing datasets of HDF5 files.

A chunk that is read is an array with a source (``hpcfut.lazy_array``): who wants it opens the file, reads its part and
closes it. Who writes fetches one chunk after the other, and writes them to a file of its own beside the one that was
asked for. With its last chunk that becomes the file, or is copied there, so that nobody takes half of a dataset for
all, and what is written may be made of what is read from the same file.
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import hpcfut
from hpcfut.io.grids import Grid, grid_of, range_text, sizes_of

#: What is being copied into a file is called so, at its top.
UNFINISHED: Final = "unfinished (hpcfut is writing, or was stopped)"
#: Of the datasets in a file, so many are named in a complaint.
_N_NAMED_MAX: Final = 8

Path = str | os.PathLike[str]


def read_hdf5(path: Path, dataset: str, chunks: int | Sequence[int] | None = None) -> list[hpcfut.ObjectRef[Any]]:
    """References to the chunks of a dataset, which are read when they are first wanted, by the rank that wants them.

    The file is looked at now, but no data is read. A rank that has no room for more drops chunks and reads them again
    when they are wanted again, so that a file may be larger than all memory. Until then it must stay as it is, in a
    folder that all ranks see, and nobody may have it open for writing while a chunk is read.

    Example:
        >>> import h5py, numpy, os, tempfile
        >>> from hpcfut.io import read_hdf5
        >>> path = os.path.join(tempfile.mkdtemp(), "field.h5")
        >>> with h5py.File(path, "w") as file:
        ...     file["x"] = numpy.arange(12.0).reshape(4, 3)
        >>> [hpcfut.get(ref).tolist() for ref in read_hdf5(path, "x", chunks=(3, 2))]
        [[[0.0, 1.0], [3.0, 4.0], [6.0, 7.0]], [[2.0], [5.0], [8.0]], [[9.0, 10.0]], [[11.0]]]

    Args:
        path: The file; a relative path is one of this rank's.
        dataset: The name of the dataset, with those of its groups.
        chunks: The shape of a chunk; the last chunk along each axis has what is left. If it is not given, it is that of
            the chunks in the file, or there is one chunk.

    Returns:
        A ref to each chunk, in C order of the grid of chunks: the last axis counts fastest.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It is no HDF5 file, or cannot be read.
        TypeError: The dataset has Python objects (strings of different lengths, say), or the chunks are no numbers.
        ValueError: There is no such dataset in the file, it has no elements, or the chunks do not fit its shape.
    """
    import numpy

    path = _absolute(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path}, at least on rank {_own_rank()}.")
    with _open(path, "r") as file:
        found = _find(file, path, dataset)
        name = f"Dataset {dataset!r} in {path}"
        # What h5py notes beside the type, the names of an enumeration say, stays in the file.
        dtype = found.dtype if found.dtype.metadata is None else numpy.dtype(found.dtype.str)
        if found.shape is None:
            raise ValueError(f"{name} has no elements: there are no chunks of it.")
        if found.dtype.hasobject:
            raise TypeError(
                f"{name} has elements of the type {found.dtype}, which are Python objects: strings of different "
                f"lengths, or references. Only elements of one size can be read; store strings with a fixed "
                f"length, as 'S20'."
            )
        if chunks is None and found.chunks is not None:
            # A dataset that can grow may be smaller than one chunk of it.
            chunks = tuple(map(min, found.chunks, found.shape))
        grid = grid_of(name, found.shape, chunks)
    return [
        hpcfut.lazy_array(_read_chunk, sizes, dtype, path, dataset, grid.shape, start)  # Nothing is read here.
        for start, sizes in grid
    ]


def _read_chunk(array: Any, path: str, dataset: str, shape: tuple[int, ...], start: tuple[int, ...]) -> None:
    try:
        with _open(path, "r") as file:
            found = _find(file, path, dataset)
            if found.shape != shape or found.dtype != array.dtype:
                raise ValueError(
                    f"it had the shape {shape} and the type {array.dtype} when read_hdf5() was called, and has the "
                    f"shape {found.shape} and the type {found.dtype} now"
                )
            if not shape:
                array[()] = found[()]
                return
            # Seen as the type of the file, the bytes need no conversion.
            part = tuple(slice(first, first + size) for first, size in zip(start, array.shape, strict=True))
            found.read_direct(array.view(found.dtype), part)
    except Exception as error:
        raise OSError(
            f"Chunk {range_text(start, array.shape)} of dataset {dataset!r} in {path} could not be read on rank "
            f"{_own_rank()}: {_text_of(error)}. A chunk is read when it is first wanted, and again after it was "
            f"dropped: leave the file as it is until then, in a folder that all ranks see."
        ) from error


def write_hdf5(
    path: Path,
    dataset: str,
    refs: Iterable[hpcfut.ObjectRef[Any]],
    *,
    shape: int | Sequence[int],
    chunks: int | Sequence[int] | None = None,
    **options: Any,
) -> None:
    """Write arrays as the chunks of a new dataset, in a new file or in one that exists; returns when it is there.

    The rank that calls this writes, and gets one chunk after the other, so that there may be more of them than fit into
    any memory. A task may call it, too. ``refs`` may be a generator: it is asked for two chunks a rank ahead of the
    one that is written, so that tasks which make chunks do not make all of them first. They may be made of other
    datasets of the same file: it is not touched before all chunks are there. They are written beside it, and copied
    into it if it exists. If a chunk fails, or cannot be written, nothing is left.

    Example:
        >>> import numpy, os, tempfile
        >>> from hpcfut.io import read_hdf5, write_hdf5
        >>> path = os.path.join(tempfile.mkdtemp(), "squares.h5")
        >>> squares = hpcfut.remote(lambda first: numpy.arange(first, first + 1000) ** 2)
        >>> blocks = (squares.remote(first) for first in range(0, 5000, 1000))
        >>> write_hdf5(path, "blocks/squares", blocks, shape=5000, chunks=1000, compression="gzip")
        >>> len(read_hdf5(path, "blocks/squares", chunks=2000))
        3

    Args:
        path: The file; a relative path is one of this rank's.
        dataset: The name of the dataset, with those of its groups, which are made if they are not there.
        refs: A ref to each chunk, in C order of the grid of chunks: the last axis counts fastest. The type of the first
            one's elements is that of the dataset; all must have the same.
        shape: The shape of the dataset.
        chunks: The shape of a chunk, the last along each axis excepted, which has what is left; if it is not given,
            there is one chunk.
        options: Passed on to h5py's ``create_dataset``: ``compression="gzip"``, for instance.

    Raises:
        OSError: The file cannot be opened or written; somebody else may have it open. What was complete is kept then,
            and the sentence says where.
        TypeError: A chunk is no array of numbers or of other elements of one size, or shape or chunks are no numbers.
        ValueError: There is such a dataset already, there are more or fewer refs than chunks, or a chunk has another
            shape or type than it should.
        Exception: What the ``get`` of a chunk raises.
    """
    path = _absolute(path)
    name = f"Dataset {dataset!r} in {path}"
    grid = grid_of(name, sizes_of("shape", shape), chunks)
    if isinstance(refs, Sequence) and len(refs) != len(grid):
        raise ValueError(_miscount(name, grid, f"{len(refs)} refs were given"))
    _demand_place(path, dataset)
    # In the same folder, so on the same disk.
    beside = f"{path}.{uuid.uuid4().hex[:8]}.unfinished"
    try:
        with _open(beside, "w") as file:
            _write_chunks(file, dataset, name, grid, refs, options)
    except BaseException:  # A Ctrl-C, too.
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise
    try:
        _put_in_place(beside, path, dataset)
    except Exception as error:
        # Tasks may have worked on it for hours.
        raise OSError(
            f"{name} could not be put into that file: {_text_of(error)}. It is complete, and was kept as dataset "
            f"{dataset!r} in {beside}."
        ) from error
    with suppress(FileNotFoundError):  # It may have been renamed.
        os.unlink(beside)


def _put_in_place(beside: str, path: str, dataset: str) -> None:
    """Make a complete file the one that was asked for, or copy its dataset there."""
    try:
        os.link(beside, path)  # Which spares a file that somebody else has made meanwhile.
        return
    except FileExistsError:
        pass
    except OSError:  # Not every file system has links.
        if not os.path.exists(path):
            os.rename(beside, path)
            return
    with _open(beside, "r") as source, _open(path, "a") as file:
        try:
            if UNFINISHED in file:
                del file[UNFINISHED]  # It was left by somebody who was killed.
            source.copy(dataset, file, UNFINISHED)
            file.flush()  # A disk that is full says so here, before anybody finds the dataset.
            file.move(UNFINISHED, dataset)
        except BaseException:  # A Ctrl-C, too.
            with suppress(Exception):
                del file[UNFINISHED]
            raise


def _write_chunks(
    file: Any, dataset: str, name: str, grid: Grid, refs: Iterable[hpcfut.ObjectRef[Any]], options: dict[str, Any]
) -> None:
    written: Any = None
    dtype: Any = None
    n_written = 0
    chunks = iter(grid)
    for ref in _ahead(refs, 2 * len(hpcfut.nodes())):
        chunk = next(chunks, None)
        if chunk is None:
            raise ValueError(_miscount(name, grid, "more refs came"))
        start, sizes = chunk
        which = f"Chunk {n_written} of {name}, {range_text(start, sizes)},"
        array = _array_of(hpcfut.get(ref), which, sizes)
        if written is None:
            dtype = array.dtype
            written = file.create_dataset(dataset, shape=grid.shape, dtype=dtype, **options)
        elif array.dtype != dtype:
            raise ValueError(
                f"{which} has elements of the type {array.dtype}, and those of the first chunk have {dtype}. Convert "
                f"all to one type."
            )
        written[tuple(slice(first, first + size) for first, size in zip(start, sizes, strict=True))] = array
        n_written += 1
        del ref, array  # Nothing of it is kept while the next one comes.
    if n_written != len(grid):
        raise ValueError(_miscount(name, grid, f"{n_written} refs came"))


def _ahead(refs: Iterable[hpcfut.ObjectRef[Any]], n: int) -> Iterator[hpcfut.ObjectRef[Any]]:
    """The refs, with so many of them taken ahead; the next one is on its way here while one is used."""
    source = iter(refs)
    taken = deque(islice(source, n))
    while taken:
        ref = taken.popleft()
        if taken:
            hpcfut.wait([taken[0]], timeout=0)
        yield ref
        del ref
        taken.extend(islice(source, 1))


def _array_of(value: Any, chunk: str, sizes: tuple[int, ...]) -> Any:
    import numpy

    if not isinstance(value, numpy.ndarray | numpy.generic) or value.dtype.hasobject:
        what = "an array of Python objects" if hasattr(value, "dtype") else f"a {type(value).__name__}"
        raise TypeError(f"{chunk} is {what}. Give refs to arrays of numbers, or of other elements of one size.")
    if value.shape != sizes:
        raise ValueError(f"{chunk} has the shape {value.shape}. The refs must come in C order of the grid of chunks.")
    return value


def _miscount(name: str, grid: Grid, count: str) -> str:
    return (
        f"{name} of the shape {grid.shape} has {len(grid)} chunks of the shape {grid.chunks}, but {count}. Give one "
        f"ref to each chunk, in C order."
    )


# -- files -------------------------------------------------------------------------------------------------------------


def _absolute(path: Path) -> str:
    return os.path.abspath(os.fspath(path))


def _own_rank() -> str:
    return hpcfut.get_runtime_context().get_node_id()


def _open(path: str, mode: str) -> Any:
    import h5py

    try:
        return h5py.File(path, mode)
    except OSError as error:
        how = "read" if mode == "r" else "written"
        raise type(error)(
            f"{path} cannot be {how} as an HDF5 file: {error}. See that it is one, that its folder is there and open "
            f"to you, and that nobody {'writes to it' if mode == 'r' else 'uses it'} now."
        ) from error


def _find(file: Any, path: str, dataset: str) -> Any:
    """The dataset of this name."""
    import h5py

    found = file.get(dataset)
    if isinstance(found, h5py.Dataset):
        return found
    names: list[str] = []

    def note(name: str, thing: Any) -> bool | None:
        if isinstance(thing, h5py.Dataset):
            names.append(name)
        return True if len(names) == _N_NAMED_MAX else None

    file.visititems(note)
    others = f"It has {', '.join(map(repr, names))}." if names else "It has no datasets at all."
    what = f"no dataset {dataset!r}" if found is None else f"a group {dataset!r}, which is no dataset"
    raise ValueError(f"{path} has {what}. {others}")


def _text_of(error: BaseException) -> str:
    """To go on with in the same sentence."""
    return str(error).rstrip(".")


def _demand_place(path: str, dataset: str) -> None:
    """See to it that there can be a dataset of this name."""
    parts = [part for part in dataset.split("/") if part]
    if not parts:
        raise ValueError(f"The dataset is called {dataset!r}. Give it a name.")
    if os.path.exists(path):
        with _open(path, "r") as file:
            _demand_free(file, path, dataset, parts)


def _demand_free(file: Any, path: str, dataset: str, parts: list[str]) -> None:
    import h5py

    group = file
    for depth, part in enumerate(parts):
        found = group.get(part)
        if found is None:
            return
        if depth + 1 == len(parts):
            kind = "group" if isinstance(found, h5py.Group) else "dataset"
            raise ValueError(f"{path} has a {kind} {dataset!r} already. Give the new dataset another name.")
        if not isinstance(found, h5py.Group):
            raise ValueError(f"{path} has a dataset {'/'.join(parts[: depth + 1])!r}, and so no group of that name.")
        group = found
