"""The `hpcfut` command."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    name="hpcfut",
    help="Distributed futures whose processes are MPI ranks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)

#: Everything after the script belongs to the script.
_PASS_ON = {"allow_interspersed_args": False, "ignore_unknown_options": False}


@app.callback()
def hpcfut() -> None:
    """Distributed futures whose processes are MPI ranks."""


@app.command(context_settings=_PASS_ON)
def run(
    script: Annotated[Path, typer.Argument(help="The script; rank 0 runs it, the other ranks serve.")],
    args: Annotated[list[str] | None, typer.Argument(help="Its arguments.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="Number of ranks.")] = None,
    hosts: Annotated[str, typer.Option(help="Hosts and their ranks, as a:4,b:4; in an allocation, leave it out.")] = "",
    cpus_per_rank: Annotated[int | None, typer.Option(min=1, help="Cores of each rank, and bind it to them.")] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Tasks that a rank runs at a time; one, if not said.")
    ] = None,
    resources: Annotated[
        str,
        typer.Option(
            help='Further resources of each rank, as a JSON object; of rank 0 alone: \'{"0": {"camera": 1}}\'.'
        ),
    ] = "",
    spmd: Annotated[bool, typer.Option("--spmd", help="Every rank runs the script, and serves the others.")] = False,
    mpi: Annotated[str, typer.Option(help="auto, openmpi or mpich; auto takes what mpi4py loads.")] = "auto",
    fault_tolerance: Annotated[
        str,
        typer.Option(help="auto, on or off: whether the job goes on when ranks other than rank 0 die (Open MPI 5)."),
    ] = "auto",
    spares: Annotated[int, typer.Option(help="Further ranks, kept aside for those that die.")] = 0,
    respawn: Annotated[
        bool, typer.Option(help="Start a process for each rank that dies, where the job goes on, on one host.")
    ] = True,
    launcher_args: Annotated[str, typer.Option(help="Arguments for mpiexec, in one word.")] = "",
) -> None:
    """Run a script on N ranks, and exit with its exit status."""
    from hpcfut.cli.command import RunOptions, n_ranks_of_hosts, rank_command
    from hpcfut.cli.fault_tolerance import WISHES
    from hpcfut.cli.run import run_job

    if n is None:
        # All that there is room for.
        n_places = n_ranks_of_hosts(hosts) if hosts else int(os.environ.get("SLURM_NTASKS") or 0)
        n = n_places - max(spares, 0) if n_places else None
    if n is None:
        _refuse("How many ranks? Say it with -n, as in `hpcfut run -n 4 script.py`.")
    if mpi not in ("auto", "openmpi", "mpich"):
        _refuse(f"--mpi {mpi} is unknown: it is auto, openmpi or mpich.")
    if fault_tolerance not in WISHES:
        _refuse(f"--fault-tolerance {fault_tolerance} is unknown: it is auto, on or off.")
    if not script.is_file():
        what = "is a folder, and no script" if script.is_dir() else "does not exist"
        _refuse(f"'{script}' {what} (seen from {Path.cwd()}).")
    options = RunOptions(
        n_ranks=n,
        n_spares=spares,
        respawns=respawn,
        fault_tolerance=fault_tolerance,
        hosts=hosts,
        cpus_per_rank=cpus_per_rank or 0,
        n_slots=slots or 0,
        resources=resources,
        is_spmd=spmd,
        launcher_args=_split(launcher_args),
        script=[str(script), *(args or [])],
    )
    raise typer.Exit(run_job(options, rank_command(options), mpi=mpi))


@app.command()
def doctor(
    n: Annotated[int, typer.Option("-n", help="Number of ranks to try; the first two are measured.")] = 2,
    hosts: Annotated[str, typer.Option(help="Hosts and their ranks, as a:1,b:1.")] = "",
    mpi: Annotated[str, typer.Option(help="auto, openmpi or mpich.")] = "auto",
    launcher_args: Annotated[str, typer.Option(help="Arguments for mpiexec, in one word.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the findings for programs.")] = False,
) -> None:
    """Say what this MPI and this host can do, measure it, and name the remedy for what is missing."""
    from hpcfut.cli.command import RunOptions
    from hpcfut.cli.doctor import examine, print_json, print_table
    from hpcfut.edges.host.launch_environment import recognise_launch

    options = RunOptions(n_ranks=n, hosts=hosts, launcher_args=_split(launcher_args))
    findings = examine(options, mpi)
    # Started by mpiexec itself, every rank has come here. One of them speaks, and is not to be killed before it has
    # because another one ended with a failure.
    if recognise_launch(os.environ).rank != 0:
        return
    (print_json if json else print_table)(findings)
    raise typer.Exit(int(any(finding.level == "error" for finding in findings)))


def _split(launcher_args: str) -> list[str]:
    try:
        return shlex.split(launcher_args)
    except ValueError as error:
        _refuse(f"--launcher-args {launcher_args} cannot be split into words: {error}.")


def _refuse(sentence: str) -> NoReturn:
    """End with the status of a wrong call."""
    sys.stderr.write(f"hpcfut: {sentence}\n")
    raise typer.Exit(2)
