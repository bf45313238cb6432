"""What all tests share: the options, and the environments of the MPIs."""

from __future__ import annotations

import pytest

from tests.mpi.jobs import MPI_NAMES, Mpi, environments


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulator")
    group.addoption("--seeds", type=int, default=1000, metavar="N", help="how many seeds the sweep runs (1000)")
    group.addoption("--seed", type=int, metavar="N", help="run this seed of the sweep only, and print its story")


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
