"""What stands in a child process for the parts of hpcfut that are not there."""

from __future__ import annotations

from typing import Final, NoReturn

from hpcfut.model.errors import HpcfutError

MISSING: Final = (
    'is not there in a task with isolation="process", whose code runs in a child process of its rank. There are remote '
    "functions and their .remote(), get, put, wait, cancel and empty; do the rest in a task without isolation."
)


class Missing:
    """In place of the engine."""

    #: The session goes on for as long as the rank does, with which this process ends.
    end = None

    def __getattr__(self, name: str) -> NoReturn:
        raise HpcfutError(f"This part of hpcfut {MISSING}")
