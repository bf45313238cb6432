"""What only root can do in a test: file systems of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.mpi.jobs import CHECKOUT


def demand_root(*tools: str) -> None:
    """Skips the test where it cannot be done; CI must be able to."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if os.geteuid() != 0:
        pytest.skip("Only root can mount, become another user and make control groups: start the tests as root.")
    if missing:
        reason = f"This needs {', '.join(missing)}: apt-get install -y mount util-linux"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def run_beside_mount(
    folder: Path, size: str, command: Sequence[str | Path], environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command that sees a memory file system of this size on the folder; nobody else does."""
    demand_root("mount", "unshare")
    mount = f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(folder))} && exec {shlex.join(map(str, command))}"
    return subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", mount],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
