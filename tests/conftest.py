"""What all tests share: the options, and the environments of the MPIs."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.mpi.jobs import MPI_NAMES, Mpi, environments
from tests.mpi.shared import DURATION_S


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulator")
    group.addoption("--seeds", type=int, default=1000, metavar="N", help="how many seeds the sweep runs (1000)")
    group.addoption("--seed", type=int, metavar="N", help="run this seed of the sweep only, and print its story")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A case of a shared job has taken as long as it took there."""
    report = yield
    if call.when == "call":
        report.duration = item.stash.get(DURATION_S, report.duration)
    return report


def pytest_report_header() -> str:
    found = ", ".join(f"{mpi.name} in {mpi.folder}" for mpi in environments().values())
    return f"MPI environments: {found or 'none; launch/test.sh makes them'}"


@pytest.fixture(scope="module", params=MPI_NAMES)
def mpi(request: pytest.FixtureRequest) -> Mpi:
    """Each MPI in turn; what asks for it is skipped where that MPI has no environment."""
    name: str = request.param
    found = environments()
    if name not in found:
        pytest.skip(f"There is no environment with {name}: launch/test.sh makes one.")
    return found[name]
