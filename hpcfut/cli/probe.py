"""What every rank runs for `hpcfut doctor`: who is where, and how fast the first two ranks talk to each other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from hpcfut.edges.host.apart import settle_mpi
from hpcfut.edges.host.arena import HostArena
from hpcfut.edges.host.job_files import JobFiles
from hpcfut.edges.host.launch_environment import mismatch, recognise_launch, recognise_library, singletons
from hpcfut.edges.host.machine import (
    Place,
    cores_of,
    own_place,
    ranks_on_host_of,
    ranks_on_machine_of,
    shared_memory_key,
)
from hpcfut.edges.host.memory import memory_of_job
from hpcfut.edges.host.parent import die_with_parent
from hpcfut.edges.mpi.common_memory import MpiMemory
from hpcfut.edges.mpi.start import World, library_version, start_mpi
from hpcfut.edges.mpi.transport import MpiTransport

NBYTES_FRAME: Final = 64
NBYTES_DATA: Final = 64 << 20
#: Short rounds, and the best of many: on a busy machine some of them are not disturbed.
_N_TRIPS: Final = 100
_N_ROUNDS: Final = 25
#: A broken network shows itself as silence.
_DEADLINE_S: Final = 30.0
RESULT: Final = "probe.json"

#: How the ranks of one machine read each other's objects, the best first: they map each other's memory; they map what
#: MPI gives them together; they cannot, for want of room, or because they have no folder of shared memory in common.
Way = Literal["mapped", "given", "full", "apart"]
_WAYS: Final[tuple[Way, ...]] = ("mapped", "given", "full", "apart")


class Probe(msgspec.Struct, frozen=True):
    """What the ranks found out together."""

    library: str
    thread_level: str
    #: One entry a rank.
    hosts: list[str]
    cores: list[int]
    #: Whether the first two ranks share a host.
    is_same_host: bool = True
    #: Round trip of a frame of ``NBYTES_FRAME`` bytes; 0 with one rank.
    latency_us: float = 0.0
    #: Of bulk data from rank 0 to rank 1; 0 with one rank.
    bandwidth_gb_per_s: float = 0.0
    #: The worst of all ranks.
    way: Way = "mapped"
    #: Why it could not be measured, and what to do.
    trouble: str = ""


def probe() -> tuple[int, Probe]:
    """Start MPI, measure, and end MPI; returns the own rank and what was found out. Collective."""
    launch = recognise_launch(os.environ)
    version = library_version()
    library = recognise_library(version)
    if trouble := mismatch(launch, library):
        return launch.rank, Probe(version, "", [], [], trouble=trouble)
    settle_mpi(launch, os.environ)
    world = start_mpi()
    if trouble := singletons(launch, library, world.n_ranks):
        return launch.rank, Probe(version, world.thread_level, [], [], trouble=trouble)
    files = JobFiles.of_environment(os.environ)
    if files is not None:
        files.note_segments(world.rank)
    places = world.gather_records(own_place())
    result = Probe(
        version,
        world.thread_level,
        [place.host for place in places],
        [cores_of(places, rank) for rank in range(world.n_ranks)],
        places[0].machine_key == places[min(1, world.n_ranks - 1)].machine_key,
        *_measure(world),
        _find_way(world, places),
    )
    rank = world.rank
    world.finalize()
    return rank, result


def _find_way(world: World, places: Sequence[Place]) -> Way:
    """What a job would find for the objects of a store of usual size."""
    rank, on_machine = world.rank, ranks_on_machine_of(places, world.rank)
    nbytes = memory_of_job(os.environ).nbytes_free // len(on_machine) * 3 // 10
    arena = HostArena.among(ranks_on_host_of(places, rank), rank, nbytes, world.gather)
    common = MpiMemory.among(world, arena.neighbours, shared_memory_key().encode())
    way: Way = "mapped"
    if common is not None:
        way = "full" if arena.in_common(common, nbytes) is arena else "given"
        common.close()
    if len(common.ranks if common is not None else arena.neighbours) < len(on_machine):
        way = "apart"
    return _WAYS[max(part[0] for part in world.gather(bytes([_WAYS.index(way)])))]


def _measure(world: World) -> tuple[float, float]:
    """Latency in µs and bandwidth in GB/s between ranks 0 and 1; the others wait at the barrier."""
    if world.n_ranks == 1:
        return 0.0, 0.0
    transport = MpiTransport(world.comm)
    found = (0.0, 0.0)
    if transport.rank < 2:
        found = min(_round_trip_us(transport) for _ in range(_N_ROUNDS)), max(_speed(transport, n) for n in range(3))
    _wait_until(transport, lambda: not transport.is_busy)
    transport.start_barrier()
    _wait_until(transport, transport.is_barrier_done)
    transport.close()
    return found


def _round_trip_us(transport: MpiTransport) -> float:
    frame, other = bytes(NBYTES_FRAME), 1 - transport.rank
    started = time.perf_counter()
    for _ in range(_N_TRIPS):
        if transport.rank == 0:
            transport.send(other, frame)
        _receive(transport)
        if transport.rank == 1:
            transport.send(other, frame)
    return (time.perf_counter() - started) / _N_TRIPS * 1e6


def _speed(transport: MpiTransport, number: int) -> float:
    buffer = memoryview(bytearray(NBYTES_DATA))
    if transport.rank == 1:
        transport.receive_data(0, number, buffer)
        transport.send(0, b"ready")
    else:
        _receive(transport)
        transport.send_data(1, number, buffer)
    started = time.perf_counter()
    _wait_until(transport, lambda: bool(transport.completed_data()))
    return NBYTES_DATA / (time.perf_counter() - started) / 1e9


def _receive(transport: MpiTransport) -> None:
    deadline = 0.0
    n_polls = 0
    while not transport.poll():
        n_polls += 1
        if n_polls % 1000 == 0:
            # Where ranks share a core, the other one needs it to answer.
            os.sched_yield()
            deadline = deadline or time.monotonic() + _DEADLINE_S
            _check(deadline)


def _wait_until(transport: MpiTransport, is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not is_done():
        transport.poll()
        os.sched_yield()
        _check(deadline)


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(
            f"Rank 0 and rank 1 have started, but nothing that one sends reaches the other within {_DEADLINE_S:.0f} s. "
            f"See that no firewall stands between their hosts, and that MPI takes a network that joins them."
        )


def main() -> None:
    """Probe as a rank of a job that `hpcfut doctor` started, and leave the result in the job's scratch."""
    die_with_parent()
    files = JobFiles.of_environment(os.environ)
    launch = recognise_launch(os.environ)
    if files is not None:
        files.note_start(launch.rank)
    try:
        rank, result = probe()
    except TimeoutError as error:
        if files is not None and launch.rank == 0:
            leave_result(files, Probe(library_version(), "", [], [], trouble=str(error)))
        # MPI would wait for what is under way.
        os._exit(1)
    if files is None:
        return
    if rank == 0:
        leave_result(files, result)
        files.write_status(0)
    files.note_end(rank)


def leave_result(files: JobFiles, result: Probe) -> None:
    """Write down what `hpcfut doctor` is to read."""
    (files.scratch / RESULT).write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
