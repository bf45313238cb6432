"""A person at a prompt: what is typed at a terminal, Ctrl-C there, and a prompt that no other rank serves."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from collections.abc import Sequence

import pytest

from tests.mpi.jobs import CHECKOUT, OPENMPI_SETTINGS, Mpi

pytestmark = pytest.mark.mpi

WITHIN_S = 30.0
CTRL_C = "\x03"
INIT = "import hpcfut; hpcfut.init()"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        self.shown = ""
        self._n_seen = 0
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Whoever runs the tests may ignore it.
            os.execvpe(command[0], list(command), {**os.environ, **OPENMPI_SETTINGS, "PYTHONPATH": str(CHECKOUT)})

    def type(self, *lines: str) -> None:
        """Presses the keys; what is typed ahead waits for its turn."""
        for line in lines:
            os.write(self._descriptor, line.encode() + b"\n" * (line != CTRL_C))

    def wait_for(self, text: str) -> None:
        """Waits until this is shown, after what was waited for before."""
        deadline = time.monotonic() + WITHIN_S
        while (at := self.shown.find(text, self._n_seen)) < 0:
            if time.monotonic() > deadline or not self._read(0.1):
                os.killpg(self.pid, signal.SIGKILL)
                self.end()
                raise AssertionError(f"{text!r} was not shown:\n{self.shown}")
        self._n_seen = at + len(text)

    def end(self) -> int:
        """Reads to the end, and gives the exit status; kills what does not end."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline and self._read(0.1):
            pass
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self._descriptor)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.01)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self._descriptor, 1 << 16)
        except OSError:  # All who could write have ended.
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


#: What a person defines; each name that is waited for is printed in two parts, because typing it shows it as well.
DEFINITIONS = (
    "import time",
    "double = hpcfut.remote(lambda x: 2 * x)",
    "def loop():",
    "  while True: time.sleep(0.01)",
    "",
    "loop = hpcfut.remote(loop)",
    "print('se' + 'en', hpcfut.get(double.remote(2)))",
)


def show_ctrl_c_in_get(terminal: Terminal) -> None:
    terminal.type(*DEFINITIONS)
    terminal.wait_for("seen 4")
    terminal.type("ref = loop.remote(); print('wai' + 'ting'); hpcfut.get(ref)")
    terminal.wait_for("waiting")
    terminal.type(CTRL_C)
    terminal.wait_for("KeyboardInterrupt")
    # The task goes on, as in Ray, and the prompt as well.
    terminal.type("hpcfut.cancel(ref); print('af' + 'ter', hpcfut.get(double.remote(4)))")
    terminal.wait_for("after 8")


@pytest.mark.parametrize("how", [["-i", "-c", INIT], []], ids=["-i", "prompt"])
def test_one_rank(mpi: Mpi, how: list[str]) -> None:
    terminal = Terminal([mpi.program("python"), *how])
    terminal.wait_for(">>> ")
    if not how:
        terminal.type(INIT)
    show_ctrl_c_in_get(terminal)
    terminal.wait_for(">>> ")
    # Python hears of a signal that comes just before it waits for a key only with the next key.
    terminal.type(CTRL_C, "")
    terminal.wait_for("KeyboardInterrupt")
    terminal.type("print('ag' + 'ain', hpcfut.get(double.remote(5)))")
    terminal.wait_for("again 10")
    terminal.type("exit()")
    assert terminal.end() == 0, terminal.shown


def test_two_ranks(mpi: Mpi) -> None:
    terminal = Terminal([mpi.program("mpiexec"), "-n", "2", mpi.program("python"), "-i", "-c", INIT])
    if mpi.name == "mpich":
        show_ctrl_c_in_get(terminal)
    else:
        # Open MPI's launcher shows no line before its end, and ends the job at Ctrl-C.
        terminal.type(*DEFINITIONS)
        terminal.wait_for("seen 4")
    terminal.type("exit()")
    assert terminal.end() == 0, terminal.shown


def test_init_typed_where_no_other_rank_serves(mpi: Mpi) -> None:
    terminal = Terminal([mpi.program("mpiexec"), "-n", "3", mpi.program("python"), "-i"])
    terminal.type(INIT)
    terminal.wait_for("gives what is typed to rank 0 alone")
    terminal.wait_for('mpirun -n 3 python -i -c "import hpcfut; hpcfut.init()"')
    if mpi.name == "openmpi":
        terminal.type("exit()")
    else:
        # MPICH's launcher keeps the input of the other ranks open, and so their prompts.
        terminal.type(CTRL_C)
        terminal.wait_for("Press Ctrl-C again")
        terminal.type(CTRL_C)
    terminal.end()
    assert terminal.shown.count("gives what is typed") == 1, terminal.shown
