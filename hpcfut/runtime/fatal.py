"""The end of a rank that cannot go on."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

EXIT_STATUS = 70


@contextmanager
def fatal(where: str) -> Iterator[None]:
    """End the process if hpcfut itself fails in a thread of its own: the launcher then ends the job and names the rank.

    An exception that only ended the thread would leave everybody else waiting for ever.
    """
    try:
        yield
    except BaseException:
        end_rank(where)


def end_rank(where: str) -> NoReturn:
    """End the process because of the exception that is being handled, whatever that does when it is printed."""
    try:
        sys.stderr.write(f"hpcfut failed in {where} of process {os.getpid()}; this is a bug in hpcfut.\n")
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(EXIT_STATUS)
