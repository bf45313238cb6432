"""The threads that move objects to files: whatever stops them, who waits is told."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from hpcfut.core.effects import DropSpilled, RestoreObject, SpillObjects
from hpcfut.core.events import Event, ObjectsSpilled, ReadCompleted, ReadFailed, SpillFailed
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.spill_files import SpillFiles
from hpcfut.edges.host.spill_folder import find_spill_folder
from hpcfut.model.place import Place
from hpcfut.runtime.spilling import Spilling

WITHIN_S = 30.0
PLACE = Place(7, 0, 0, 100)


class Moved:
    """A rank that moves one object to a file and back."""

    def __init__(self, folder: str) -> None:
        self.window = HostArena(0, 4096)
        self.window.buffer(PLACE.offset, PLACE.nbytes)[:] = bytes(range(100))
        self.window.seal(PLACE.offset, PLACE.object_id, PLACE.nbytes)
        self.files = SpillFiles(find_spill_folder(folder, {}))
        self._told: list[Event] = []
        self._news = threading.Semaphore(0)
        self.spilling = Spilling(lambda: self.files, self.window, self._post)

    def _post(self, event: Event) -> None:
        self._told.append(event)
        self._news.release()

    def next(self) -> Event:
        assert self._news.acquire(timeout=WITHIN_S), "Nobody was told."
        return self._told.pop(0)

    def spill(self, spill_id: int = 1) -> Event:
        self.spilling.spill(SpillObjects(spill_id, [PLACE]))
        return self.next()

    def restore(self, file_id: int, transfer_id: int = 2) -> Event:
        self.spilling.restore(RestoreObject(transfer_id, 7, file_id, 1024, 100))
        return self.next()


@pytest.fixture
def moved(tmp_path: object) -> Moved:
    return Moved(str(tmp_path))


def no_memory(*_: object) -> memoryview:
    raise MemoryError("There are no more pages.")


def test_an_object_goes_to_a_file_and_comes_back(moved: Moved) -> None:
    spilled = moved.spill()
    assert isinstance(spilled, ObjectsSpilled)
    assert moved.restore(spilled.file_id) == ReadCompleted(2)
    assert bytes(moved.window.view(Place(7, 0, 1024, 100))) == bytes(range(100))


@pytest.mark.parametrize("name", ["bare", "buffer"])
def test_memory_that_cannot_be_had_is_told(moved: Moved, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    spilled = moved.spill()
    assert isinstance(spilled, ObjectsSpilled)
    monkeypatch.setattr(HostArena, name, no_memory)
    if name == "bare":
        assert moved.spill(5) == SpillFailed(5, "There are no more pages.")
    else:
        failed = moved.restore(spilled.file_id)
        assert isinstance(failed, ReadFailed)
        assert (failed.transfer_id, failed.failure.text) == (2, "There are no more pages.")
    monkeypatch.undo()
    assert isinstance(moved.spill(6), ObjectsSpilled), "The threads go on."


def test_a_thread_that_cannot_be_started_is_told(moved: Moved, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    failed = moved.spill()
    assert isinstance(failed, SpillFailed)
    assert "can't start new thread" in failed.reason
    assert isinstance(moved.restore(1), ReadFailed)
    monkeypatch.undo()
    assert isinstance(moved.spill(2), ObjectsSpilled), "It is tried again."


def test_one_thread_is_enough_where_no_more_can_be_started(moved: Moved, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(moved.spill(1), ObjectsSpilled)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert isinstance(moved.spill(2), ObjectsSpilled)
    assert moved.spilling.n_threads == 1


def test_what_is_dropped_after_the_end_is_gone_already(moved: Moved) -> None:
    spilled = moved.spill()
    assert isinstance(spilled, ObjectsSpilled)
    moved.files.close()
    moved.spilling.drop(DropSpilled(spilled.file_id, 7))
    assert isinstance(moved.spill(2), SpillFailed), "The thread that has dropped it goes on."


def test_a_write_that_cannot_be_is_told(moved: Moved, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: SpillFiles, parts: Sequence[tuple[int, memoryview]]) -> None:
        raise OSError("The disk is full.")

    monkeypatch.setattr(SpillFiles, "write", refuse)
    assert moved.spill(3) == SpillFailed(3, "The disk is full.")
