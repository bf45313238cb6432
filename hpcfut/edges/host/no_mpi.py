"""No MPI in this process: it is none of the ranks, and MPI would hang, or abort, or take it for a job of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


class _Refusal:
    """Stands first among those whom Python asks for a module."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        """Leave all modules to others but one.

        Raises:
            ImportError: It is that one.
        """
        if name == "mpi4py.MPI":
            raise ImportError(
                'mpi4py.MPI cannot be imported in a task with isolation="process": its code runs in a child process of '
                "a rank, which is no part of the MPI job. Do what needs MPI in a task without isolation."
            )


def refuse_mpi() -> None:
    """Have an import of MPI raise, from now on and in forked children too."""
    sys.meta_path.insert(0, _Refusal())
