"""The watch of a rank goes on although what it would say cannot be said."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from hpcfut.edges.host.job_files import RankNote
from hpcfut.model.roster import RankRecord
from hpcfut.runtime.rank_watch import RankWatch


class LostFolder:
    """Notes in a folder of a file system that has failed."""

    def note_death(self, note: RankNote) -> None:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("has_folder", [True, False])
def test_a_death_that_cannot_be_told(has_folder: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    roster = [RankRecord(rank, 0, "h", "h", 77, {}) for rank in range(2)]
    engine: Any = SimpleNamespace(core=SimpleNamespace(membership=SimpleNamespace(roster=roster)))
    watch = RankWatch(0, None, {"HPCFUT_STALL_S": "0"})
    files: Any = LostFolder() if has_folder else None
    watch._files = files

    def closed(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=closed))
    watch._tell_deaths(engine, [0, 1])
    assert list(watch._dead) == [1]
