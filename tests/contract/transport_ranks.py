"""Runs the body of the transport's contract on real ranks. Usage: transport_ranks.py FOLDER ours|users [one-sided]."""

from __future__ import annotations

import mmap
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hpcfut.edges.host.doorbell import HostDoorbell
from hpcfut.edges.mpi.fabric import reads_without_target
from hpcfut.edges.mpi.one_sided import OneSided
from hpcfut.edges.mpi.start import World, is_started_by_user, start_mpi
from hpcfut.edges.mpi.transport import MpiTransport
from hpcfut.model.errors import HpcfutError
from hpcfut.model.roster import RankRecord
from hpcfut.ports import HAS_WORK, SLEEPS
from tests.contract.transport_body import (
    BODY,
    NBYTES_LARGE,
    check_barrier,
    check_frames_in_order,
    check_many_transfers,
    peers_of,
)

if TYPE_CHECKING:
    from mpi4py import MPI


def check_bootstrap(world: World) -> None:
    rank, n_ranks = world.rank, world.n_ranks
    assert world.thread_level == "multiple"
    assert world.gather(bytes([rank]) * (3 * rank)) == [bytes([i]) * (3 * i) for i in range(n_ranks)]
    # Shared memory can; what matters is that all ranks think the same.
    answers = world.gather(bytes([reads_without_target(world, 1, 0)]))
    assert len(set(answers)) == 1
    records = [RankRecord(i, 0, f"host{i}", "key" * 50 * i, 1000 + i, {"CPU": 20_000}) for i in range(n_ranks)]
    assert world.gather_records(records[rank]) == records


def check_errors_are_sentences(transport: MpiTransport) -> None:
    nobody = transport.n_ranks + 5
    with pytest.raises(HpcfutError, match=f"sending a frame to rank {nobody}"):
        transport.send(nobody, b"to nobody")


class Bell(HostDoorbell):
    """Notes who is rung instead of ringing."""

    def __init__(self, rank: int, n_ranks: int) -> None:
        super().__init__(rank, n_ranks)
        self.rung: list[int] = []

    def ring(self, rank: int) -> None:
        self.asleep[rank] = 0
        self.rung.append(rank)


def check_rings(transport: MpiTransport, bell: Bell) -> None:
    """Who sleeps is rung for every frame, and who has work for every frame but one with nothing but tasks."""
    after, before = (transport.rank + 1) % transport.n_ranks, (transport.rank - 1) % transport.n_ranks
    sent = [(how, only_tasks) for how in (SLEEPS, HAS_WORK, 0) for only_tasks in (False, True)]
    for how, only_tasks in sent:
        bell.asleep[after] = how
        transport.send(after, bytes([how, only_tasks]), only_tasks)
        is_rung = how == SLEEPS or (how == HAS_WORK and not only_tasks)
        assert bell.rung == [after] * is_rung, (how, only_tasks)
        bell.rung.clear()
    bell.asleep[after] = 0
    found: list[bytes] = []
    while len(found) < len(sent):
        for source, frame in transport.poll():
            assert source == before
            found.append(bytes(frame))
    assert found == [bytes(pair) for pair in sent]


class Exposing(MpiTransport):
    """Sends most data out of a window, as a rank does what it stores, and some from beside it."""

    def __init__(self, comm: MPI.Comm, bell: Bell) -> None:
        super().__init__(comm, bell, is_one_sided=True)
        self._nbytes_filled = 0
        for _ in range(2):  # The second window takes the place of the first.
            self._exposed = memoryview(mmap.mmap(-1, 4 * NBYTES_LARGE))
            self.expose(self._exposed)

    def send_data(self, rank: int, transfer_id: int, data: memoryview) -> None:
        if not self.is_busy:
            self._nbytes_filled = 0
        end = self._nbytes_filled + data.nbytes
        if transfer_id % 4 and end <= len(self._exposed):
            place = self._exposed[self._nbytes_filled : end]
            place[:] = data
            data, self._nbytes_filled = place.toreadonly(), end
        super().send_data(rank, transfer_id, data)

    @property
    def n_read(self) -> int:
        assert isinstance(self._route, OneSided)
        return self._route.n_read


def check_other_threads_read_nothing(transport: Exposing) -> None:
    n_read = transport.n_read
    assert n_read > 10
    thread = threading.Thread(target=check_many_transfers, args=(transport,))
    thread.start()
    thread.join()
    assert transport.n_read == n_read


def run_session(world: World, folder: Path, is_first: bool, is_one_sided: bool) -> None:
    """A session from transport to barrier; a second one on the same ranks must work as well."""
    bell = Bell(world.rank, world.n_ranks)
    transport = Exposing(world.comm, bell) if is_one_sided else MpiTransport(world.comm, bell)
    check_errors_are_sentences(transport)
    check_rings(transport, bell)
    world.comm.Barrier()
    world.comm.Barrier()
    for check in BODY if is_first else [check_frames_in_order]:
        started = time.monotonic()
        check(transport)
        # A rank that is ahead must not send frames of the next check into this one.
        world.comm.Barrier()
        if world.rank == 0:
            print(f"{check.__name__}: {time.monotonic() - started:.2f} s", flush=True)
    if is_first and isinstance(transport, Exposing):
        check_other_threads_read_nothing(transport)
        world.comm.Barrier()
    assert peers_of(transport) == [rank for rank in range(world.n_ranks) if rank != world.rank]
    check_barrier(transport, folder)
    transport.close()
    bell.close()


def main(folder: str, who: str, route: str = "two-sided") -> None:
    if who == "users":
        from mpi4py import MPI  # Initialises MPI, as a user's import does.
    assert is_started_by_user() == (who == "users")
    world = start_mpi()
    assert world.is_ours == (who == "ours")
    check_bootstrap(world)

    from mpi4py import MPI

    # A user's wildcard receive must never meet a frame of ours.
    trap: MPI.Request = MPI.COMM_WORLD.Irecv(bytearray(64), MPI.ANY_SOURCE, MPI.ANY_TAG)
    for session in ("first", "second"):
        notes = Path(folder) / session
        notes.mkdir(exist_ok=True)
        run_session(world, notes, session == "first", route == "one-sided")
    assert not trap.Test()
    trap.Cancel()
    while not trap.Test():
        pass
    rank = world.rank
    world.finalize()
    assert bool(MPI.Is_finalized()) == (who == "ours")
    print(f"rank {rank} is done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
