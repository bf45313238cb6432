"""The command line and the environment with which a launcher starts the ranks. Pure."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from hpcfut.cli.fault_tolerance import ARGUMENTS
from hpcfut.cli.launchers import Launcher
from hpcfut.edges.host.job_files import ID_VARIABLE, SCRATCH_VARIABLE
from hpcfut.edges.host.spill_folder import FOLDER_VARIABLE
from hpcfut.model.resources import split_resources, unknown_rank
from hpcfut.model.variables import (
    CPUS_VARIABLE,
    RESOURCES_VARIABLE,
    RESPAWN_VARIABLE,
    SETTINGS,
    SLOTS_VARIABLE,
    SPARES_VARIABLE,
    TCP_FLAGS,
    TCP_FLAGS_VARIABLE,
    WISH_VARIABLE,
)

#: Besides our own, what ranks on other hosts need; a launch daemon there starts from an empty environment.
_FORWARDED: Final = ("PYTHONPATH", "PYTHONFAULTHANDLER", FOLDER_VARIABLE)
_HOST: Final = re.compile(r"[\w.-]+(:[1-9]\d*)?")


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked `hpcfut run` for."""

    #: Without the spare ones.
    n_ranks: int
    #: Further ranks, which are kept aside until others have died.
    n_spares: int = 0
    #: Whether ranks that die are replaced, where the job goes on.
    respawns: bool = True
    #: auto, on or off.
    fault_tolerance: str = "off"
    hosts: str = ""
    #: 0: not said.
    cpus_per_rank: int = 0
    #: 0: not said.
    n_slots: int = 0
    resources: str = ""
    is_spmd: bool = False
    launcher_args: Sequence[str] = ()
    #: The script and its arguments.
    script: Sequence[str] = ()

    @property
    def n_started(self) -> int:
        """All ranks of the job."""
        return self.n_ranks + self.n_spares


def complaint(options: RunOptions) -> str:
    """The sentence for options that make no sense; empty if they do."""
    if options.n_ranks < 1:
        return f"-n {options.n_ranks} was asked for, but a job has at least one rank."
    if options.n_spares < 0:
        return f"--spares {options.n_spares} was asked for, but there are 0 spare ranks or more."
    if options.n_spares and options.n_ranks == 1:
        return (
            f"--spares {options.n_spares} helps nothing with -n 1: rank 0 does all the work then, and its death ends "
            f"the job. Ask for more ranks, as in -n 2 --spares {options.n_spares}."
        )
    for host in options.hosts.split(",") if options.hosts else ():
        if not _HOST.fullmatch(host):
            return f"'{host}' in --hosts {options.hosts} is no host: write name or name:ranks, as in --hosts a:4,b:4."
    if options.hosts and all(":" in host for host in options.hosts.split(",")):
        n_places = n_ranks_of_hosts(options.hosts)
        if n_places < options.n_started:
            spares = f" and --spares for {options.n_spares} more" if options.n_spares else ""
            return f"--hosts {options.hosts} has room for {n_places} ranks, but -n asks for {options.n_ranks}{spares}."
    if options.resources:
        try:
            given = msgspec.json.decode(options.resources, type=dict[str, float | dict[str, float]])
        except msgspec.MsgspecError as error:
            return (
                f"--resources {options.resources} is no JSON object of amounts, as '{{\"disk\": 2}}', or of amounts by "
                f'rank, as \'{{"0": {{"camera": 1}}}}\': {error}.'
            )
        try:
            _, by_rank = split_resources(given)
        except ValueError as error:
            return f"--resources {options.resources} makes no sense. {error}"
        return unknown_rank(by_rank, options.n_started)
    return ""


def n_ranks_of_hosts(hosts: str) -> int:
    """The ranks that a list of hosts has room for; a host without a number has room for one."""
    counts = [host.partition(":")[2] for host in hosts.split(",")]
    # What is no number is complained of later.
    return sum(int(count) if count.isdigit() else 1 for count in counts)


def rank_environment(options: RunOptions, job_id: str, scratch: str) -> dict[str, str]:
    """Our own variables for all ranks."""
    variables = {ID_VARIABLE: job_id, SCRATCH_VARIABLE: scratch}
    if options.cpus_per_rank:
        variables[CPUS_VARIABLE] = str(options.cpus_per_rank)
    if options.n_slots:
        variables[SLOTS_VARIABLE] = str(options.n_slots)
    if options.resources:
        variables[RESOURCES_VARIABLE] = options.resources
    if options.n_spares:
        variables[SPARES_VARIABLE] = str(options.n_spares)
    if options.fault_tolerance == "on":
        variables[WISH_VARIABLE] = "on"
    if not options.respawns:
        variables[RESPAWN_VARIABLE] = "0"
    return variables


def launcher_environment(
    launcher: Launcher, scratch: str, environ: Mapping[str, str], *, is_root: bool, has_rdma: bool
) -> dict[str, str]:
    """Variables for the launcher itself; what the user has set is left alone."""
    if launcher.family != "openmpi":
        return {}
    wanted = {
        # Its session folder vanishes with our scratch, whatever becomes of it.
        "PRTE_MCA_prte_local_tmpdir_base": scratch,
        # At thread level MULTIPLE a receiver that dies in mid-transfer would hang its sender; it is faster as well.
        TCP_FLAGS_VARIABLE: TCP_FLAGS,
        # A step over TCP brings one fragment. With the default, 128 KiB, transfers cost half as much time again.
        "OMPI_MCA_btl_tcp_max_send_size": str(512 << 10),
    }
    if not has_rdma:
        # Without such hardware this component does nothing but complain on every rank.
        wanted["OMPI_MCA_osc"] = "^ucx"
    if is_root:
        # Containers have no other user.
        for prefix in ("OMPI", "PRTE"):
            wanted[f"{prefix}_ALLOW_RUN_AS_ROOT"] = "1"
            wanted[f"{prefix}_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return {name: value for name, value in wanted.items() if name not in environ}


def rank_command(options: RunOptions) -> list[str]:
    """What every rank runs."""
    return [sys.executable, "-m", "hpcfut", *(["--spmd"] if options.is_spmd else []), *options.script]


def launcher_command(
    launcher: Launcher, options: RunOptions, environ: Mapping[str, str], *, n_cores: int, survives: bool = False
) -> list[str]:
    """The command line in front of what the ranks run.

    ``n_cores`` are those of this host; on other hosts the launcher counts by itself. ``survives``: the job is to go on
    when a rank dies.

    Ranks are bound to cores where the cores are ours: when the user says how many a rank gets, or in an allocation.
    Elsewhere two jobs on one machine would both be bound to its first cores.
    """
    n_cpus = options.cpus_per_rank or 1
    is_ours = bool(options.cpus_per_rank) or "SLURM_JOB_ID" in environ
    is_one_host = not options.hosts and environ.get("SLURM_JOB_NUM_NODES", "1") == "1"
    is_bound = is_ours and not (is_one_host and n_cpus * options.n_started > n_cores)
    if launcher.family == "openmpi":
        return _openmpi(launcher, options, environ, n_cpus if is_bound else 0, ARGUMENTS if survives else ())
    return _mpich(launcher, options, n_cpus if is_bound else 0)


def _openmpi(
    launcher: Launcher, options: RunOptions, environ: Mapping[str, str], n_cpus: int, more: Sequence[str]
) -> list[str]:
    command = [launcher.path, *more, "-n", str(options.n_started)]
    if options.hosts:
        command += ["--host", options.hosts]
    if n_cpus:
        command += ["--map-by", f"slot:PE={n_cpus}", "--bind-to", "core:if-supported"]
    else:
        command += ["--map-by", "slot:OVERSUBSCRIBE", "--bind-to", "none"]
    forwarded = (name for name in (*_FORWARDED, *SETTINGS) if name in environ)
    for name in dict.fromkeys([*sorted(rank_environment(options, "", "")), *forwarded]):
        command += ["-x", name]
    return [*command, *options.launcher_args]


def _mpich(launcher: Launcher, options: RunOptions, n_cpus: int) -> list[str]:
    command = [launcher.path, "-n", str(options.n_ranks)]
    if options.hosts:
        command += ["-hosts", options.hosts]
    if n_cpus:
        command += ["-bind-to", f"core:{n_cpus}", "-map-by", f"core:{n_cpus}"]
    return [*command, *options.launcher_args]
