"""The transport of a job of one rank: MPI is neither needed nor loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from hpcfut.model.errors import HpcfutError


class LoopbackTransport:
    """Implements ``ports.Transport`` for one rank; what the rank sends to itself comes back to it."""

    rank = 0
    n_ranks = 1
    deaths: Mapping[int, str] = MappingProxyType({})

    def __init__(self) -> None:
        self._frames: list[tuple[int, bytes]] = []
        self._sends: dict[int, memoryview] = {}
        self._receives: dict[int, memoryview] = {}
        self._completed: list[tuple[bool, int, int]] = []
        self._is_barrier_started = False

    def send(self, rank: int, frame: bytes, only_tasks: bool = False) -> None:
        """Send a frame to the own rank."""
        self._check(rank)
        self._frames.append((0, frame))

    def poll(self) -> Sequence[tuple[int, bytes]]:
        """Return the frames sent since the last call."""
        frames, self._frames = self._frames, []
        return frames

    def send_data(self, rank: int, transfer_id: int, data: memoryview) -> None:
        """Send bulk data to the own rank."""
        self._check(rank)
        self._sends[transfer_id] = data
        self._move(transfer_id)

    def receive_data(self, rank: int, transfer_id: int, buffer: memoryview) -> None:
        """Get ready for bulk data from the own rank."""
        self._check(rank)
        self._receives[transfer_id] = buffer
        self._move(transfer_id)

    def abandon_data(self, rank: int, transfer_id: int) -> None:
        """Forget a ``receive_data`` for which nothing will be sent."""
        self._check(rank)
        self._receives.pop(transfer_id, None)

    def completed_data(self) -> Sequence[tuple[bool, int, int]]:
        """Transfers that have completed since the last call, as (is_send, rank, transfer_id)."""
        completed, self._completed = self._completed, []
        return completed

    def failed_data(self) -> Sequence[tuple[bool, int, int]]:
        """Transfers that a death has broken off: none."""
        return ()

    @property
    def is_busy(self) -> bool:
        """Whether something is still under way."""
        return bool(self._frames or self._sends or self._receives or self._completed)

    def start_barrier(self) -> None:
        """Say that this rank sends nothing more; data of which only one end has been told are forgotten."""
        self._sends.clear()
        self._receives.clear()
        self._completed.clear()
        self._is_barrier_started = True

    def is_barrier_done(self) -> bool:
        """Whether the only rank has started the barrier."""
        is_done, self._is_barrier_started = self._is_barrier_started, False
        return is_done

    def close(self) -> None:
        """There is nothing to give back."""

    def _check(self, rank: int) -> None:
        if rank != 0:
            raise HpcfutError(f"Rank 0 sent to rank {rank}, but the job has one rank. This is a bug in hpcfut.")

    def _move(self, transfer_id: int) -> None:
        if transfer_id in self._sends and transfer_id in self._receives:
            self._receives.pop(transfer_id).cast("B")[:] = self._sends.pop(transfer_id).cast("B")
            self._completed += [(True, 0, transfer_id), (False, 0, transfer_id)]
