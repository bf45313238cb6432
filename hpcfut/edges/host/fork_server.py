"""The child processes of a rank in which the code of isolated tasks runs, and the process that makes them.

A rank must not be forked: it has threads, and MPI does not bear it. So it starts one fresh Python, the fork server,
without the variables by which MPI would take that for the rank itself. The server imports what every child needs, and
is forked whenever the rank wants a child, which takes milliseconds. It never runs code of the user's.

Nobody of them outlives the rank: the server ends its children and itself as soon as the connection to the rank is at
its end, or its parent has changed; the kernel ends the children with the server. They stay in the process group of the
rank, so that what ends that ends them as well; Ctrl-C is left to the rank. Where memory runs out, the kernel is asked
to end a child first.

First the rank says what children are told about it. Then it says one message each: a descriptor, for a child that
gets it; or the number of a child whose end is wanted. The server alone hears of the end of a child, and only when it is
asked for one, so that its number means no other process meanwhile. A rank that has asked and not heard the answer, a
Ctrl-C say, would take it for the next one: it gives the server up.
"""

from __future__ import annotations

import errno
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
from typing import Final, NoReturn, TypeVar

from hpcfut.edges.host.channel import Channel
from hpcfut.edges.host.launch_environment import without_launcher
from hpcfut.edges.host.parent import ParentWatch, die_with_parent

#: The module whose ``main`` is the server, because it puts a child together.
ENTRY: Final = "hpcfut.api.isolated"
_NUMBER: Final = struct.Struct("<q")
_PARENT_CHECK_S: Final = 0.5
_END_WITHIN_S: Final = 2.0
_NBYTES_MESSAGE_MAX: Final = 1 << 16
#: In place of the exit status of a process that is no child of the server's.
_UNKNOWN: Final = 1 << 16
#: They come to the whole process group where a batch system warns a job, and are meant for the code of ranks.
_LEFT_TO_THE_RANK: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


T = TypeVar("T")


# -- the rank's side ---------------------------------------------------------------------------------------------------


class _NoProcessError(OSError):
    """The server could not make a child, as it has answered."""


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

    def end(self) -> int | None:
        """End it, if it has not ended; returns its exit status, or a signal below zero, or None if nobody knows."""
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
        """``start`` is what children are told about their rank.

        Raises:
            EOFError: It has ended at once.
            OSError: It cannot be started.
        """
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"import sys; sys.path[:] = {sys.path!r}; from {ENTRY} import main; main({other.fileno()})"
        with other:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
                    env=without_launcher(environ),
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            except BaseException:  # A Ctrl-C as well; it goes on upwards, and no descriptor is left.
                own.close()
                raise
        self._connection = own
        self._lock = threading.Lock()
        #: Children that end by themselves, of whose end nobody has heard.
        self.left: deque[int] = deque()
        try:
            own.send(_NUMBER.pack(len(start)))
            for position in range(0, len(start), _NBYTES_MESSAGE_MAX):
                own.send(start[position : position + _NBYTES_MESSAGE_MAX])
        except BaseException as error:  # A Ctrl-C as well: nobody would ever end the process.
            self.close()
            if isinstance(error, OSError):
                raise EOFError from error
            raise

    def start(self) -> ForkedChild:
        """Make a child.

        Raises:
            EOFError: The server is gone.
            OSError: There can be no further process, or no further descriptor.
        """
        own, other = socket.socketpair()
        try:
            with other, self._lock:
                self._bury()
                return self._asked(lambda: self._start(own, other))
        except BaseException:  # Whatever it is goes on upwards, and no descriptor is left.
            own.close()
            raise

    def _start(self, own: socket.socket, other: socket.socket) -> ForkedChild:
        socket.send_fds(self._connection, [b"\0"], [other.fileno()])
        pid = self._answer()
        if pid <= 0:
            raise _NoProcessError(-pid, os.strerror(-pid))
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            raise  # The server is gone, and somebody else has buried its children.
        except OSError:  # The kernel has none, and the end of the connection must do.
            process = -1
        return ForkedChild(pid, Channel(own, process), self)

    def end(self, pid: int) -> int | None:
        """End a child; returns as ``ForkedChild.end`` does."""
        with self._lock, suppress(EOFError):
            self._bury()
            return self._ask_for_end(pid)
        return None

    def _bury(self) -> None:
        while self.left:
            self._ask_for_end(self.left.popleft())

    def _ask_for_end(self, pid: int) -> int | None:
        def ask() -> int:
            self._connection.send(_NUMBER.pack(pid))
            return self._answer()

        status = self._asked(ask)
        return None if status == _UNKNOWN else status

    def _asked(self, ask: Callable[[], T]) -> T:
        """Ask the server for something; if its answer is not heard, it is the last thing that it was asked for."""
        try:
            return ask()
        except _NoProcessError:
            raise
        except BaseException as error:  # A Ctrl-C as well: the answer that is still to come would be the next one's.
            self._connection.close()
            if isinstance(error, OSError):
                raise EOFError from error
            raise

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
    control.set_inheritable(False)
    for number in _LEFT_TO_THE_RANK:
        # Not ignored, because the programs that a task starts would inherit that.
        signal.signal(number, lambda number, frame: None)
    # A cancellation may come before a child is ready for it. What is blocked is kept, and whoever can hear it unblocks.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    children: dict[int, None] = {}
    status = 0
    try:
        start = _hear_start(control)
        if start is not None:
            prepare()
            _serve(control, parent, children, lambda channel: work(start, channel))
    except BaseException:  # Nothing is above this; it is told, and children never outlive their server.
        traceback.print_exc()
        status = 1
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
        os._exit(status)


def _hear_start(control: socket.socket) -> bytes | None:
    """What children are told about their rank; nothing if that is gone already."""
    head = control.recv(_NUMBER.size)
    if not head:
        return None
    nbytes = _NUMBER.unpack(head)[0]
    start = bytearray()
    while len(start) < nbytes:
        part = control.recv(_NBYTES_MESSAGE_MAX)
        if not part:
            return None
        start += part
    return bytes(start)


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
        try:
            message, descriptors, _, _ = socket.recv_fds(control, _NUMBER.size, 1)
        except ConnectionError:
            return
        if not message:
            return
        if descriptors:
            answer = _fork(control, descriptors[0], work)
            if answer > 0:
                children[answer] = None
        elif len(message) == _NUMBER.size:
            answer = _end(_NUMBER.unpack(message)[0], children)
        else:  # The descriptor has been lost on the way: this process may have no further ones.
            answer = -errno.EMFILE
        with suppress(OSError):  # The rank is gone, which the next look tells.
            control.send(_NUMBER.pack(answer))


def _fork(control: socket.socket, descriptor: int, work: Callable[[Channel], None]) -> int:
    """Make a child; gives its number, or why there is none, as an error number below zero."""
    server = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(descriptor)
        return -(error.errno or errno.EAGAIN)
    if pid == 0:
        try:
            control.close()
            die_with_parent()
            if os.getppid() == server:
                with suppress(OSError):  # Not everywhere a process may say that.
                    Path("/proc/self/oom_score_adj").write_text("1000")
                faulthandler.enable()
                # It came as one that programs inherit.
                os.set_inheritable(descriptor, False)
                channel = Channel(socket.socket(fileno=descriptor))
                os.register_at_fork(after_in_child=channel.close)
                work(channel)
        except BaseException:  # What is above belongs to the server, of which this is a copy.
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(descriptor)
    return pid


def _end(pid: int, children: dict[int, None]) -> int:
    if pid not in children:
        return _UNKNOWN
    # What has ended already keeps the status that it ended with.
    os.kill(pid, signal.SIGKILL)
    del children[pid]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
