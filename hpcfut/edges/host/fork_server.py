"""The child processes of a rank in which the code of isolated tasks runs, and the process that makes them.

A rank must not be forked: it has threads, and MPI does not bear it. So it starts one fresh Python, the fork server,
without the variables by which MPI would take that for the rank itself. The server imports what every child needs, and
is forked whenever the rank wants a child, which takes milliseconds. It never runs code of the user's.

Nobody of them outlives the rank: the server ends its children and itself as soon as the connection to the rank is at
its end, or its parent has changed; the kernel ends the children with the server. They stay in the process group of the
rank, so that what ends that ends them as well; Ctrl-C is left to the rank. Where memory runs out, the kernel is asked
to end a child first.

What the rank says through the connection is one message each: a descriptor, for a child that gets it; or the number
of a child whose end is wanted. The server alone hears of the end of a child, and only when it is asked for one, so that
its number means no other process meanwhile.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from hpcfut.edges.host.channel import Channel
from hpcfut.edges.host.launch_environment import without_launcher
from hpcfut.edges.host.parent import ParentWatch, die_with_parent

#: The module whose ``main`` is the server, because it puts a child together.
ENTRY: Final = "hpcfut.api.isolated"
_NUMBER: Final = struct.Struct("<q")
_PARENT_CHECK_S: Final = 0.5
_END_WITHIN_S: Final = 2.0
_NBYTES_MESSAGE_MAX: Final = 1 << 20


# -- the rank's side ---------------------------------------------------------------------------------------------------


class ForkedChild:
    """A child, as the rank sees it."""

    def __init__(self, pid: int, channel: Channel, server: ForkServer) -> None:
        self.pid = pid
        self.channel = channel
        self._server = server

    @property
    def nbytes_private(self) -> int:
        """Memory that it has for itself; 0 if it has ended."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        return 0

    def signal(self, number: int) -> None:
        """Send it a signal; nobody calls this after ``end`` or ``let_go``."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> int:
        """End it, if it has not ended; returns its exit status, or a signal below zero, or 0 if that is not known."""
        status = self._server.end(self.pid)
        # Not before: it would leave by itself when it found the end of the channel.
        self.channel.close()
        return status

    def let_go(self) -> None:
        """It ends by itself, soon; to be called where nobody may wait."""
        self.channel.close()
        self._server.left.append(self.pid)


class ForkServer:
    """Starts the server, and asks it for children; any thread may."""

    def __init__(self, start: bytes, environ: Mapping[str, str]) -> None:
        """``start`` is what children are told about their rank."""
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"import sys; sys.path[:] = {sys.path!r}; from {ENTRY} import main; main({other.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=without_launcher(environ),
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
        )
        other.close()
        self._connection = own
        self._lock = threading.Lock()
        #: Children that end by themselves, of whose end nobody has heard.
        self.left: deque[int] = deque()
        own.send(start)

    def start(self) -> ForkedChild:
        """Make a child.

        Raises:
            EOFError: The server is gone.
        """
        own, other = socket.socketpair()
        with other, self._lock:
            self._bury()
            try:
                socket.send_fds(self._connection, [b"\0"], [other.fileno()])
            except OSError as error:
                own.close()
                raise EOFError from error
            return ForkedChild(self._answer(), Channel(own), self)

    def end(self, pid: int) -> int:
        """End a child; returns as ``ForkedChild.end`` does."""
        with self._lock, suppress(EOFError):
            self._bury()
            return self._ask_for_end(pid)
        return 0

    def _bury(self) -> None:
        while self.left:
            self._ask_for_end(self.left.popleft())

    def _ask_for_end(self, pid: int) -> int:
        try:
            self._connection.send(_NUMBER.pack(pid))
        except OSError as error:
            raise EOFError from error
        return self._answer()

    def _answer(self) -> int:
        answer = self._connection.recv(_NUMBER.size)
        if not answer:
            raise EOFError
        number: int = _NUMBER.unpack(answer)[0]
        return number

    def close(self) -> None:
        """End all children, and the server."""
        self._connection.close()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# -- the server --------------------------------------------------------------------------------------------------------


def serve_forks(descriptor: int, prepare: Callable[[], None], work: Callable[[bytes, Channel], None]) -> NoReturn:
    """Be the server; ``work`` is what a child does, with what it is told about its rank."""
    parent = ParentWatch()
    control = socket.socket(fileno=descriptor)
    # Not ignored, because the programs that a task starts would inherit that.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    children: dict[int, None] = {}
    try:
        start = control.recv(_NBYTES_MESSAGE_MAX)
        if start:
            prepare()
            _serve(control, parent, children, lambda channel: work(start, channel))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
        os._exit(0)


def _serve(
    control: socket.socket, parent: ParentWatch, children: dict[int, None], work: Callable[[Channel], None]
) -> None:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        if not poll.poll(_PARENT_CHECK_S * 1000):
            # Whatever else the rank has forked may hold the other end of the connection.
            if parent.is_orphaned():
                return
            continue
        message, descriptors, _, _ = socket.recv_fds(control, _NUMBER.size, 1)
        if not message:
            return
        if descriptors:
            answer = _fork(control, descriptors[0], work)
            children[answer] = None
        else:
            answer = _end(_NUMBER.unpack(message)[0])
            del children[_NUMBER.unpack(message)[0]]
        with suppress(OSError):  # The rank is gone, which the next look tells.
            control.send(_NUMBER.pack(answer))


def _fork(control: socket.socket, descriptor: int, work: Callable[[Channel], None]) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            control.close()
            die_with_parent()
            if os.getppid() == server:
                with suppress(OSError):  # Not everywhere a process may say that.
                    Path("/proc/self/oom_score_adj").write_text("1000")
                faulthandler.enable()
                work(Channel(socket.socket(fileno=descriptor)))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(descriptor)
    return pid


def _end(pid: int) -> int:
    # What has ended already keeps the status that it ended with.
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
