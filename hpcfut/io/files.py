"""HDF5 files: opening them, and what is in them under which name."""

from __future__ import annotations

import os
import time
from typing import Any, Final

import hpcfut

#: Who finds a file in use tries again so often, after so long each time.
N_TRIES: Final = 25
TRY_AGAIN_S: Final = 0.2
#: Of the datasets in a file, so many are named in a complaint.
_N_NAMED_MAX: Final = 8

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def absolute(path: Path) -> str:
    """The path from the root on."""
    return os.path.abspath(os.fsdecode(path))


def own_rank() -> str:
    """For complaints."""
    return hpcfut.get_runtime_context().get_node_id()


def text_of(error: BaseException) -> str:
    """To go on with in the same sentence."""
    return str(error).rstrip(".")


def name_of_dataset(dataset: Any) -> str:
    """The one form of a name that may have been written in several ways.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, or HDF5 cannot have it.
    """
    if not isinstance(dataset, str):
        kind = type(dataset).__name__
        raise TypeError(f"The dataset is called {dataset!r}, which is a {kind}. Give its name as a str.")
    if "\0" in dataset:
        raise ValueError(f"The dataset is called {dataset!r}. A name in HDF5 has no NUL character; leave it out.")
    name = "/".join(part for part in dataset.split("/") if part not in ("", "."))
    if not name:
        raise ValueError(f"The dataset is called {dataset!r}. Give it a name.")
    return name


def open_file(path: str, mode: str, driver: str | None = None) -> Any:
    """Open a file, also one that somebody else is just about to close.

    Raises:
        OSError: It cannot be opened.
    """
    import h5py

    n_tries = 1
    while True:
        try:
            return h5py.File(path, mode, driver=driver)
        except OSError as error:
            # By another process, which has locked it, or by another thread of this one.
            is_in_use = isinstance(error, BlockingIOError) or "already open" in str(error)
            if not is_in_use or n_tries == N_TRIES:
                how = "read" if mode == "r" else "written"
                raise type(error)(
                    f"{path} cannot be {how} as an HDF5 file: {error}. See that it is one, that its folder is there "
                    f"and open to you, and that nobody {'writes to it' if mode == 'r' else 'uses it'} now."
                ) from error
        n_tries += 1
        # Nobody tells when HDF5 lets a file go; who has it for longer than all tries is said in a sentence.
        time.sleep(TRY_AGAIN_S)


def find(file: Any, path: str, dataset: str) -> Any:
    """The dataset of this name.

    Raises:
        ValueError: There is none.
    """
    import h5py

    found = _get(file, dataset)
    if isinstance(found, h5py.Dataset):
        return found
    if found is None and (dead := _dead_link(file, dataset)):
        raise ValueError(f"{path} has no dataset {dataset!r}: {dead}")
    names: list[str] = []

    def note(name: str, thing: Any) -> bool | None:
        if isinstance(thing, h5py.Dataset):
            names.append(name)
        return True if len(names) == _N_NAMED_MAX else None

    file.visititems(note)
    others = f"It has {', '.join(map(repr, names))}." if names else "It has no datasets at all."
    what = f"no dataset {dataset!r}" if found is None else f"a group {dataset!r}, which is no dataset"
    raise ValueError(f"{path} has {what}. {others}")


def demand_place(path: str, dataset: str) -> None:
    """See to it that there can be a dataset of this name.

    Raises:
        FileNotFoundError: There is not even a folder for the file.
        OSError: The file cannot be read.
        ValueError: There is something of this name, or in the place of one of its groups.
    """
    import h5py

    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"There is no folder {folder}, at least on rank {own_rank()}. Make it before you write {path}."
        )
    if not os.path.exists(path):
        return
    with open_file(path, "r") as file:
        for name in _names_on_the_way(dataset):
            found = _get(file, name)
            if found is None:
                if dead := _dead_link(file, name):
                    raise ValueError(f"{path} has no room for a dataset {dataset!r}: {dead} Give it another name.")
                return
            if name == dataset:
                kind = "group" if isinstance(found, h5py.Group) else "dataset"
                raise ValueError(f"{path} has a {kind} {dataset!r} already. Give the new dataset another name.")
            if not isinstance(found, h5py.Group):
                raise ValueError(f"{path} has a dataset {name!r}, and so no group of that name.")


def _names_on_the_way(dataset: str) -> list[str]:
    """The names of its groups, and its own."""
    parts = dataset.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _get(file: Any, name: str) -> Any:
    """What has this name, or ``None``, also for a link that leads nowhere."""
    try:
        return file.get(name)
    except OSError:  # A link leads to another file, which cannot be opened.
        return None


def _dead_link(file: Any, dataset: str) -> str:
    """A sentence about the link on the way to a dataset that leads nowhere, if there is one."""
    from h5py import Group, h5l

    for name in _names_on_the_way(dataset):
        found = _get(file, name)
        if isinstance(found, Group):
            continue
        key = name.encode("utf-8", "surrogateescape")
        if found is None and file.id.links.exists(key):
            kind = file.id.links.get_info(key).type
            if kind == h5l.TYPE_SOFT:
                target = os.fsdecode(file.id.links.get_val(key))
                return f"{name!r} is a soft link to {target!r}, which is not there."
            if kind == h5l.TYPE_EXTERNAL:
                other, target = map(os.fsdecode, file.id.links.get_val(key))
                return f"{name!r} is an external link to {target!r} in the file {other!r}, which cannot be found."
        return ""
    return ""
