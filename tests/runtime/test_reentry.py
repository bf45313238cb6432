"""User code that Python runs in the middle of hpcfut: a ``__del__``, at whatever moment an object goes."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PREPARE = """
import gc, sys, time
import hpcfut
from hpcfut.api import session

class Late:
    def __init__(self, act):
        self.act = act
        self.itself = self
    def __del__(self):
        self.act()

def complain(event):
    print(type(event.exc_value).__name__, event.exc_value, flush=True)

hpcfut.init()
sys.unraisablehook = complain
engine = session.current().engine
ref = hpcfut.put(5)

def collect_before(name, owner):
    function = getattr(owner, name)
    def wrapped(*args, **kwargs):
        setattr(owner, name, function)
        gc.collect()
        return function(*args, **kwargs)
    setattr(owner, name, wrapped)

gc.disable()
"""

SCRIPTS = {
    # The core is in the middle of a turn that the waiting driver takes.
    "a get in a turn": """
        Late(lambda: hpcfut.get([ref]))
        collect_before("turn", engine.core)
        assert hpcfut.get([ref]) == [5]
    """,
    # The turn is one of a thread that does not drive.
    "a get in the turn of a submission": """
        task = hpcfut.remote(lambda: 7)
        Late(lambda: hpcfut.get([ref]))
        collect_before("turn", engine.core)
        assert hpcfut.get(task.remote()) == 7
    """,
    # Between two turns the thread has the lead, but not the lock.
    "a get while leading": """
        Late(lambda: hpcfut.get([ref]))
        collect_before("_until", engine.rest)
        hpcfut.wait([hpcfut.remote(time.sleep).remote(0.1)], timeout=5)
        assert hpcfut.get(ref) == 5
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_waiting_there_is_refused(name: str) -> None:
    script = PREPARE + textwrap.dedent(SCRIPTS[name]) + "\nassert hpcfut.get(ref) == 5\nprint('well')\n"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    complaint, end = ended.stdout.splitlines()
    assert complaint.startswith("RuntimeError A __del__ method")
    assert end == "well"


def test_what_does_not_wait_is_allowed_there() -> None:
    script = PREPARE + textwrap.dedent(
        """
        refs = []
        task = hpcfut.remote(lambda value: value + 1)
        assert hpcfut.get(task.remote(1)) == 2
        Late(lambda: refs.append(task.remote(hpcfut.put(7))))
        collect_before("turn", engine.core)
        assert hpcfut.get([ref]) == [5]
        assert hpcfut.get(refs) == [8]
        print("well")
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "well\n", ""), ended


def test_what_a_function_held_goes_outside_of_turns() -> None:
    script = PREPARE + textwrap.dedent(
        """
        class Held:
            def __reduce__(self):
                return Late, (lambda: print("waited", hpcfut.wait([hpcfut.put(1)], timeout=20)[1], flush=True),)
        def make(held):
            return hpcfut.remote(lambda: held is None)
        function = make(Held())
        assert hpcfut.get(function.remote()) is False
        for loaded in session.current().executor.functions.loaded.values():
            loaded[0].__closure__[0].cell_contents.itself = None
        del function, loaded
        assert hpcfut.get(hpcfut.remote(lambda: 1).remote()) == 1
        assert hpcfut.get(hpcfut.remote(lambda: 2).remote()) == 2
        print("well")
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    assert ended.stdout.splitlines() == ["waited []", "well"]
