"""Ranks that may die, as the user wants it, and spare ones: the last of the job, which take no tasks until then."""

from __future__ import annotations

from collections.abc import Mapping

from hpcfut.model.variables import SPARES_VARIABLE, WISH_VARIABLE


def n_spares_of(environ: Mapping[str, str]) -> int:
    """How many of the ranks are spare ones; 0 for what is refused."""
    text = environ.get(SPARES_VARIABLE, "0")
    return int(text) if text.isdecimal() else 0


def trouble_with_spares(environ: Mapping[str, str], n_ranks: int, *, survives: bool) -> str:
    """The sentence that says what is wrong with the spare ranks that the user wants; empty if nothing is.

    Args:
        environ: The variables of this rank, equal on all.
        n_ranks: All ranks of the job.
        survives: Whether it was started so that it may go on when a rank dies.
    """
    text = environ.get(SPARES_VARIABLE, "0")
    if not text.isdecimal():
        return f"{SPARES_VARIABLE}={text} is no number of ranks. Set it to how many of the {n_ranks} are to be spare."
    if int(text) > max(n_ranks - 2, 0):
        return (
            f"{SPARES_VARIABLE}={text} leaves too few of {n_ranks} ranks: rank 0, which cannot be done without, and "
            f"one that may die. Start more ranks; `hpcfut run -n N --spares {text}` adds them to the N."
        )
    if int(text) and not survives:
        return (
            f"{SPARES_VARIABLE}={text} needs a job that goes on when a rank dies. Start it with `hpcfut run --spares "
            f"{text}`, or with Open MPI's mpirun --with-ft ulfm."
        )
    return ""


def is_demanded(environ: Mapping[str, str]) -> bool:
    """Whether the user has said that the job must go on when a rank dies."""
    return n_spares_of(environ) > 0 or environ.get(WISH_VARIABLE) == "on"


def denial(environ: Mapping[str, str], library: str) -> tuple[str, bool]:
    """What is said where a job was started so that it may go on when a rank dies, but MPI tells of no deaths.

    Args:
        environ: The variables of this rank, equal on all.
        library: What the MPI library says about itself.

    Returns:
        The sentence, and whether the job must not begin because of it.
    """
    what = f"The death of a rank will end this job, although its launcher lets it go on: {library} tells of no deaths."
    how = "Only Open MPI 5 does, through its layer ob1 and without settings that switch off its fault tolerance"
    n_spares = n_spares_of(environ)
    wish = f"{SPARES_VARIABLE}={n_spares}" if n_spares else f"{WISH_VARIABLE}={environ.get(WISH_VARIABLE, 'auto')}"
    if is_demanded(environ):
        return f"{what} {how}; {wish} rules that out.", True
    return f"{what} {how}. `hpcfut run --fault-tolerance off` says no more of it.", False
