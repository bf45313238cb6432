"""Every public name has an example in its docstring, and the example does what it says."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import hpcfut
import hpcfut.io
import hpcfut.util
from tests.mpi.jobs import CHECKOUT

#: They speak for themselves.
NEED_NONE = ("__version__", "actor", "exceptions")


def public_names() -> Iterator[tuple[str, Any]]:
    """Functions, classes with their own methods and properties, and exceptions."""
    for name in hpcfut.__all__:
        if name in NEED_NONE:
            continue
        thing = getattr(hpcfut, name)
        yield name, thing
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    yield f"{name}.{member}", value
    for module in (hpcfut.exceptions, hpcfut.io, hpcfut.util):
        for name in module.__all__:
            yield f"{module.__name__.removeprefix('hpcfut.')}.{name}", getattr(module, name)


NAMES = dict(public_names())


@pytest.fixture(autouse=True)
def a_job_of_its_own() -> Iterator[None]:
    hpcfut.shutdown()
    yield
    hpcfut.shutdown()


@pytest.mark.parametrize("name", NAMES)
def test_its_example(name: str) -> None:
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(NAMES[name], name, module=False, globs={"hpcfut": hpcfut, "__name__": "__main__"})
    assert example.examples, f"hpcfut.{name} has no example in its docstring."
    said: list[str] = []
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    doctest.DocTestRunner(optionflags=flags).run(example, out=said.append)
    assert not said, "".join(said)


def test_everything_that_is_offered_is_listed() -> None:
    assert [name for name in hpcfut.__all__ if not hasattr(hpcfut, name)] == []
    offered = {
        name for name in vars(hpcfut) if not name.startswith("_") and not inspect.ismodule(getattr(hpcfut, name))
    }
    assert offered <= set(hpcfut.__all__)


def test_readme_tells_of_every_exception() -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert [name for name in hpcfut.exceptions.__all__ if f"`{name}`" not in readme] == []
