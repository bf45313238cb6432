"""`hpcfut doctor`: what it says of good and of broken machines, made-up ones and this one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpcfut.cli import doctor
from hpcfut.cli.command import RunOptions
from hpcfut.cli.doctor import Finding, Level
from hpcfut.cli.job import TOO_LONG
from hpcfut.cli.launchers import Launcher, Library, NoMpiError
from hpcfut.cli.probe import Probe
from hpcfut.edges.host.spill_folder import SpillFolder, find_spill_folder
from hpcfut.model.errors import HpcfutError
from tests.mpi.jobs import MPI_NAMES, OPENMPI_SETTINGS, Mpi, environments, run_command

GOOD = Probe("MPI 1.0", "multiple", ["a", "a"], [2, 2], True, 2.0, 5.0)
NAMES = {"openmpi": "Open MPI", "mpich": "MPICH"}


def judge(**changed: Any) -> dict[str, Finding]:
    found = {**{name: getattr(GOOD, name) for name in Probe.__struct_fields__}, **changed}
    return {finding.name: finding for finding in doctor.judge_probe(Probe(**found))}


def test_good_ranks() -> None:
    findings = judge()
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert findings["latency"].text == "2.0 µs for a round trip of 64 bytes on one host"
    assert findings["bandwidth"].text == "5.0 GB/s for 64 MiB on one host"


@pytest.mark.parametrize(
    ("changed", "name", "level"),
    [
        ({"thread_level": "serialized"}, "thread level", "warning"),
        ({"latency_us": 900.0}, "latency", "warning"),
        ({"hosts": ["a"], "cores": [2]}, "latency", "warning"),
        # Between hosts nobody expects less.
        ({"latency_us": 900.0, "is_same_host": False}, "latency", "ok"),
        ({"trouble": "It is broken: mend it."}, "ranks", "error"),
    ],
)
def test_what_is_wrong_has_a_remedy(changed: dict[str, Any], name: str, level: Level) -> None:
    finding = judge(**changed)[name]
    assert finding.level == level
    assert finding.remedy or level == "ok" or finding.text == changed["trouble"]


@pytest.mark.parametrize(
    ("hosts", "cores", "text"),
    [
        (["a", "a"], [1, 1], "2 ranks on 1 host, 1 core for each rank"),
        (["a", "a", "b"], [2, 2, 4], "3 ranks on 2 hosts (a: 2, b: 1), 2 to 4 cores for each rank"),
        (["a"], [8], "1 rank on 1 host, 8 cores for each rank"),
    ],
)
def test_ranks_hosts_and_cores_are_counted(hosts: list[str], cores: list[int], text: str) -> None:
    assert doctor.count_ranks(hosts, cores) == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11", "Open MPI v5.0.11"),
        ("MPICH Version:      5.0.2", "MPICH 5.0.2"),
    ],
)
def test_versions_are_short(said: str, text: str) -> None:
    assert doctor.shorten(said) == text


def test_little_room(tmp_path: Path) -> None:
    assert doctor.judge_shared_memory(1 << 30).level == "ok"
    finding = doctor.judge_shared_memory(64 << 20)
    assert finding.level == "warning"
    assert "--shm-size" in finding.remedy
    assert doctor.judge_scratch(tmp_path).level != "error"
    assert "TMPDIR" in doctor.judge_scratch(tmp_path / "none").remedy


def test_where_objects_are_spilled_to(tmp_path: Path) -> None:
    finding = doctor.judge_spill_folder(SpillFolder(tmp_path, "ext4"))
    assert (finding.level, finding.remedy) == ("ok", "")
    assert finding.text.startswith(f"to {tmp_path} (ext4), ")
    finding = doctor.judge_spill_folder(find_spill_folder(str(tmp_path / "none"), {}))
    assert finding.level == "warning"
    assert finding.text.endswith("which is no folder that this user can reach")
    assert finding.remedy.startswith("Name a folder on a disk with init(spill_folder=...)")


def test_flags_of_root() -> None:
    finding = doctor.judge_root({"OMPI_ALLOW_RUN_AS_ROOT": "1"})
    assert finding.level == "ok"
    assert "OMPI_ALLOW_RUN_AS_ROOT=1" not in finding.remedy
    assert "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1" in finding.remedy
    assert not doctor.judge_root(OPENMPI_SETTINGS).remedy


def examine(
    monkeypatch: pytest.MonkeyPatch, library: Library | HpcfutError, launcher: Launcher | HpcfutError
) -> Finding:
    """What is found last on a machine where finding library and launcher has these results."""

    def find(result: Any) -> Any:
        if isinstance(result, HpcfutError):
            raise result
        return result

    monkeypatch.setattr(doctor, "find_library", lambda environ: find(library))
    monkeypatch.setattr(doctor, "find_launcher", lambda mpi, environ: find(launcher))
    return doctor.examine(RunOptions(n_ranks=2), "auto")[-1]


LIBRARY = Library("mpich", "MPICH 5.0")


@pytest.mark.parametrize(
    ("library", "launcher"),
    [(NoMpiError("None: install it."), NoMpiError("")), (LIBRARY, NoMpiError("None: install it."))],
)
def test_no_mpi(monkeypatch: pytest.MonkeyPatch, library: Library | NoMpiError, launcher: NoMpiError) -> None:
    assert examine(monkeypatch, library, launcher) == Finding("MPI", "error", "None: install it.")


@pytest.mark.parametrize(("status", "words"), [(TOO_LONG, "firewall"), (7, "printed above")])
def test_ranks_that_do_not_start(monkeypatch: pytest.MonkeyPatch, status: int, words: str) -> None:
    monkeypatch.setattr(doctor, "run_job", lambda *args, **named: status)
    finding = examine(monkeypatch, LIBRARY, Launcher("mpich", "/mpiexec", "5.0"))
    assert finding.level == "error"
    assert words in finding.remedy


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.print_table([Finding("name", "ok", f"[red]{'long ' * 40}"), Finding("other", "error", "no", "mend it")])
    printed = capsys.readouterr().out
    # Neither wrapped nor coloured, for whatever reads it.
    assert printed.splitlines() == [
        f"ok       name   [red]{'long ' * 40}",
        "error    other  no",
        "                -> mend it",
    ]


@pytest.mark.mpi
def test_this_machine(mpi: Mpi) -> None:
    job = run_command([mpi.program("hpcfut"), "doctor", "-n", "3", "--json"]).check()
    findings = {finding["name"]: finding for finding in json.loads(job.stdout)["findings"]}
    assert {finding["level"] for finding in findings.values()} <= {"ok", "warning"}, job.story()
    assert findings["MPI library"]["text"].startswith(NAMES[mpi.name])
    assert findings["MPI on the ranks"]["text"].startswith(NAMES[mpi.name])
    assert findings["launcher"]["text"].startswith(mpi.program("mpiexec"))
    assert findings["thread level"]["text"] == "multiple"
    assert findings["ranks"]["text"].startswith("3 ranks on 1 host, ")
    # One was killed to see it, where that need not end the job.
    goes_on = {"openmpi": "2 of 3 ranks have gone on when one was killed", "mpich": "a job does not go on: MPICH ends"}
    assert findings["deaths of ranks"]["text"].startswith(goes_on[mpi.name]), job.story()
    assert "hpcfut: Rank" not in job.stderr, job.story()
    for name, unit in [("latency", "µs"), ("bandwidth", "GB/s")]:
        measured = re.match(rf"(\d+\.\d) {unit} for .* on one host$", findings[name]["text"])
        assert measured is not None, job.story()
        assert float(measured[1]) > 0


@pytest.mark.mpi
def test_on_ranks_of_another_launcher(mpi: Mpi) -> None:
    command = [mpi.program("mpiexec"), "-n", "2", mpi.program("hpcfut"), "doctor"]
    job = run_command(command, env=OPENMPI_SETTINGS).check()
    assert job.stdout.count("2 ranks on 1 host, ") == 1, job.story()
    assert job.stdout.count("round trip") == 1, job.story()


@pytest.mark.mpi
def test_on_ranks_of_the_wrong_launcher(mpi: Mpi) -> None:
    (other,) = (name for name in MPI_NAMES if name != mpi.name)
    if other not in environments():
        pytest.skip(f"There is no environment with {other}: launch/test.sh makes one.")
    command = [environments()[other].program("mpiexec"), "-n", "2", mpi.program("hpcfut"), "doctor"]
    job = run_command(command, env=OPENMPI_SETTINGS).check(None)
    assert job.returncode != 0
    assert job.stdout.count("cannot talk to each other. Use `hpcfut run`") == 1, job.story()
    assert "Traceback" not in job.stderr
