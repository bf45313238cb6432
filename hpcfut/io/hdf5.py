"""Reading and writing datasets of HDF5 files.

A chunk that is read is an array with a source (``hpcfut.lazy_array``): who wants it opens the file, reads its part and
closes it. Who writes fetches one chunk after the other, and writes them to a file of its own, which nobody sees. With
its last chunk that becomes the file that was asked for, or is copied there, so that nobody takes half of a dataset for
all, and what is written may be made of what is read from the same file.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import islice
from typing import Any, Final

import hpcfut
from hpcfut.io.files import Path, absolute, demand_place, find, name_of_dataset, open_file, own_rank, text_of
from hpcfut.io.grids import Grid, grid_of, range_text, sizes_of
from hpcfut.io.unfinished import Unfinished

#: What is being copied into a file is called so, at its top.
UNFINISHED: Final = "unfinished (hpcfut is writing, or was stopped)"
#: What h5py's ``create_dataset`` takes and is told by ``write_hdf5`` itself.
_OWN_OPTIONS: Final = ("name", "dtype", "data")
#: What it takes, and what fits only some types of elements.
_OPTIONS_OF_TYPES: Final = ("fillvalue", "scaleoffset")


def read_hdf5(path: Path, dataset: str, chunks: int | Sequence[int] | None = None) -> list[hpcfut.ObjectRef[Any]]:
    """References to the chunks of a dataset, which are read when they are first wanted, by the rank that wants them.

    The file is looked at now, but no data is read. A rank that has no room for more drops chunks and reads them again
    when they are wanted again, so that a file may be larger than all memory. Until then it must stay as it is, in a
    folder that all ranks see. Who finds it open for writing waits a few seconds for its end.

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
        chunks: The shape of a chunk, cut to that of the dataset; the last one along each axis has what is left. If it
            is not given, it is that of the chunks in the file, or there is one chunk.

    Returns:
        A ref to each chunk, in C order of the grid of chunks: the last axis counts fastest.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It is no HDF5 file, or cannot be read.
        TypeError: The dataset has Python objects (strings of different lengths, say), the chunks are no numbers, or the
            name of the dataset is no text.
        ValueError: There is no such dataset in the file, it has no elements, or the chunks do not fit its shape.
    """
    import numpy

    path, dataset = absolute(path), name_of_dataset(dataset)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path}, at least on rank {own_rank()}.")
    with open_file(path, "r") as file:
        found = find(file, path, dataset)
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
        grid = grid_of(name, found.shape, found.chunks if chunks is None else chunks)
    return [
        hpcfut.lazy_array(_read_chunk, sizes, dtype, path, dataset, grid.shape, start)  # Nothing is read here.
        for start, sizes in grid
    ]


def _read_chunk(array: Any, path: str, dataset: str, shape: tuple[int, ...], start: tuple[int, ...]) -> None:
    try:
        with open_file(path, "r") as file:
            found = find(file, path, dataset)
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
            f"{own_rank()}: {text_of(error)}. A chunk is read when it is first wanted, and again after it was "
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
    datasets of the same file: it is not touched before all chunks are there. They are written to a file without a name
    in its folder, and copied into it if it exists. If a chunk fails, or cannot be written, or the rank is killed,
    nothing is left. (Where a file system has no files without names, as NFS, a killed rank leaves one that ends in
    ``.unfinished``; and one that is killed as it copies may damage the file, as any writer of HDF5.) Several tasks may
    write into one file: who finds it open waits a few seconds for its end.

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
        chunks: The shape of a chunk, cut to that of the dataset; the last one along each axis has what is left. If it
            is not given, there is one chunk.
        options: Passed on to h5py's ``create_dataset``: ``compression="gzip"``, for instance. They are tried before
            anything is written.

    Raises:
        FileNotFoundError: There is no such folder.
        OSError: The file cannot be opened or written; somebody else may have it open. What was complete is kept then,
            and the sentence says where.
        TypeError: A chunk is no array of numbers or of other elements of one size, is masked, or has elements that HDF5
            has no place for; shape or chunks are no numbers; the name of the dataset is no text; there is no such
            option. If something else than a ref was given, it is a ``NotARefError``.
        ValueError: There is such a dataset already, there are more or fewer refs than chunks, a chunk has another shape
            or type than it should, or an option has a value that cannot be.
        Exception: What the ``get`` of a chunk raises.
    """
    path, dataset = absolute(path), name_of_dataset(dataset)
    name = f"Dataset {dataset!r} in {path}"
    grid = grid_of(name, sizes_of("shape", shape), chunks)
    checked = _checked(refs, name, grid)
    _demand_options(grid.shape, options)
    demand_place(path, dataset)
    with Unfinished(path) as unfinished:
        _write(unfinished, dataset, name, grid, checked, options)
        try:
            _put_in_place(unfinished, path, dataset)
        except Exception as error:
            # Tasks may have worked on it for hours.
            raise OSError(
                f"{name} could not be put into that file: {text_of(error)}. It is complete, and was kept as dataset "
                f"{dataset!r} in {unfinished.keep()}."
            ) from error


def _demand_options(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """Try the options on a dataset in memory, so that nobody learns only from the first chunk what is wrong with them.

    Raises:
        TypeError: There is no such option, or it is not for others to give.
        ValueError: An option has a value that cannot be.
    """
    import h5py

    for option in _OWN_OPTIONS:
        if option in options:
            raise TypeError(
                f"write_hdf5() was given the option {option!r}, which it gives itself: the dataset has the name that "
                f"you say, and the elements of its chunks. Convert the chunks, if they should have another type."
            )
    tried = {option: value for option, value in options.items() if option not in _OPTIONS_OF_TYPES}
    with h5py.File(BytesIO(), "w") as file:
        _create(file, "tried", shape, "f8", tried)


def _create(file: Any, dataset: str, shape: tuple[int, ...], dtype: Any, options: dict[str, Any]) -> Any:
    try:
        return file.create_dataset(dataset, shape=shape, dtype=dtype, **options)
    except Exception as error:
        kind = type(error) if isinstance(error, TypeError | OSError) else ValueError
        raise kind(
            f"h5py cannot create a dataset of the shape {shape}, with elements of the type {dtype}, with the options "
            f"{options}: {text_of(error)}. Its documentation of create_dataset() names all options and their values."
        ) from error


def _put_in_place(unfinished: Unfinished, path: str, dataset: str) -> None:
    """Make a complete file the one that was asked for, or copy its dataset there."""
    from h5py._objects import phil

    if unfinished.take_place():
        return
    with (
        open_file(unfinished.path, "r", unfinished.driver) as source,
        open_file(path, "a") as file,
        phil,  # The lock of h5py: another thread may have the same file open, which the file's lock does not see.
    ):
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


def _write(
    unfinished: Unfinished,
    dataset: str,
    name: str,
    grid: Grid,
    refs: Iterator[hpcfut.ObjectRef[Any]],
    options: dict[str, Any],
) -> None:
    file = open_file(unfinished.path, "w", unfinished.driver)
    try:
        _write_chunks(file, dataset, name, grid, refs, options)
        file.close()
    except BaseException:  # A Ctrl-C, too.
        unfinished.clear()  # A full disk is full for HDF5 as well, which writes what it still has.
        with suppress(Exception):
            file.close()
        raise


def _write_chunks(
    file: Any, dataset: str, name: str, grid: Grid, refs: Iterator[hpcfut.ObjectRef[Any]], options: dict[str, Any]
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
            written = _create(file, dataset, grid.shape, dtype, options)
        elif array.dtype != dtype:
            raise ValueError(
                f"{which} has elements of the type {array.dtype}, and those of the first chunk have {dtype}. Convert "
                f"all to one type."
            )
        with _writing(which):
            written[tuple(slice(first, first + size) for first, size in zip(start, sizes, strict=True))] = array
        n_written += 1
        del ref, array  # Nothing of it is kept while the next one comes.
    if n_written != len(grid):
        raise ValueError(_miscount(name, grid, f"{n_written} refs came"))
    with _writing(name):
        file.flush()  # What no disk has room for is said here, and not when the file is closed.


@contextmanager
def _writing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"{what} could not be written: {text_of(error)}. See that the disk has room.") from error


def _checked(refs: Any, name: str, grid: Grid) -> Iterator[hpcfut.ObjectRef[Any]]:
    """The refs: those of a list looked at now, others as they come."""
    if not isinstance(refs, Iterable):
        raise hpcfut.exceptions.NotARefError(
            f"write_hdf5() was given a {type(refs).__name__} in place of refs. Give it a list of them, or a generator."
        )
    if not isinstance(refs, Sequence):
        return _checked_one_by_one(refs)
    if len(refs) != len(grid):
        raise ValueError(_miscount(name, grid, f"{len(refs)} refs were given"))
    return iter(list(_checked_one_by_one(refs)))


def _checked_one_by_one(refs: Iterable[Any]) -> Iterator[hpcfut.ObjectRef[Any]]:
    for position, ref in enumerate(refs):
        if not isinstance(ref, hpcfut.ObjectRef):
            raise hpcfut.exceptions.NotARefError(
                f"write_hdf5() was given a {type(ref).__name__} as chunk {position}. Every chunk must be a ref, as "
                f".remote() and put() return them."
            )
        yield ref
        del ref


def _ahead(source: Iterator[hpcfut.ObjectRef[Any]], n: int) -> Iterator[hpcfut.ObjectRef[Any]]:
    """The refs, with so many of them taken ahead; the next one is on its way here while one is used."""
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
    from h5py import h5t

    if not isinstance(value, numpy.ndarray | numpy.generic) or value.dtype.hasobject:
        what = "an array of Python objects" if hasattr(value, "dtype") else f"a {type(value).__name__}"
        raise TypeError(f"{chunk} is {what}. Give refs to arrays of numbers, or of other elements of one size.")
    if isinstance(value, numpy.ma.MaskedArray):
        raise TypeError(
            f"{chunk} is a masked array, and HDF5 has no masks. Give refs to arrays in which something stands for what "
            f"is masked, as .filled(nan) makes them, and write the mask as another dataset."
        )
    if value.shape != sizes:
        raise ValueError(f"{chunk} has the shape {value.shape}. The refs must come in C order of the grid of chunks.")
    try:
        h5t.py_create(value.dtype, logical=True)
    except TypeError:
        raise TypeError(
            f"{chunk} has elements of the type {value.dtype}, which HDF5 has no place for. Convert the chunks before: "
            f"texts by .astype('S20') or numpy.char.encode(), times by .view('i8')."
        ) from None
    return value


def _miscount(name: str, grid: Grid, count: str) -> str:
    return (
        f"{name} of the shape {grid.shape} has {len(grid)} chunks of the shape {grid.chunks}, but {count}. Give one "
        f"ref to each chunk, in C order."
    )
