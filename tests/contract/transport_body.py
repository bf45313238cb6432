"""What every transport must do, as one body that all ranks run at the same time.

A rank exchanges with every peer; on a transport of one rank the peer is the rank itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpcfut.ports import Transport

DEADLINE_S = 40.0
#: Around the sizes at which an MPI, or our transport, changes its ways.
FRAME_SIZES = (10, 300_000, 10, 10, 4000, 4001, 10, 65_536, 16, 300_000, 300_000, 10)
N_FRAMES = 120
NBYTES_LARGE = 50_000_000


def peers_of(transport: Transport) -> list[int]:
    return [rank for rank in range(transport.n_ranks) if rank != transport.rank] or [transport.rank]


def wait_until(is_done: Callable[[], bool], what: Callable[[], object]) -> None:
    """Calls `is_done` until it is true, and fails with what is known when that takes too long."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_done():
        assert time.monotonic() < deadline, f"Still waiting after {DEADLINE_S} s: {what()}"


def frame_of(source: int, target: int, index: int) -> bytes:
    nbytes = FRAME_SIZES[index % len(FRAME_SIZES)]
    head = bytes([source, target]) + index.to_bytes(4, "big")
    return head + bytes([index % 251]) * (nbytes - len(head))


def check_frames_in_order(transport: Transport) -> None:
    """Small frames do not overtake large ones, in both directions at once, and none is lost or changed."""
    peers = peers_of(transport)
    next_index = dict.fromkeys(peers, 0)

    def take() -> bool:
        for source, frame in transport.poll():
            expected = frame_of(source, transport.rank, next_index[source])
            assert frame == expected, f"from {source}: got {bytes(frame[:8])!r}…, expected {expected[:8]!r}…"
            next_index[source] += 1
        return min(next_index.values()) == N_FRAMES and not transport.is_busy

    for index in range(N_FRAMES):
        for peer in peers:
            transport.send(peer, frame_of(transport.rank, peer, index))
        if index % 5 == 0:
            take()
    wait_until(take, lambda: (next_index, transport.is_busy))


def check_many_small_frames(transport: Transport) -> None:
    """More frames than the transport has room for at once, sent before anybody looks."""
    peers = peers_of(transport)
    n_frames = 3000
    received: dict[int, list[int]] = {peer: [] for peer in peers}
    for index in range(n_frames):
        for peer in peers:
            transport.send(peer, index.to_bytes(4, "big"))

    def take() -> bool:
        for source, frame in transport.poll():
            received[source].append(int.from_bytes(frame, "big"))
        return all(len(indices) == n_frames for indices in received.values()) and not transport.is_busy

    wait_until(take, lambda: {peer: len(indices) for peer, indices in received.items()})
    assert all(indices == list(range(n_frames)) for indices in received.values())


def bulk_of(source: int, target: int, transfer_id: int, nbytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Other bytes for each transfer, and for each chunk of it: the period is a prime."""
    period = np.random.default_rng([source, target, transfer_id]).integers(0, 256, min(nbytes, 1_000_003), np.uint8)
    return np.resize(period, nbytes)


def exchange_data(transport: Transport, sizes: dict[int, int]) -> None:
    """Sends and receives one transfer of each id and size with every peer at once, and compares every byte."""
    peers = peers_of(transport)
    buffers = {(peer, number): bytearray(nbytes) for peer in peers for number, nbytes in sizes.items()}
    expected = {(False, *key) for key in buffers} | {(True, *key) for key in buffers}
    completed: list[tuple[bool, int, int]] = []
    ready: set[int] = set()

    def progress() -> None:
        ready.update(source for source, _ in transport.poll())
        completed.extend(transport.completed_data())

    for (peer, number), buffer in buffers.items():
        transport.receive_data(peer, number, memoryview(buffer))
    # As in a job, data is sent when its reader has asked for it, and not before.
    for peer in peers:
        transport.send(peer, b"ready")

    def are_all_ready() -> bool:
        progress()
        return len(ready) == len(peers)

    wait_until(are_all_ready, lambda: ready)
    kept = {key: bulk_of(transport.rank, key[0], key[1], sizes[key[1]]) for key in buffers}
    for (peer, number), array in kept.items():
        transport.send_data(peer, number, array.data.toreadonly())

    def are_all_completed() -> bool:
        progress()
        return len(completed) == len(expected) and not transport.is_busy

    wait_until(are_all_completed, lambda: expected - set(completed))
    assert sorted(completed) == sorted(expected)
    for (peer, number), buffer in buffers.items():
        wanted = bulk_of(peer, transport.rank, number, sizes[number])
        assert np.array_equal(np.frombuffer(buffer, np.uint8), wanted), f"transfer {number} of rank {peer} is wrong"


def check_large_data_both_ways(transport: Transport) -> None:
    exchange_data(transport, {1: NBYTES_LARGE})


def check_many_transfers(transport: Transport) -> None:
    """Sizes around the chunk size, nothing at all, and more transfers than are looked at in one call."""
    sizes = [0, 1, 100_000, (16 << 20) - 1, 16 << 20, (16 << 20) + 1, *([3000] * 40)]
    exchange_data(transport, dict(enumerate(sizes, start=1)))


def check_transfers_that_share_a_tag(transport: Transport) -> None:
    """Ids that are equal modulo every likely number of tags stay apart."""
    n_tags = {32_767, 2**27 - 1, 2**29 - 1, 2**31 - 1}
    exchange_data(transport, {5: 70_000} | {5 + n: 60_000 + n % 1000 for n in n_tags})


def check_data_may_be_abandoned(transport: Transport) -> None:
    """A refused read leaves nothing behind, and its id's tag can be used again."""
    buffer = bytearray(1000)
    peer = peers_of(transport)[0]
    transport.receive_data(peer, 77, memoryview(buffer))
    transport.abandon_data(peer, 77)

    def is_idle() -> bool:
        assert not transport.completed_data()
        return not transport.is_busy

    wait_until(is_idle, lambda: "an abandoned transfer")
    exchange_data(transport, {77: 1000})


def check_an_end_amid_transfers(transport: Transport) -> None:
    """Some data are on their way, others were asked for in vain: the barrier leaves nothing of either."""
    peers = peers_of(transport)
    sizes = {1: 2 * NBYTES_LARGE, 2: 1_000_000, 3: 2 * NBYTES_LARGE}
    buffers = {(peer, number): bytearray(nbytes) for peer in peers for number, nbytes in sizes.items()}
    ready: set[int] = set()
    for (peer, number), buffer in buffers.items():
        transport.receive_data(peer, number, memoryview(buffer))
    for peer in peers:
        transport.send(peer, b"ready")

    def are_all_ready() -> bool:
        ready.update(source for source, _ in transport.poll())
        return len(ready) == len(peers)

    wait_until(are_all_ready, lambda: ready)
    source = bulk_of(transport.rank, 0, 0, sizes[1])
    for peer in peers:
        transport.send_data(peer, 1, source.data.toreadonly())
        if peer < transport.rank:
            transport.send_data(peer, 3, source.data.toreadonly())
    for _ in range(transport.rank):
        transport.poll()
        transport.completed_data()
    transport.start_barrier()

    def is_over() -> bool:
        transport.poll()
        return transport.is_barrier_done()

    wait_until(is_over, lambda: "the barrier")
    assert not transport.is_busy
    then = {key: bytes(buffer) for key, buffer in buffers.items()}
    assert not any(any(then[peer, 2]) for peer in peers)
    exchange_data(transport, {1: 100_000, 2: NBYTES_LARGE, 3: 70_000})
    assert all(buffers[key] == then[key] for key in buffers)


def check_barrier(transport: Transport, folder: Path) -> None:
    """The barrier is done when all ranks have started it, and not before."""
    assert not transport.is_barrier_done()
    (folder / f"started-{transport.rank}").touch()
    transport.start_barrier()

    def is_done() -> bool:
        transport.poll()
        return transport.is_barrier_done()

    wait_until(is_done, lambda: list(folder.iterdir()))
    for rank in range(transport.n_ranks):
        assert (folder / f"started-{rank}").exists(), f"The barrier was done before rank {rank} had started it."


BODY: list[Callable[[Transport], None]] = [
    check_frames_in_order,
    check_many_small_frames,
    check_large_data_both_ways,
    check_many_transfers,
    check_transfers_that_share_a_tag,
    check_data_may_be_abandoned,
    check_an_end_amid_transfers,
]
