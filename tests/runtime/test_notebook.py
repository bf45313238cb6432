"""What a notebook does: cells in an event loop that runs already, and a signal handler that is put back for each."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hpcfut


class Events:
    """Those of IPython, as far as hpcfut needs them."""

    def __init__(self) -> None:
        self.callbacks: list[tuple[str, Callable[..., None]]] = []

    def register(self, name: str, callback: Callable[..., None]) -> None:
        self.callbacks.append((name, callback))

    def unregister(self, name: str, callback: Callable[..., None]) -> None:
        self.callbacks.remove((name, callback))


class Notebook:
    """Runs cells as ipykernel does: in its loop, with Python's own handler of Ctrl-C, which is then put away again."""

    def __init__(self) -> None:
        self.events = Events()
        self._loop = asyncio.new_event_loop()

    def run(self, cell: Callable[[], object]) -> object:
        async def run_in_loop() -> object:
            before = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                for name, callback in self.events.callbacks:
                    assert name == "pre_run_cell"
                    callback(object())
                value = cell()
                return await value if isinstance(value, types.CoroutineType) else value
            finally:
                signal.signal(signal.SIGINT, before)

        return self._loop.run_until_complete(run_in_loop())

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    made = Notebook()
    module = types.ModuleType("IPython")
    module.__dict__["get_ipython"] = lambda: made
    monkeypatch.setitem(sys.modules, "IPython", module)
    yield made
    hpcfut.shutdown()
    made.close()
    assert not made.events.callbacks


@hpcfut.remote
def double(x: int) -> int:
    return 2 * x


def test_cells_may_wait_and_await(notebook: Notebook) -> None:
    async def gather() -> list[int]:
        first = await double.remote(1)
        return [first, *await asyncio.gather(*[double.remote(number) for number in (2, 3)])]

    notebook.run(hpcfut.init)
    assert notebook.run(lambda: hpcfut.get(double.remote(4))) == 8
    assert notebook.run(gather) == [2, 4, 6]
    assert notebook.run(lambda: sum(hpcfut.get(ref) for ref in hpcfut.as_completed([double.remote(5)]))) == 10
    refs = notebook.run(lambda: [double.remote(number) for number in range(3)])
    assert notebook.run(lambda: hpcfut.get(refs)) == [0, 2, 4]  # type: ignore[call-overload]


def test_ctrl_c_in_a_later_cell_is_raised_where_nothing_is_left_in_the_middle(notebook: Notebook) -> None:
    @hpcfut.remote
    def wait_for(path: Path) -> None:
        (path / "running").touch()
        while not (path / "open").exists():
            time.sleep(0.001)

    def cell(path: Path) -> None:
        ref = wait_for.remote(path)
        # On another thread, so that this one is inside hpcfut when Ctrl-C comes.
        while not (path / "running").exists():
            hpcfut.wait([ref], timeout=0.01)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt) as caught:
            hpcfut.wait([ref], timeout=20)
        assert caught.traceback[-1].name == "demand_no_interruption"
        (path / "open").touch()
        hpcfut.get(ref)

    notebook.run(hpcfut.init)
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            notebook.run(functools.partial(cell, Path(folder)))
        assert notebook.run(lambda: hpcfut.get(double.remote(4))) == 8
    notebook.run(hpcfut.shutdown)
    assert not notebook.events.callbacks


def test_a_handler_of_the_users_own_stays(notebook: Notebook) -> None:
    hpcfut.init()
    before = signal.signal(signal.SIGINT, own := lambda number, frame: None)
    try:
        hpcfut.shutdown()
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert before is not own
