"""The beginning of the processes in which the code of isolated tasks runs (``edges/host/fork_server.py``)."""

from __future__ import annotations

from typing import NoReturn

from hpcfut.api.session import enter_child, hooks
from hpcfut.runtime.child import be_fork_server


def main(descriptor: int) -> NoReturn:
    """Be the process that makes the others, at the end of this connection to a rank."""
    be_fork_server(descriptor, hooks, enter_child)
