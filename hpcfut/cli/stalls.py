"""Tells of ranks that have stalled, from the stacks that they have written down (``runtime/rank_watch.py``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hpcfut.edges.host.job_files import JobFiles, RankNote

_FILE: Final = re.compile(r'File "([^"]+)"')
#: Of hpcfut, and of Python where it starts things.
_NO_USER_CODE: Final = (f"{Path(__file__).resolve().parents[1]}/", "<frozen ")
#: The first line of each report.
_HEAD: Final = re.compile(r"Timeout \((?:(\d+) days?, )?(\d+):(\d+):(\d+(?:\.\d+)?)\)!\n")


class Stalls:
    """Those of one job, as far as this host sees its notes."""

    def __init__(self, files: JobFiles) -> None:
        self._files = files
        #: By rank, how much has been told, and how much there was at the last look.
        self._told: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    def look(self, notes: Sequence[RankNote]) -> list[str]:
        """What is to be said about what has been written since the last time."""
        found = []
        by_rank = {note.rank: note for note in notes}
        for rank, text in self._files.read_stacks().items():
            told = self._told.get(rank, 0)
            # What still grows is being written.
            if rank in by_rank and len(text) > told and self._seen.get(rank) == len(text):
                self._told[rank] = len(text)
                found.append(tell_stall(by_rank[rank], text[told:]))
            self._seen[rank] = len(text)
        return found


def tell_stall(note: RankNote, text: str) -> str:
    """The sentence about a rank that has stalled, with its stacks below."""
    match = _HEAD.search(text)
    stall = f"for {_seconds(match):g} s" if match else "for a while"
    threads = _HEAD.sub("", text).rstrip("\n").split("\n\n")
    # Those that only wait for something in hpcfut say nothing, unless it is hpcfut that has stalled.
    stacks = "\n\n".join(filter(_has_user_code, threads)) or "\n\n".join(threads)
    return (
        f"Rank {note.rank} (process {note.pid} on host {note.host}) has answered nobody {stall}. It is alive, and may "
        f"go on by itself: code in C that does not let go of the GIL looks like this, as does a process that is "
        f"suspended. Its threads were here, each at the line that is named first:\n{stacks}"
    )


def _has_user_code(stack: str) -> bool:
    paths = _FILE.findall(stack)
    return any(not path.startswith(_NO_USER_CODE) and not path.endswith("/threading.py") for path in paths)


def _seconds(match: re.Match[str]) -> float:
    days, hours, minutes, seconds = match.groups()
    return ((int(days or 0) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)
