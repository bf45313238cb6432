"""The command lines and environments that `hpcfut run` makes."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from hpcfut.cli.command import (
    RunOptions,
    complaint,
    launcher_command,
    launcher_environment,
    rank_command,
    rank_environment,
)
from hpcfut.cli.launchers import Launcher

OPENMPI = Launcher("openmpi", "/env/bin/mpiexec", "5.0.11")
MPICH = Launcher("mpich", "/env/bin/mpiexec", "5.0.2")


def command(launcher: Launcher, environ: dict[str, str] | None = None, n_cores: int = 8, **options: Any) -> str:
    return " ".join(launcher_command(launcher, RunOptions(**options), environ or {}, n_cores=n_cores))


def test_ranks_are_not_bound_where_the_cores_may_be_those_of_others() -> None:
    assert "--bind-to none" in command(OPENMPI, n_ranks=4)
    assert "OVERSUBSCRIBE" in command(OPENMPI, n_ranks=4)
    assert "-bind-to" not in command(MPICH, n_ranks=4)


def test_ranks_are_bound_to_the_cores_they_are_given() -> None:
    assert "--map-by slot:PE=2 --bind-to core" in command(OPENMPI, n_ranks=4, cpus_per_rank=2)
    assert "-bind-to core:2 -map-by core:2" in command(MPICH, n_ranks=4, cpus_per_rank=2)


def test_ranks_are_bound_in_an_allocation() -> None:
    alone = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}
    assert "slot:PE=1" in command(OPENMPI, alone, n_ranks=8)
    # The cores of the other hosts are not known here.
    assert "slot:PE=1" in command(OPENMPI, {**alone, "SLURM_JOB_NUM_NODES": "4"}, n_ranks=32)


@pytest.mark.parametrize("launcher", [OPENMPI, MPICH])
@pytest.mark.parametrize("environ", [{}, {"SLURM_JOB_ID": "7"}])
def test_ranks_that_share_cores_are_not_bound(launcher: Launcher, environ: dict[str, str]) -> None:
    line = command(launcher, environ, n_ranks=4, cpus_per_rank=3)
    assert "core" not in line
    assert launcher is MPICH or "slot:OVERSUBSCRIBE --bind-to none" in line


def test_hosts_are_passed_on() -> None:
    assert "-n 8 --host a:4,b:4" in command(OPENMPI, n_ranks=8, hosts="a:4,b:4")
    assert "-n 8 -hosts a:4,b:4" in command(MPICH, n_ranks=8, hosts="a:4,b:4")


def test_variables_reach_other_hosts() -> None:
    line = command(OPENMPI, {"PYTHONPATH": "/here", "HPCFUT_SPILL_FOLDER": "/there"}, n_ranks=2, resources="{}")
    for name in ("HPCFUT_JOB_ID", "HPCFUT_JOB_SCRATCH", "HPCFUT_RESOURCES", "PYTHONPATH", "HPCFUT_SPILL_FOLDER"):
        assert f"-x {name}" in line
    assert "HPCFUT_SLOTS" not in line
    assert (
        command(OPENMPI, {"HPCFUT_ROUTE": "rma", "HPCFUT_SLOTS": "2"}, n_ranks=2, n_slots=2).count("-x HPCFUT_SLOTS")
        == 1
    )
    assert "-x HPCFUT_ROUTE" in command(OPENMPI, {"HPCFUT_ROUTE": "rma"}, n_ranks=2)


def test_the_user_has_the_last_word() -> None:
    assert command(OPENMPI, n_ranks=2, launcher_args=["--foo", "a b"]).endswith("--foo a b")
    assert command(MPICH, n_ranks=2, launcher_args=["-foo"]).endswith("-foo")


def test_ranks_run_the_script_with_its_arguments() -> None:
    options = RunOptions(n_ranks=2, script=["my script.py", "-n", "4"])
    assert rank_command(options) == [sys.executable, "-m", "hpcfut", "my script.py", "-n", "4"]


def test_ranks_are_told_what_was_asked_for() -> None:
    options = RunOptions(n_ranks=2, cpus_per_rank=2, n_slots=3, resources='{"disk": 2}')
    assert rank_environment(options, "id", "/scratch") == {
        "HPCFUT_JOB_ID": "id",
        "HPCFUT_JOB_SCRATCH": "/scratch",
        "HPCFUT_CPUS_PER_RANK": "2",
        "HPCFUT_SLOTS": "3",
        "HPCFUT_RESOURCES": '{"disk": 2}',
    }


def test_spare_ranks_are_started_as_well_and_told_of() -> None:
    options = RunOptions(n_ranks=4, n_spares=2)
    assert rank_environment(options, "id", "/scratch")["HPCFUT_SPARES"] == "2"
    line = " ".join(launcher_command(OPENMPI, options, {}, n_cores=8, survives=True))
    assert line.startswith("/env/bin/mpiexec --with-ft ulfm -n 6 ")
    assert "-x HPCFUT_SPARES" in line
    # Six ranks share five cores.
    line = " ".join(launcher_command(OPENMPI, options, {"SLURM_JOB_ID": "7"}, n_cores=5))
    assert "--with-ft" not in line
    assert "--bind-to none" in line


def environment(launcher: Launcher, *, is_root: bool = False, has_rdma: bool = False, **environ: str) -> dict[str, str]:
    return launcher_environment(launcher, "/scratch", environ, is_root=is_root, has_rdma=has_rdma)


def test_openmpi_gets_what_it_needs() -> None:
    made = environment(OPENMPI)
    assert made["OMPI_MCA_btl_tcp_flags"] == "send"
    assert made["OMPI_MCA_btl_tcp_max_send_size"] == "524288"
    assert made["OMPI_MCA_osc"] == "^ucx"
    assert made["PRTE_MCA_prte_local_tmpdir_base"] == "/scratch"
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in made
    assert environment(OPENMPI, is_root=True)["PRTE_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    assert "OMPI_MCA_osc" not in environment(OPENMPI, has_rdma=True)
    assert environment(MPICH, is_root=True) == {}


def test_what_the_user_has_set_is_left_alone() -> None:
    assert "OMPI_MCA_osc" not in environment(OPENMPI, OMPI_MCA_osc="ucx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ranks": 0}, "at least one rank"),
        ({"n_ranks": 2, "hosts": "a:x"}, "'a:x' in --hosts"),
        ({"n_ranks": 2, "hosts": "a:0"}, "'a:0' in --hosts"),
        ({"n_ranks": 2, "hosts": "a:1,"}, "'' in --hosts"),
        ({"n_ranks": 9, "hosts": "a:4,b:4"}, "room for 8 ranks, but -n asks for 9"),
        ({"n_ranks": 8, "n_spares": 1, "hosts": "a:4,b:4"}, "room for 8 ranks, but -n asks for 8 and --spares for 1"),
        ({"n_ranks": 2, "n_spares": -1}, "--spares -1 was asked for"),
        ({"n_ranks": 1, "n_spares": 1}, "as in -n 2 --spares 1"),
        ({"n_ranks": 1, "resources": "disk=2"}, "no JSON object"),
        ({"n_ranks": 1, "resources": '{"CPU": 2}'}, "is set with --cpus-per-rank"),
        ({"n_ranks": 2, "resources": '{"2": {"disk": 2}}'}, "given to rank 2, but the job has 2 ranks"),
        ({"n_ranks": 2, "resources": '{"first": {"disk": 2}}'}, "'first', which is no number of a rank"),
        ({"n_ranks": 1, "resources": '{"disk": "x"}'}, "no JSON object"),
        ({"n_ranks": 1, "resources": '{"disk": -1}'}, "cannot have the amount -1"),
    ],
)
def test_nonsense_is_a_sentence(options: dict[str, Any], message: str) -> None:
    assert message in complaint(RunOptions(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"n_ranks": 8, "hosts": "a:4,node-1.cluster:4"},
        {"n_ranks": 8, "hosts": "a,b"},
        {"n_ranks": 6, "n_spares": 2, "hosts": "a:4,b:4", "resources": '{"7": {"disk": 2}}'},
        {"n_ranks": 1, "resources": "{}"},
        {"n_ranks": 2, "resources": '{"disk": 2, "1": {"disk": 3}}'},
    ],
)
def test_sense_is_accepted(options: dict[str, Any]) -> None:
    assert complaint(RunOptions(**options)) == ""
