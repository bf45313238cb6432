"""What README shows does what README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mpi.jobs import CHECKOUT, Mpi, run_job

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.mpi
@pytest.mark.parametrize("n_ranks", [1, 3])
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_its_programs(mpi: Mpi, n_ranks: int, number: int, tmp_path: Path) -> None:
    """What a line prints stands behind it, up to a semicolon."""
    program = PROGRAMS[number]
    script = tmp_path / "script.py"
    script.write_text(program)
    is_spmd = program.startswith("# spmd\n")
    if is_spmd and n_ranks == 1:
        n_ranks = 2  # One process that starts MPI by itself leaves a segment of Open MPI behind.
    job = run_job(mpi, n_ranks, script, options=["--spmd"] if is_spmd else []).check()
    said = re.findall(r"^ *print\(.*\)  # ([^;\n]+)", program, re.MULTILINE)
    assert said
    assert job.stdout.splitlines() == said, job.story()


def test_the_two_commands_come_first() -> None:
    (commands, *_) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert README.startswith(f"# hpcfut\n\n```sh\n{commands}")
    scripts = [line.split()[0] for line in commands.splitlines()]
    assert scripts == ["launch/quickstart.sh", "launch/test.sh"]


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert not [link for link in links if not (CHECKOUT / link).exists()]
