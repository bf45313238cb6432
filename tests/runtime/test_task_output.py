"""What tasks print, on one rank without tasks: the threads of the test stand for them."""

from __future__ import annotations

import io
import logging
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from hpcfut.edges.host.task_output import N_CHARACTERS_HELD_MAX, TaskOutput


class Rank:
    """Streams in memory, and which task the present thread runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self._monkeypatch = monkeypatch
        self.output = TaskOutput(3)
        self.task = threading.local()
        self.begun: list[int] = []

    def use_streams(self) -> None:
        """By the test itself: before it begins, pytest puts its own in their place."""
        self._monkeypatch.setattr(sys, "stdout", self.out)
        self._monkeypatch.setattr(sys, "stderr", self.err)

    def install(self, *, is_driver: bool = True) -> None:
        if sys.stderr is not self.err:
            self.use_streams()
        self.output.install(lambda: getattr(self.task, "id", 0), self.begun.append, is_driver=is_driver)

    def in_task(self, task_id: int, act: Callable[[], object]) -> None:
        before, self.task.id = getattr(self.task, "id", 0), task_id
        act()
        self.task.id = before


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rank]:
    made = Rank(monkeypatch)
    yield made
    made.output.remove()


def test_tasks_are_prefixed_and_the_driver_is_not(rank: Rank) -> None:
    rank.install()
    print("driver", end=" ")
    rank.in_task(7, lambda: print("one", 2, "three\n\nfour"))
    rank.in_task(7, lambda: print("trouble", file=sys.stderr))
    print("goes on\r", end="")
    assert rank.out.getvalue() == "driver (rank 3) one 2 three\n(rank 3) \n(rank 3) four\ngoes on\r"
    assert rank.err.getvalue() == "(rank 3) trouble\n"
    assert set(rank.begun) == {7}  # `print` writes its parts one by one.


def test_a_begun_line_waits_for_its_end(rank: Rank) -> None:
    rank.install()
    rank.in_task(7, lambda: print("a", end="", flush=True))
    rank.in_task(8, lambda: print("b", end=""))
    assert rank.out.getvalue() == ""
    assert set(rank.begun) == {7, 8}
    rank.in_task(7, lambda: print("c\nd", end=""))
    assert rank.out.getvalue() == "(rank 3) ac\n"
    rank.output.finish(8)
    assert rank.out.getvalue() == "(rank 3) ac\n(rank 3) b\n"
    rank.output.finish(8)
    rank.output.remove()
    assert rank.out.getvalue() == "(rank 3) ac\n(rank 3) b\n(rank 3) d\n"


def test_a_task_inside_another_has_lines_of_its_own(rank: Rank) -> None:
    rank.install()

    def outer() -> None:
        print("outer", end=" ")
        rank.in_task(8, lambda: print("inner"))
        print("ends")

    rank.in_task(7, outer)
    assert rank.out.getvalue() == "(rank 3) inner\n(rank 3) outer ends\n"


def test_a_progress_bar_shows_its_last_state(rank: Rank) -> None:
    rank.install()

    def show() -> None:
        for k in range(0, 101, 10):
            print(f"\r{k} %", end="", file=sys.stderr)
        print(file=sys.stderr)
        for k in range(3):
            print(k, end="\r")
        print("three\r\nfour\r", end="")

    rank.in_task(7, show)
    rank.output.finish(7)
    assert rank.err.getvalue() == "(rank 3) 100 %\n"
    assert rank.out.getvalue() == "(rank 3) three\n(rank 3) four\n"


def test_what_never_ends_is_broken(rank: Rank) -> None:
    rank.install()
    for _ in range(3):
        rank.in_task(7, lambda: print("x" * N_CHARACTERS_HELD_MAX, end=""))
    assert rank.out.getvalue() == f"(rank 3) {'x' * 2 * N_CHARACTERS_HELD_MAX}\n"


def test_on_a_rank_without_a_driver_all_is_prefixed(rank: Rank) -> None:
    rank.install(is_driver=False)
    print("a", end="")
    thread = threading.Thread(target=print, args=("from", "a thread"))
    thread.start()
    thread.join()
    print("b")
    assert rank.out.getvalue() == "(rank 3) from a thread\n(rank 3) ab\n"
    assert not [source for source in rank.begun if source > 0]


def test_handlers_of_logging_follow(rank: Rank) -> None:
    rank.use_streams()
    early, late = logging.StreamHandler(), logging.getLogger("hpcfut.test.late")
    logger = logging.getLogger("hpcfut.test.early")
    logger.addHandler(early)
    rank.install()
    late.addHandler(logging.StreamHandler())
    rank.in_task(7, lambda: logger.error("early"))
    rank.in_task(7, lambda: late.error("late"))
    logger.error("of the driver")
    rank.output.remove()
    rank.in_task(7, lambda: logger.error("afterwards"))
    # Made meanwhile, it holds the wrapper for ever.
    rank.in_task(7, lambda: late.error("and late"))
    for each in (logger, late):
        each.handlers.clear()
    told = "(rank 3) early\n(rank 3) late\nof the driver\nafterwards\nand late\n"
    assert rank.err.getvalue() == told
    assert early.stream is rank.err


def test_the_rest_of_a_stream_is_there(rank: Rank) -> None:
    rank.install()
    assert not sys.stdout.isatty()
    assert pickle.loads(pickle.dumps(sys.stdout)) is sys.stdout
    sys.stdout.writelines(["a", "b\n"])
    rank.in_task(7, lambda: sys.stdout.writelines(["a", "b\n"]))
    assert rank.out.getvalue() == "ab\n(rank 3) ab\n"
    with pytest.raises(TypeError):
        rank.in_task(7, lambda: sys.stdout.write(b"bytes"))  # type: ignore[arg-type]
    rank.task.id = 0


def test_it_ends_as_it_began_and_begins_again(rank: Rank) -> None:
    rank.install()
    held = sys.stdout
    rank.output.remove()
    assert sys.stdout is rank.out
    assert sys.stderr is rank.err
    rank.in_task(7, lambda: print("plain", file=held))
    for _ in range(2):
        rank.output.install(lambda: rank.task.id or 7, rank.begun.append, is_driver=True)
    print("again")
    assert rank.out.getvalue() == "plain\n(rank 3) again\n"
    # Somebody else has put a stream in our place, and may put ours back.
    sys.stdout = other = io.StringIO()
    rank.output.remove()
    assert sys.stdout is other


def test_a_forked_child_prints_its_own_lines_only(rank: Rank) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as printed, os.fdopen(writing, "w") as stream:
        rank.use_streams()
        sys.stdout = stream
        rank.install(is_driver=False)
        print("of the parent", end="")
        pid = os.fork()
        if pid == 0:
            print("of the child", end="")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
        print(", which goes on")
        rank.output.remove()
        assert [printed.readline() for _ in range(2)] == [
            "(rank 3) of the child\n",
            "(rank 3) of the parent, which goes on\n",
        ]
