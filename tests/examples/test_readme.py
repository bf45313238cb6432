"""What README shows does what README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mpi.jobs import CHECKOUT, Mpi, run_job

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


@pytest.mark.mpi
@pytest.mark.parametrize("n_ranks", [1, 3])
def test_its_program(mpi: Mpi, n_ranks: int, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "script.py"
    script.write_text(program)
    job = run_job(mpi, n_ranks, script).check()
    (said,) = re.findall(r"print\(.*# (\d+)", program)
    assert job.stdout == f"{said}\n", job.story()


def test_the_two_commands_come_first() -> None:
    (commands, *_) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert README.startswith(f"# hpcfut\n\n```sh\n{commands}")
    scripts = [line.split()[0] for line in commands.splitlines()]
    assert scripts == ["launch/quickstart.sh", "launch/test.sh"]


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert not [link for link in links if not (CHECKOUT / link).exists()]
