"""The process that makes child processes, without hpcfut in them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
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
import signal
import subprocess
import time

from hpcfut.edges.host.fork_server import serve_forks


def work(start, channel):
    struck = []
    signal.signal(signal.SIGURG, lambda number, frame: struck.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
    while True:
        try:
            frame = bytes(channel.receive())
        except EOFError:
            return
        if frame == b"leave":
            os._exit(3)
        if frame == b"leave copies":
            copy = os.fork()
            if copy == 0:
                time.sleep(600)
            program = subprocess.Popen(["sleep", "600"], close_fds=False)
            channel.send(f"{copy} {program.pid}".encode())
            os._exit(4)
        if frame == b"leave a copy of the connection":
            os.register_at_fork(before=lambda: os.dup(channel._connection.fileno()))
            copy = os.fork()
            if copy == 0:
                time.sleep(600)
            channel.send(str(copy).encode())
            os._exit(5)
        if frame == b"struck":
            channel.send(str(len(struck)).encode())
            continue
        if frame == b"length":
            channel.send(str(len(start)).encode())
            continue
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
    assert child.end() is None, "Nobody can tell."


def test_closing_ends_them_all(server: ForkServer, start: Start) -> None:
    children = [start() for _ in range(3)]
    parent = int(ask(children[0], b"where").split()[0])
    server.close()
    until_gone(parent, *(child.pid for child in children))


def test_a_signal_that_comes_before_a_child_is_ready_for_it_is_kept(start: Start) -> None:
    for _ in range(5):
        child = start()
        child.signal(signal.SIGURG)
        assert ask(child, b"struck") == b"1"


@pytest.mark.parametrize(("how", "status"), [(b"leave copies", 4), (b"leave a copy of the connection", 5)])
def test_the_end_of_a_child_is_told_although_what_it_started_goes_on(start: Start, how: bytes, status: int) -> None:
    child = start()
    left = [int(pid) for pid in ask(child, how).split()]
    try:
        heard = ended_of(child.channel.receive)
        assert heard.wait(WAIT_S), "Who waits for a child that is gone hangs."
        heard = ended_of(lambda: child.channel.send(b"", [bytes(1 << 24)]))
        assert heard.wait(WAIT_S), "Who tells it something that it never reads hangs."
        assert child.end() == status
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def ended_of(call: Callable[[], object]) -> threading.Event:
    """Set when this has said on a thread that the other side is gone."""
    ended = threading.Event()

    def run() -> None:
        with suppress(EOFError):
            call()
            return
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    return ended


def test_a_server_whose_answer_was_not_heard_is_asked_no_more(
    server: ForkServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start()

    def interrupt() -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(server, "_answer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            server.start()
    with pytest.raises(EOFError):
        server.start()
    assert child.end() is None
    until_gone(child.pid)


@pytest.mark.parametrize("pid", [0, -1, 1])
def test_a_server_ends_its_own_children_only(server: ForkServer, start: Start, pid: int) -> None:
    child = start()
    assert server.end(pid) is None
    assert ask(child, b"where")
    assert start().end() == -signal.SIGKILL, "It goes on."


def test_a_fork_that_fails_ends_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hpcfut_test_failing.py").write_text(textwrap.dedent(FAILING_CODE) + textwrap.dedent(CODE))
    monkeypatch.setattr(fork_server, "ENTRY", "hpcfut_test_failing")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with closing(ForkServer(b"", os.environ)) as server:
        child = server.start()
        with pytest.raises(OSError, match="Resource temporarily") as caught:
            server.start()
        assert caught.value.errno == errno.EAGAIN
        assert ask(child, b"where")
        other = server.start()
        assert ask(other, b"where")
        child.let_go()
        other.let_go()


#: The second fork fails.
FAILING_CODE = """
import errno
import os

forks = [os.fork]


def fork():
    forks.append(None)
    if len(forks) == 3:
        raise BlockingIOError(errno.EAGAIN, "no")
    return forks[0]()


os.fork = fork
"""


def test_what_children_are_told_may_be_long(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(ForkServer(bytes(3 << 20), os.environ)) as other:
        child = other.start()
        assert ask(child, b"length") == str(3 << 20).encode()
        child.let_go()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_are_meant_for_the_rank_end_nobody(start: Start, number: signal.Signals) -> None:
    child = start()
    parent = int(ask(child, b"where").split()[0])
    os.kill(parent, number)
    child.signal(number)
    assert ask(child, b"where")
    assert ask(start(), b"where")


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
