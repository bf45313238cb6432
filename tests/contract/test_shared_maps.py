"""Memory that ranks have in common: each has a part of it to write, all of it to read, and what gave it may go."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hpcfut.edges.host import apart, shared_maps
from hpcfut.edges.host.alias import alias_of
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.launch_environment import Launch
from hpcfut.model.place import Place
from tests.contract.test_pages import address_of
from tests.mpi.jobs import CHECKOUT
from tests.privileged import demand_root

NBYTES = 1 << 20
N_RANKS = 2


class Given:
    """Stands for MPI: one file of memory for ranks that are threads; it begins in the middle of a page."""

    def __init__(self, spoils: bool = False) -> None:
        self._barrier = threading.Barrier(N_RANKS, timeout=20)
        self._said: list[bytes] = [b""] * N_RANKS
        self._spoils = spoils
        self.mapped: list[mmap.mmap | None] = [None] * N_RANKS
        self._descriptor = os.memfd_create("test-given")
        os.ftruncate(self._descriptor, 4 * NBYTES)

    def of_rank(self, rank: int) -> Any:
        return _OfRank(self, rank)

    def gather(self, rank: int, data: bytes) -> list[bytes]:
        self._barrier.wait()
        self._said[rank] = data
        self._barrier.wait()
        return list(self._said)

    def allocate(self, rank: int, nbytes: int) -> list[int]:
        mapped = self.mapped[rank] = mmap.mmap(self._descriptor, 4 * NBYTES)
        nbytes_all = [int(part) for part in self.gather(rank, b"%d" % nbytes)]
        starts = [address_of(mapped) + 100 + sum(nbytes_all[:number]) for number in range(N_RANKS)]
        return starts[::-1] if self._spoils and rank == 1 else starts

    def close(self) -> None:
        os.close(self._descriptor)


class _OfRank:
    def __init__(self, given: Given, rank: int) -> None:
        self.ranks = range(N_RANKS)
        self._given, self._rank = given, rank

    def gather(self, data: bytes) -> list[bytes]:
        return self._given.gather(self._rank, data)

    def allocate(self, nbytes: int) -> list[int]:
        return self._given.allocate(self._rank, nbytes)

    def free(self) -> None:
        self._given.mapped[self._rank] = None  # Nobody else has it: it is unmapped.


def on_all_ranks(do: Callable[[int], Any]) -> list[Any]:
    found: list[Any] = [None] * N_RANKS

    def run(rank: int) -> None:
        found[rank] = do(rank)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(N_RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture
def own() -> Iterator[list[HostArena]]:
    """The memory of each rank, which the other does not reach."""
    arenas = [HostArena(rank, 4 * NBYTES) for rank in range(N_RANKS)]
    yield arenas
    for arena in arenas:
        arena.close()


def give(own: list[HostArena], given: Given) -> list[HostArena]:
    found: list[HostArena] = on_all_ranks(lambda rank: own[rank].in_common(given.of_rank(rank), NBYTES + rank))
    given.close()
    return found


def test_each_writes_its_part_and_reads_all(own: list[HostArena]) -> None:
    arenas = give(own, Given())
    assert [arena.neighbours for arena in arenas] == [[0, 1]] * 2
    assert [arena.nbytes for arena in arenas] == [NBYTES, NBYTES + 4096]
    for rank, arena in enumerate(arenas):
        arena.buffer(128, 1000)[:] = bytes([rank + 1]) * 1000
        arena.seal(128, rank + 7, 1000)
    for reader in arenas:
        for rank in range(N_RANKS):
            view = reader.view(Place(rank + 7, rank, 128, 1000))
            assert bytes(view) == bytes([rank + 1]) * 1000
            assert view.readonly
            array = np.frombuffer(view, np.uint8)
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)
            assert reader.n_pins == 1
            del view, array
            assert (list(reader.released), reader.n_pins) == ([rank + 7], 0)
            reader.released.clear()
    # Its last byte is there, too.
    arenas[1].buffer(arenas[1].nbytes - 164, 100)[:] = b"e" * 100
    arenas[1].seal(arenas[1].nbytes - 164, 9, 100)
    assert bytes(arenas[0].view(Place(9, 1, arenas[1].nbytes - 164, 100))) == b"e" * 100


def test_what_is_wrong_is_not_taken_and_all_go_on_with_their_own(own: list[HostArena]) -> None:
    assert give(own, Given(spoils=True)) == own


def test_where_there_is_no_room_nothing_is_made(own: list[HostArena], monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given()
    monkeypatch.setattr(shared_maps, "nbytes_of_shared_memory", lambda: 2 * NBYTES + 100_000)
    assert give(own, given) == own
    assert given.mapped == [None] * N_RANKS


def test_each_session_has_memory_of_its_own_and_views_stay(own: list[HostArena]) -> None:
    first = give(own, Given())
    first[1].buffer(0, 100)[:] = b"1" * 100
    first[1].seal(0, 5, 100)
    old = first[0].view(Place(5, 1, 0, 100))
    own[:] = [arena.renewed() for arena in own]
    second = give(own, Given())
    second[1].buffer(0, 100)[:] = b"2" * 100
    second[1].seal(0, 5, 100)
    assert bytes(second[0].view(Place(5, 1, 0, 100))) == b"2" * 100
    del first
    assert bytes(old) == b"1" * 100


def test_all_memory_goes_with_the_last_view(own: list[HostArena]) -> None:
    arenas = give(own, Given())
    arenas[1].buffer(0, 100)[:] = b"1" * 100
    arenas[1].seal(0, 5, 100)
    view = arenas[0].view(Place(5, 1, 0, 100))

    def n_mapped() -> int:
        with open("/proc/self/maps") as maps:
            return maps.read().count("test-given")

    assert n_mapped() == N_RANKS * (N_RANKS + 1)
    del arenas
    assert n_mapped() == 1
    assert bytes(view) == b"1" * 100
    del view
    assert n_mapped() == 0


def test_an_alias_of_nothing_is_refused() -> None:
    with pytest.raises(OSError):  # noqa: PT011  # EFAULT or EINVAL, as the kernel likes.
        alias_of(4096, 4096, is_writable=True)
    private = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with pytest.raises(OSError, match="Invalid argument"):
        alias_of(address_of(private), 4096, is_writable=True)


SETTLE = """
import os
from hpcfut.edges.host.apart import settle_mpi
from hpcfut.edges.host.launch_environment import recognise_launch
environ = {"OMPI_MCA_btl": "self"}
settle_mpi(recognise_launch(os.environ), environ)
print(" ".join(sorted(environ)))
"""
CLOSED = "MPIR_CVAR_CH4_CMA_ENABLE OMPI_MCA_btl OMPI_MCA_smsc UCX_POSIX_USE_PROC_LINK"


@pytest.mark.parametrize(
    ("container", "starter", "expected"),
    [
        ((), "mpirun", "OMPI_MCA_btl"),
        (("unshare", "--user"), "mpirun", CLOSED),
        (("unshare", "--pid", "--fork", "--mount-proc"), "mpirun", f"{CLOSED} UCX_TLS"),
        ((), "sh", f"{CLOSED} UCX_TLS"),
    ],
    ids=["seen", "users", "container", "none"],
)
def test_mpi_is_told_what_it_cannot_do(container: tuple[str, ...], starter: str, expected: str) -> None:
    demand_root("unshare")
    rename = f"printf {starter} >/proc/$$/comm; " + '"$@"; exit $?'
    done = subprocess.run(
        ["sh", "-c", rename, "sh", *container, sys.executable, "-c", SETTLE],
        env={**os.environ, "OMPI_COMM_WORLD_SIZE": "2", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, expected), done


def test_a_launcher_that_the_system_hides_is_no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """On many clusters nobody sees the processes of others (``hidepid``), and that of Slurm belongs to root."""
    environ: dict[str, str] = {}
    # What is above this process is told by its number, and no more.
    monkeypatch.setattr(apart, "ancestors_of", lambda pid: [os.getpid(), 1 << 30])
    apart.settle_mpi(Launch("slurm"), environ)
    assert environ == {}
    monkeypatch.setattr(apart, "ancestors_of", lambda pid: [os.getpid()])
    apart.settle_mpi(Launch("slurm"), environ)
    assert environ["OMPI_MCA_btl"] == "^sm"
