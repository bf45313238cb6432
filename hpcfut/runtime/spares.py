"""Spare ranks: the last of the job, which take no tasks until others have died."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SPARES_VARIABLE: Final = "HPCFUT_SPARES"


def n_spares_of(environ: Mapping[str, str]) -> int:
    """How many of the ranks are spare ones; 0 for what is refused."""
    text = environ.get(SPARES_VARIABLE, "0")
    return int(text) if text.isdigit() else 0


def trouble_with_spares(environ: Mapping[str, str], n_ranks: int, *, survives: bool) -> str:
    """The sentence that says what is wrong with the spare ranks that the user wants; empty if nothing is.

    Args:
        environ: The variables of this rank, equal on all.
        n_ranks: All ranks of the job.
        survives: Whether it was started so that it may go on when a rank dies.
    """
    text = environ.get(SPARES_VARIABLE, "0")
    if not text.isdigit():
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
