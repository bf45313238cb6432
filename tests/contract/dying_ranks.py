"""Runs transports on ranks some of which are killed, under an MPI with fault tolerance.

Usage: dying_ranks.py FOLDER N_NEAR, an empty folder that all hosts see, and the number of ranks on each.

Rounds follow each other on the same ranks, fewer each time. In each, some ranks do what is to be cut short and say so
by a frame; rank 0 kills them then, so that a death comes when it is meant to. The last rounds have the barrier, with a
death while others wait in it, and a second barrier, and exchange frames in between.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.edges.mpi.deaths import tells_of_deaths
from hpcfut.edges.mpi.start import World, start_mpi
from hpcfut.edges.mpi.surviving import SurvivingTransport
from hpcfut.ports import SLEEPS
from tests.contract.transport_body import wait_until

#: Two chunks, and beyond what a network keeps for who does not receive.
NBYTES_LARGE = 17_000_000
NBYTES_FRAME = 2_000_000


class Rank:
    """One rank, and what has come to it."""

    def __init__(self, world: World, bell: HostDoorbell, folder: Path) -> None:
        self.world = world
        self.rank = world.rank
        self.bell = bell
        self.transport = SurvivingTransport(world.comm, bell)
        self.folder = folder
        self.living = list(range(world.n_ranks))
        self.frames: dict[int, list[bytes]] = {rank: [] for rank in self.living}
        self.completed: list[tuple[bool, int, int]] = []
        self.failed: list[tuple[bool, int, int]] = []

    def look(self) -> None:
        """Take in what there is; nothing comes from the dead."""
        dead = set(self.transport.deaths)
        for source, frame in self.transport.poll():
            assert source not in dead, f"rank {source} is dead, and {bytes(frame[:20])!r} came from it"
            self.frames[source].append(bytes(frame))
        self.completed += self.transport.completed_data()
        self.failed += self.transport.failed_data()

    def until(self, is_done: Callable[[], bool], what: str) -> None:
        """Look until something is so."""

        def is_over() -> bool:
            self.look()
            return is_done()

        wait_until(is_over, lambda: (self.rank, what, self.completed, self.failed, self.transport.deaths))

    def hear(self, source: int, frame: bytes) -> None:
        """Wait for this frame."""
        self.until(lambda: frame in self.frames[source], f"{frame!r} from {source}")

    def live_on(self) -> None:
        """What a victim does meanwhile."""
        while True:
            self.look()

    def kill(self, *victims: int) -> None:
        """Rank 0: the others hear of it from MPI alone."""
        if self.rank == 0:
            for victim in victims:
                (self.folder / str(victim)).touch()
        self.living = [rank for rank in self.living if rank not in victims]

    def note(self, *victims: int) -> None:
        """Wait until these are known to be dead, and all is quiet."""
        self.until(lambda: all(victim in self.transport.deaths for victim in victims), f"the deaths of {victims}")
        self.until(lambda: not self.transport.is_busy, "quiet")

    def exchange(self, word: bytes) -> None:
        """Every living rank still hears every other, once and in order; large frames, too."""
        others = [rank for rank in self.living if rank != self.rank]
        for other in others:
            self.transport.send(other, word + b" small")
            self.transport.send(other, word + bytes(300_000))
            self.transport.send(other, word + b" end")
        for other in others:
            self.hear(other, word + b" end")
            frames, self.frames[other] = self.frames[other], []
            end = frames.index(word + b" end") + 1
            assert frames[end - 3 : end] == [word + b" small", word + bytes(300_000), word + b" end"]
            # Some are further than others.
            self.frames[other] += frames[end:]
        for dead in self.transport.deaths:
            self.transport.send(dead, b"nobody hears this")
        # Nobody is killed, or stops looking, before all have heard all.
        heard = word + b" heard"
        if self.rank:
            self.transport.send(0, heard)
        for other in [0] if self.rank else others:
            self.hear(other, heard)
            self.frames[other].remove(heard)
        if not self.rank:
            for other in others:
                self.transport.send(other, heard)
        self.until(lambda: not self.transport.is_busy, "quiet")


def idle_rank_dies(rank: Rank, victim: int) -> None:
    """Sleeping ranks learn of it, though nothing is under way with it, and what it sent last is heard or lost whole."""
    if rank.rank == victim:
        for number in range(50):
            for other in rank.living:
                if other != victim:
                    rank.transport.send(other, b"%d" % number)
        rank.transport.send(0, b"ready")
        rank.live_on()
    if rank.rank == 0:
        rank.hear(victim, b"ready")
    rank.kill(victim)
    rank.note(victim)
    heard = [frame for frame in rank.frames[victim] if frame != b"ready"]
    assert heard == [b"%d" % number for number in range(len(heard))]
    assert rank.rank != 0 or len(heard) == 50
    rank.bell.asleep[victim] = SLEEPS
    rank.transport.send(victim, b"it is neither sent this nor rung")
    assert not rank.transport.is_busy


def large_frames_are_under_way(rank: Rank, victim: int) -> None:
    """To it, which does not take them in, and from it to ranks that begin to."""
    others = [other for other in rank.living if other != victim]
    if rank.rank == victim:
        for other in others:
            rank.transport.send(other, b"before")
            rank.transport.send(other, bytes([7]) * NBYTES_FRAME)
            rank.transport.send(other, b"after")
        rank.world.comm.Ssend(b"sent", 0, 99)
        while True:  # It neither receives nor lets MPI send.
            time.sleep(1)
    for _ in range(3):
        rank.transport.send(victim, bytes(NBYTES_FRAME))
        rank.transport.send(victim, b"small")
    if rank.rank == 0:
        rank.world.comm.Recv(bytearray(4), victim, 99)
    rank.kill(victim)
    rank.note(victim)
    heard = rank.frames[victim]
    assert heard == [b"before", bytes([7]) * NBYTES_FRAME, b"after"][: len(heard)]


def data_are_under_way(rank: Rank, victims: tuple[int, int]) -> None:
    """Both ways, some of them unmatched, with two that die at once; with the living they arrive."""
    giving, silent = victims
    array = np.full(NBYTES_LARGE, rank.rank, np.uint8)
    buffers = {other: np.zeros(NBYTES_LARGE, np.uint8) for other in rank.living if other != rank.rank}
    for other, buffer in buffers.items():
        rank.transport.receive_data(other, 1, buffer.data)
        rank.transport.receive_data(other, 2, memoryview(bytearray(10)))
        rank.transport.send(other, b"ready")
    if rank.rank == silent:
        rank.world.comm.Ssend(b"sent", 0, 99)
        while True:
            time.sleep(1)
    for other in buffers:
        if other != silent:
            rank.hear(other, b"ready")
    for other in buffers:
        rank.transport.send_data(other, 1, array.data.toreadonly())
        if rank.rank == giving:
            break
    if rank.rank == giving:
        for _ in range(3):
            rank.look()
        rank.world.comm.Ssend(b"sent", 0, 99)
        rank.live_on()
    if rank.rank == 0:
        for victim in victims:
            rank.world.comm.Recv(bytearray(4), victim, 99)
    rank.kill(*victims)
    living = [other for other in buffers if other not in victims]
    for other in living:
        rank.transport.send_data(other, 2, memoryview(bytes(10)))
    rank.until(lambda: all(victim in rank.transport.deaths for victim in victims), f"the deaths of {victims}")
    for victim in victims:
        # Its memory is free: what is written there now stays.
        buffers[victim][:] = 77
    expected = {(is_send, other, number) for other in living for is_send in (True, False) for number in (1, 2)}
    rank.until(lambda: expected <= set(rank.completed), "the transfers of the living")
    for other in living:
        assert (buffers[other] == other).all(), f"what rank {other} sent to rank {rank.rank} is wrong"
    of_the_dead = {(True, victim, 1) for victim in victims} | {(False, victim, n) for victim in victims for n in (1, 2)}
    ended = rank.completed + rank.failed
    assert of_the_dead <= set(ended)
    assert len(ended) == len(set(ended))
    assert {(False, giving, 2), (False, silent, 2), (False, silent, 1)} <= set(rank.failed)
    rank.failed.clear()
    for victim in victims:
        rank.transport.send_data(victim, 3, array.data.toreadonly())
        rank.transport.receive_data(victim, 4, memoryview(bytearray(10)))
        rank.transport.receive_data(victim, 5, memoryview(bytearray(10)))
        rank.transport.abandon_data(victim, 5)
    assert rank.transport.is_busy
    rank.look()
    assert sorted(rank.failed) == sorted((is_send, victim, 4 - is_send) for victim in victims for is_send in (0, 1))
    rank.until(lambda: not rank.transport.is_busy, "quiet")
    assert all((buffers[victim] == 77).all() for victim in victims)


def barrier(rank: Rank, victim: int = -1) -> None:
    """All living meet; a victim dies while others wait for it, and another transfer is open with it."""
    if rank.rank == victim:
        rank.world.comm.Ssend(b"here", 0, 99)
        rank.live_on()
    if victim >= 0:
        rank.transport.receive_data(victim, 9, memoryview(bytearray(10)))
    rank.transport.start_barrier()
    if victim >= 0:
        if rank.rank == 0:
            rank.world.comm.Recv(bytearray(4), victim, 99)
            for _ in range(100):
                rank.look()
                assert not rank.transport.is_barrier_done()
        rank.kill(victim)

    def is_done() -> bool:
        early = rank.transport.poll()
        for source, frame in early:
            rank.frames[source].append(bytes(frame))
        return rank.transport.is_barrier_done()

    wait_until(is_done, lambda: f"the barrier after {rank.transport.deaths}")
    assert not rank.transport.is_busy


def die_on_demand(mark: Path) -> None:
    while not mark.exists():
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)


def run(world: World, folder: Path, n_near: int) -> None:
    assert tells_of_deaths()
    first = world.rank // n_near * n_near
    bell = HostDoorbell.among(range(first, first + n_near), world.rank, world.n_ranks, world.gather)
    rank = Rank(world, bell, folder)
    threading.Thread(target=die_on_demand, args=(folder / str(world.rank),), daemon=True).start()
    rank.exchange(b"all")
    idle_rank_dies(rank, 7)
    rank.exchange(b"without 7")
    large_frames_are_under_way(rank, 6)
    rank.exchange(b"without 6")
    data_are_under_way(rank, (5, 4))
    rank.exchange(b"without 4 and 5")
    barrier(rank)
    rank.exchange(b"after a barrier")
    barrier(rank, 3)
    # Rank 0 knew, which is enough for the barrier.
    rank.note(3)
    rank.exchange(b"without 3")
    assert sorted(rank.transport.deaths) == [3, 4, 5, 6, 7]
    barrier(rank)
    rank.transport.close()
    bell.close()
    print(f"rank {rank.rank} is done", flush=True)


def main(folder: str, n_near: str) -> None:
    world = start_mpi()
    try:
        run(world, Path(folder), int(n_near))
    except Exception:
        # The launcher would not notice the end of a rank that is no death.
        traceback.print_exc()
        world.abort(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
