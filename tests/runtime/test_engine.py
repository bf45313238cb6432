"""What the engine makes of failures: of other ranks, and of hpcfut itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcfut.core.events import ResourcesQueried
from hpcfut.core.rank import RankCore
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.clock import MonotonicClock
from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.edges.host.loopback import LoopbackTransport
from hpcfut.model.config import Config
from hpcfut.model.errors import RankLostError
from hpcfut.model.roster import RankRecord
from hpcfut.model.template import RESOURCE_UNIT
from hpcfut.ports import SpillStore
from hpcfut.runtime.engine import Engine
from hpcfut.runtime.hearing import Hearing


def no_store() -> SpillStore:
    raise AssertionError("Nothing is spilled here.")


A_CORE_THAT_FAILS = """
import hpcfut
from hpcfut.api import session

class Unspeakable(Exception):
    def __str__(self):
        raise SystemExit

def fail(*args):
    raise %s("planted")

hpcfut.init()
session.current().engine.core.turn = fail
try:
    hpcfut.get(hpcfut.put(1), timeout=20)
except Exception:
    print("caught")
"""


class DeafPeer(LoopbackTransport):
    """A transport on which every send finds that the receiver has died."""

    def send(self, rank: int, frame: bytes, only_tasks: bool = False) -> None:
        raise RankLostError(rank, "it was killed.")


def test_a_send_that_finds_its_receiver_dead_ends_the_session() -> None:
    roster = [RankRecord(rank, 0, "h", "h", 77, {"CPU": RESOURCE_UNIT}) for rank in range(2)]
    core = RankCore(0, roster, Config(), is_driver=True, nbytes_store=1000)
    arena, clock, bell = HostArena(0, 1000), MonotonicClock(), HostDoorbell(0, 2)
    engine = Engine(
        core,
        DeafPeer(),
        arena,
        clock,
        Hearing(bell),
        session=0,
        may_spin=False,
        has_own_cores=False,
        open_store=no_store,
    )
    waiter = engine.new_waiter()
    engine.post_now(ResourcesQueried(1))
    engine.hear_now()
    assert engine.end is not None
    assert engine.end.failure == "Rank 1 on host h (process 77) died: it was killed."
    assert waiter.has_news


@pytest.mark.parametrize("error", ["KeyError", "Unspeakable"])
def test_a_failure_of_the_core_ends_the_rank_and_nobody_can_catch_it(error: str) -> None:
    # Its effects are lost, so whoever went on would wait for ever.
    script = A_CORE_THAT_FAILS % error
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 70, ended
    assert error == "Unspeakable" or "KeyError: 'planted'" in ended.stderr
    assert "this is a bug in hpcfut" in ended.stderr
    assert not ended.stdout
