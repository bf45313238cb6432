"""The checks of the tools, as tests, so that one command and one summary say it all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command",
    ["ruff check", "ruff format --check", "mypy"],
)
def test_tool_finds_nothing(command: str) -> None:
    words = [sys.executable, "-m", *command.split()]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("script", [".ci/run", *(f"launch/{n}.sh" for n in ("quickstart", "test"))])
def test_shell_can_read(script: str) -> None:
    done = subprocess.run(["bash", "-n", CHECKOUT / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (CHECKOUT / script).stat().st_mode & 0o100, f"'{script}' must be executable."
