"""The process that makes child processes, without hpcfut in them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType

import pytest

from hpcfut.edges.host import fork_server
from hpcfut.edges.host.channel import Channel
from hpcfut.edges.host.fork_server import ForkedChild, ForkServer
from hpcfut.edges.host.launch_environment import without_launcher

WAIT_S = 20.0
Start = Callable[[], ForkedChild]
ENTRY = "hpcfut_test_entry"
#: A child answers each frame with the same bytes behind it, or does what it is told.
CODE = """
import os

from hpcfut.edges.host.fork_server import serve_forks


def work(start, channel):
    while True:
        try:
            frame = bytes(channel.receive())
        except EOFError:
            return
        if frame == b"leave":
            os._exit(3)
        if frame == b"where":
            channel.send(f"{os.getppid()} {start.decode()} {os.environ.get('PMI_RANK')}".encode())
        else:
            channel.send(b"same", [frame])


def main(descriptor):
    serve_forks(descriptor, lambda: None, work)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    (tmp_path / f"{ENTRY}.py").write_text(textwrap.dedent(CODE))
    monkeypatch.setattr(fork_server, "ENTRY", ENTRY)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    server = ForkServer(b"started", {**os.environ, "PMI_RANK": "7"})
    with closing(server):
        yield server


@pytest.fixture
def start(server: ForkServer) -> Iterator[Start]:
    children = []

    def start() -> ForkedChild:
        children.append(server.start())
        return children[-1]

    yield start
    for child in children:
        child.let_go()


def ask(child: ForkedChild, frame: bytes) -> bytes:
    child.channel.send(frame)
    answer = child.channel.receive()
    assert answer is not None
    return bytes(answer)


def test_children_are_told_what_the_server_was_told(start: Start) -> None:
    first, second = start(), start()
    parent, told, rank = ask(first, b"where").split()
    assert told == b"started"
    assert rank == b"None", "Nothing makes it a rank."
    assert ask(second, b"where").split()[0] == parent, "One process makes all of them."
    assert first.nbytes_private > 0


def test_large_values_follow_their_frame(start: Start) -> None:
    child = start()
    sent = os.urandom(3 << 20)
    echo = threading.Thread(target=child.channel.send, args=(sent,))
    echo.start()
    assert bytes(child.channel.receive() or b"") == b"same"
    target = bytearray(2 << 20)
    child.channel.receive_into(memoryview(target))
    child.channel.skip(1 << 20)
    echo.join()
    assert target == sent[: 2 << 20]
    assert ask(child, b"where").endswith(b"None"), "Nothing is left in between."


def test_the_end_of_a_child_is_told(start: Start) -> None:
    child = start()
    child.channel.send(b"leave")
    with pytest.raises(EOFError):
        child.channel.receive()
    assert child.end() == 3
    child = start()
    assert child.channel.receive(0.0) is None
    child.signal(signal.SIGTERM)
    with pytest.raises(EOFError):
        child.channel.receive()
    assert child.end() == -signal.SIGTERM
    assert start().end() == -signal.SIGKILL, "It had not ended."


def test_a_child_that_is_let_go_is_buried_by_the_next(start: Start) -> None:
    child = start()
    child.let_go()
    other = start()
    assert not Path(f"/proc/{child.pid}").exists()
    assert ask(other, b"where")


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until_gone(*pids: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_is_killed_takes_its_children_with_it(server: ForkServer, start: Start) -> None:
    child = start()
    parent = int(ask(child, b"where").split()[0])
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(EOFError):
        child.channel.receive()
    until_gone(child.pid, parent)
    with pytest.raises(EOFError):
        server.start()
    assert child.end() == 0, "Nobody can tell."


def test_closing_ends_them_all(server: ForkServer, start: Start) -> None:
    children = [start() for _ in range(3)]
    parent = int(ask(children[0], b"where").split()[0])
    server.close()
    assert all(is_gone(pid) for pid in (parent, *(child.pid for child in children)))


def test_a_channel_survives_signals() -> None:
    own, other = socket.socketpair()
    channel, far = Channel(own), Channel(other)
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        far.send(b"frame")

    before = signal.signal(signal.SIGURG, note)
    try:
        timer = threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGURG))
        timer.start()
        assert bytes(channel.receive() or b"") == b"frame"
        timer.join()
    finally:
        signal.signal(signal.SIGURG, before)
    assert caught == [signal.SIGURG]
    far.close()
    with pytest.raises(EOFError):
        channel.receive()
    with pytest.raises(EOFError):
        channel.send(b"", [bytes(1 << 20)])
    channel.close()


def test_nothing_of_the_launcher_is_left_in_the_environment() -> None:
    names = ["PMI_FD", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "HYDI_CONTROL_FD", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"]
    others = {"PATH": "/bin", "SLURM_JOB_ID": "1", "OMP_NUM_THREADS": "2", "HPCFUT_DEBUG": "1"}
    assert without_launcher({**dict.fromkeys(names, "1"), **others}) == others
