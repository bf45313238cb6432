"""Who started this process, read from its environment before MPI is initialised, because some mixtures abort there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Launcher = Literal["none", "openmpi", "mpich", "prrte", "slurm", "other"]
Library = Literal["openmpi", "mpich", "other"]

_PROGRAMS: Final = {
    "none": "Nobody",
    "openmpi": "Open MPI's mpirun",
    "mpich": "MPICH's mpiexec (or a relative of it)",
    "prrte": "prterun",
    "slurm": "srun",
    "other": "The launcher",
}
_LIBRARIES: Final = {"openmpi": "Open MPI", "mpich": "MPICH", "other": "another MPI"}
_ADVICE: Final = (
    "Use `hpcfut run`, which picks the right one, or the mpiexec of the environment whose Python runs the script."
)


class Launch(msgspec.Struct, frozen=True):
    """What the environment tells about the start of this process."""

    launcher: Launcher
    #: The own rank, as far as the launcher has told it; 0 otherwise.
    rank: int = 0
    #: How many processes the launcher started; 1 without one, and 0 where only MPI can tell.
    n_ranks: int = 1
    #: How the processes are to find each other under Slurm: ``pmix``, ``pmi``, or not at all.
    slurm_means: Literal["", "pmix", "pmi"] = ""


def recognise_launch(environ: Mapping[str, str]) -> Launch:
    """Who started this process, by the variables that launchers leave.

    Variables of mpirun go first: inside a batch job its processes see those of Slurm as well. ``SLURM_NTASKS`` says
    nothing, because the body of a batch job sees it too; only a step started by srun has ``SLURM_STEP_NUM_TASKS``. A
    shell that srun started interactively is such a step as well, but what is typed there runs once.
    """
    if "OMPI_COMM_WORLD_SIZE" in environ:
        rank, n_ranks = "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"
        return Launch("openmpi", _number(environ, rank, 0), _number(environ, n_ranks, 1))
    has_pmi = "PMI_RANK" in environ and "PMI_SIZE" in environ
    n_tasks = _number(environ, "SLURM_STEP_NUM_TASKS", 0)
    if has_pmi and ("HYDI_CONTROL_FD" in environ or not n_tasks):
        # Who speaks both languages is neither of the two, and every library may find its peers.
        launcher: Launcher = "other" if "PMIX_RANK" in environ else "mpich"
        return Launch(launcher, _number(environ, "PMI_RANK", 0), _number(environ, "PMI_SIZE", 1))
    is_interactive = "SLURM_PTY_PORT" in environ and "PMIX_RANK" not in environ and not has_pmi
    if n_tasks and not is_interactive:
        means: Literal["", "pmix", "pmi"] = ""
        if "PMIX_RANK" in environ:
            means = "pmix"
        elif has_pmi or "PMI_FD" in environ:
            means = "pmi"
        return Launch("slurm", _number(environ, "SLURM_PROCID", 0), n_tasks, means)
    if "PMIX_RANK" in environ:
        return Launch("prrte", _number(environ, "PMIX_RANK", 0), 0)
    return Launch("none")


#: How the variables begin by which MPI finds out that a process is a rank, and which.
_OF_RANKS: Final = ("PMI", "OMPI_", "OPAL_", "PRTE_", "HYDR", "HYDI", "MPI_LOCAL", "MPIR_", "SLURM_STEP", "PALS_")
_OF_SLURM_TASKS: Final = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_TASK_PID", "SLURM_GTIDS", "SLURM_MPI_TYPE")


def without_launcher(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process of a rank: with a rank's, MPI would hang or abort there."""
    return {
        name: value for name, value in environ.items() if not name.startswith(_OF_RANKS) and name not in _OF_SLURM_TASKS
    }


def recognise_library(version: str) -> Library:
    """The family of an MPI library, by what it says about itself."""
    if version.startswith("Open MPI"):
        return "openmpi"
    return "mpich" if version.startswith(("MPICH", "CRAY MPICH")) else "other"


def mismatch(launch: Launch, library: Library) -> str:
    """The sentence for a launcher and a library that cannot work together; empty if nothing speaks against them.

    To be asked before MPI is initialised.
    """
    spoken = {"openmpi": "openmpi", "prrte": "openmpi", "mpich": "mpich"}.get(launch.launcher, library)
    if library != "other" and library != spoken:
        return (
            f"{_PROGRAMS[launch.launcher]} started this job, but mpi4py loads {_LIBRARIES[library]} on rank "
            f"{launch.rank}, and the two cannot talk to each other. {_ADVICE}"
        )
    if launch.launcher == "slurm" and launch.n_ranks > 1:
        if not launch.slurm_means:
            means = "pmix" if library == "openmpi" else "pmi2"
            return (
                f"srun started {launch.n_ranks} processes that cannot find each other, because it was told --mpi=none "
                f"or has no default. Say `srun --mpi={means}` (`srun --mpi=list` tells what there is), or `hpcfut run` "
                f"inside the allocation."
            )
        if launch.slurm_means == "pmi" and library == "openmpi":
            return (
                f"srun started {launch.n_ranks} processes with PMI-2, which Open MPI 5 does not speak. Say "
                f"`srun --mpi=pmix`, or `hpcfut run` inside the allocation."
            )
    return ""


def typed_alone(launch: Launch) -> str:
    """The sentence for code that comes from the standard input of one rank of many; empty if all may have it.

    To be asked before MPI is initialised, which would wait for the others without end. srun gives it to all ranks.
    """
    if launch.n_ranks == 1 or launch.launcher not in ("openmpi", "mpich", "prrte"):
        return ""
    return (
        f"{_PROGRAMS[launch.launcher]} gives what is typed to rank 0 alone, and the other ranks of the job do not call "
        f'hpcfut.init(). Start the prompt with `mpirun -n {launch.n_ranks or 2} python -i -c "import hpcfut; '
        f'hpcfut.init()"`, and they serve it.'
    )


def singletons(launch: Launch, library: Library, n_ranks: int) -> str:
    """The sentence for N processes that each believe to be alone; empty if MPI sees what the launcher started.

    To be asked after MPI was initialised; ``n_ranks`` is what MPI says.
    """
    if n_ranks != 1 or launch.n_ranks <= 1:
        return ""
    advice = _ADVICE
    if launch.launcher == "slurm":
        means = "pmi2" if library == "mpich" else "pmix"
        advice = f"Say `srun --mpi={means}` (`srun --mpi=list` tells what there is), or `hpcfut run` in the allocation."
    return (
        f"{_PROGRAMS[launch.launcher]} started {launch.n_ranks} processes, but each of them sees itself as the only "
        f"one: the MPI library that mpi4py loads ({_LIBRARIES[library]}) does not understand this launcher. {advice}"
    )


def _number(environ: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdigit() else otherwise
