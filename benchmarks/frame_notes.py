"""Notes of when a rank's frames are handed to MPI and taken from it, for `task_life.py`; every rank imports this."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcfut.api import session


class Notes(NamedTuple):
    """Moments, in order."""

    handed: list[float]
    taken: list[float]


NOTES = Notes([], [])


def note_frames() -> None:
    """From now on this rank notes its frames."""
    runtime = session._session.runtime
    assert runtime is not None
    frames: Any = runtime.engine.frames
    send, poll = frames._send, frames._poll

    def noting_send(rank: int, frame: bytes, only_tasks: bool = False) -> None:
        NOTES.handed.append(time.perf_counter())
        send(rank, frame, only_tasks)

    def noting_poll() -> Sequence[tuple[int, Any]]:
        arrived: Sequence[tuple[int, Any]] = poll()
        if arrived:
            NOTES.taken.append(time.perf_counter())
        return arrived

    frames._send, frames._poll = noting_send, noting_poll


def take_notes() -> Notes:
    """What was noted until now, which is then forgotten."""
    taken = Notes(NOTES.handed.copy(), NOTES.taken.copy())
    NOTES.handed.clear()
    NOTES.taken.clear()
    return taken
