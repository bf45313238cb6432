"""Frames and bulk data between two ranks, beside what plain mpi4py does.

mpiexec -n 2 python benchmarks/transport.py
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from common import append_json_line, describe_spread, parse_options, print_table

from hpcfut.edges.mpi.start import World, start_mpi
from hpcfut.edges.mpi.transport import MpiTransport
from hpcfut.ports import Transport

SIZES = (64, 1000, 4000, 16_000, 100_000)
NBYTES_DATA = 256 << 20
#: Frames sent between two polls when many are sent one way.
N_BURST = 16


def raw_ping_pong(world: World, n_trips: int, nbytes: int) -> float:
    """A round trip by Isend, Iprobe and Recv of bytes, in µs."""
    comm, other = world.comm, 1 - world.rank
    frame, buffer = bytes(nbytes), bytearray(nbytes)

    def receive() -> None:
        while not comm.Iprobe(other):
            pass
        comm.Recv(buffer, other)

    started = time.perf_counter()
    for _ in range(n_trips):
        if world.rank:
            receive()
        request = comm.Isend(frame, other)
        if not world.rank:
            receive()
        request.Wait()
    return (time.perf_counter() - started) / n_trips * 1e6


def receive(transport: Transport) -> int:
    """Waits for the next frames and returns how many there are."""
    while not (arrived := transport.poll()):
        pass
    return len(arrived)


def ping_pong(transport: Transport, n_trips: int, nbytes: int) -> float:
    """A round trip by send and poll, in µs."""
    frame, other = bytes(nbytes), 1 - transport.rank
    started = time.perf_counter()
    for _ in range(n_trips):
        if transport.rank:
            receive(transport)
        transport.send(other, frame)
        if not transport.rank:
            receive(transport)
    return (time.perf_counter() - started) / n_trips * 1e6


def one_way(transport: Transport, n_frames: int, nbytes: int) -> float:
    """A frame among many from rank 0 to rank 1, in µs."""
    frame, other = bytes(nbytes), 1 - transport.rank
    started = time.perf_counter()
    if transport.rank:
        n_received = 0
        while n_received < n_frames:
            n_received += receive(transport)
        transport.send(other, b"all")
    else:
        for number in range(n_frames):
            transport.send(other, frame)
            if number % N_BURST == 0:
                transport.poll()
        receive(transport)
    return (time.perf_counter() - started) / n_frames * 1e6


def move_data(transport: Transport, nbytes: int) -> tuple[float, str]:
    """Bulk data from rank 0 to rank 1, in GB/s, and on rank 1 a hash of what came."""
    buffer = memoryview(bytearray(nbytes) if transport.rank else bytes(range(256)) * (nbytes // 256))
    if transport.rank:
        transport.receive_data(0, 1, buffer)
        transport.send(0, b"ready")
    else:
        receive(transport)
    started = time.perf_counter()
    if not transport.rank:
        transport.send_data(1, 1, buffer)
    while not transport.completed_data():
        transport.poll()
    duration_s = time.perf_counter() - started
    return nbytes / duration_s / 1e9, hashlib.blake2b(buffer, digest_size=8).hexdigest()


def measure(world: World, transport: MpiTransport, n_rounds: int, n_frames: int, nbytes_data: int) -> None:
    """Measures all, in turn, and prints it on rank 0."""
    found: dict[str, list[float]] = {}

    def note(name: str, call: Callable[[], float]) -> None:
        world.comm.Barrier()
        found.setdefault(name, []).append(call())

    for _ in range(n_rounds):
        for nbytes in SIZES:
            note(f"raw round trip, {nbytes} B, µs", lambda n=nbytes: raw_ping_pong(world, n_frames, n))  # type: ignore[misc]
            note(f"round trip, {nbytes} B, µs", lambda n=nbytes: ping_pong(transport, n_frames, n))  # type: ignore[misc]
            note(f"one way, {nbytes} B, µs", lambda n=nbytes: one_way(transport, n_frames, n))  # type: ignore[misc]
        digests = []

        def move() -> float:
            speed, digest = move_data(transport, nbytes_data)
            digests.append(digest)  # noqa: B023
            return speed

        note(f"bulk, {nbytes_data >> 20} MiB, GB/s", move)
        assert len(set(world.gather(digests[0].encode()))) == 1, "The data that came is not the data that was sent."
    if world.rank == 0:
        print_table([("", "median (smallest to largest)")] + [(n, describe_spread(v, ".2f")) for n, v in found.items()])
        print(f"result hash {digests[0]}")
        append_json_line(OPTIONS.output, benchmark="transport", figures=found)


def main() -> None:
    """Measures between two ranks."""
    world = start_mpi()
    if world.n_ranks != 2:
        raise SystemExit(f"This benchmark needs 2 ranks, not {world.n_ranks}: mpiexec -n 2 python {__file__}")
    transport = MpiTransport(world.comm)
    n_frames, nbytes_data = (50, 1 << 20) if OPTIONS.small else (3000, NBYTES_DATA)
    measure(world, transport, OPTIONS.rounds, n_frames, nbytes_data)
    while transport.is_busy:
        transport.poll()
    transport.start_barrier()
    while not transport.is_barrier_done():
        transport.poll()
    transport.close()
    world.finalize()


if __name__ == "__main__":
    OPTIONS = parse_options("Frames and bulk data between two ranks.", n_rounds=5)
    main()
