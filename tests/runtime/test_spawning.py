"""A process that is started for a rank that has died, and what keeps it from being there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from queue import Queue

import pytest

from hpcfut.runtime.spawning import Spawning

#: Far longer than anything here takes.
WAIT_S = 60.0
SAYS_NUMBER = "import sys; from hpcfut.runtime.spawning import say_number; say_number(sys.argv[1]); sys.stdin.read()"


class World:
    """Starts processes; tells what became of each."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.told: Queue[str] = Queue()
        #: Set when the two meet; and when the other one answers.
        self.met, self.answered = threading.Event(), threading.Event()
        self.error = ""
        self.had_ended = False

    def spawning(self, within_s: float = WAIT_S) -> Spawning[str, str]:
        return Spawning(
            self.call,
            self.greet,
            lambda pair, answer: self.told.put(f"{pair} {answer}"),
            lambda pair: self.told.put(f"{pair} refused"),
            self.told.put,
            within_s,
        )

    def call(self, path: str, has_ended: Callable[[], bool]) -> str:
        words = [sys.executable, "-c", SAYS_NUMBER, path]
        self.processes.append(subprocess.Popen(words, stdin=subprocess.PIPE))
        assert self.met.wait(WAIT_S)
        self.had_ended = has_ended()
        if self.error:
            raise OSError(self.error)
        return "pair"

    def greet(self, _: str) -> str:
        self.told.put("met")
        assert self.answered.wait(WAIT_S)
        return "answer"

    def hear(self) -> str:
        return self.told.get(timeout=WAIT_S)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.met.set()
    made.answered.set()
    for process in made.processes:
        process.kill()
        process.communicate()


def test_it_comes(world: World) -> None:
    n_open = len(os.listdir("/proc/self/fd"))
    spawning = world.spawning()
    world.met.set()
    assert world.hear() == "met"
    world.answered.set()
    assert world.hear() == "pair answer"
    spawning.wait(WAIT_S)
    assert len(os.listdir("/proc/self/fd")) == n_open + 1, "The standard input of the process."


def test_it_cannot_be_started(world: World) -> None:
    spawning = world.spawning()
    world.error = "There is no room."
    world.met.set()
    assert world.hear() == "Starting another process failed: There is no room."
    spawning.wait(WAIT_S)


@pytest.mark.parametrize("has_met", [False, True])
def test_it_dies_before_it_is_there(world: World, has_met: bool) -> None:
    spawning = world.spawning()
    if has_met:
        world.met.set()
        assert world.hear() == "met"
    while not world.processes:
        pass
    # Its number has come when there is nothing left to say.
    assert world.processes[0].stdin is not None
    world.processes[0].stdin.close()
    assert world.hear() == "The process that was started for it ended before it was there."
    spawning.wait(WAIT_S)
    assert world.told.empty()
    if not has_met:
        world.met.set()
        assert world.hear() == "pair refused"
    assert world.had_ended != has_met


def test_it_comes_too_late(world: World) -> None:
    spawning = world.spawning(within_s=0.01)
    assert world.hear() == "The process that was started for it was not there within 0.01 s."
    spawning.wait(WAIT_S)
    world.met.set()
    assert world.hear() == "pair refused"
