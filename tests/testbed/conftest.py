"""The two hosts, made once for all tests that need them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.testbed.hosts import NoTestbed, TwoHosts, two_hosts


@pytest.fixture(scope="session")
def hosts() -> Iterator[TwoHosts]:
    """The hosts; where they cannot be made the test is skipped, but CI must be able to."""
    try:
        with two_hosts() as made:
            yield made
    except NoTestbed as reason:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(f"CI as root must be able to make two hosts. {reason}", pytrace=False)
        pytest.skip(str(reason))
