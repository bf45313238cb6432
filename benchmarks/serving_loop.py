"""The bare loop in a second form: what an executor needs that never blocks in MPI and serves any peer.

Each side looks for messages of anybody, twice a poll (the first `Iprobe` looks at its queue before it makes progress),
receives the bytes, and sends without waiting, so that it must keep the request and the bytes until they have left. A
task is (number, function's number, args). There is still no ownership, no scheduling and no batch.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mpi4py import MPI

EXECUTOR = 1
N_IN_FLIGHT = 64
NBYTES_ROOM = 1 << 16

Results = list[tuple[int, int]]


class Mail:
    """Messages from and to anybody, without ever waiting in MPI."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm
        self._room = bytearray(NBYTES_ROOM)
        self._status = MPI.Status()
        self._leaving: deque[tuple[MPI.Request, bytes]] = deque()

    def send(self, peer: int, message: object) -> None:
        """Begins to send; forgets what has left."""
        leaving = self._leaving
        while leaving and leaving[0][0].Test():
            leaving.popleft()
        frame = pickle.dumps(message, 5)
        leaving.append((self._comm.Isend(frame, peer), frame))

    def receive(self) -> tuple[int, Any]:
        """Polls until there is a message; gives its sender too."""
        comm, status = self._comm, self._status
        while True:
            if comm.Iprobe(MPI.ANY_SOURCE, 0, status) or comm.Iprobe(MPI.ANY_SOURCE, 0, status):
                nbytes = status.Get_count(MPI.BYTE)
                if nbytes > len(self._room):
                    self._room = bytearray(nbytes)
                comm.Recv(self._room, status.source)
                return status.source, pickle.loads(self._room)

    def close(self) -> None:
        """Everything has left."""
        MPI.Request.Waitall([request for request, _ in self._leaving])


def serve_any(comm: MPI.Intracomm, functions: Sequence[Callable[..., Any]]) -> None:
    """Executes what comes from anybody, until None comes."""
    mail, rank = Mail(comm), comm.rank
    while True:
        peer, message = mail.receive()
        if message is None:
            return mail.close()
        number, function, args = message
        mail.send(peer, (number, rank, functions[function](*args)))


def run_sync(comm: MPI.Intracomm, n_tasks: int) -> tuple[float, Results]:
    """Tasks one at a time: seconds for all of them, and their results."""
    results: Results = []
    mail = Mail(comm)
    started = time.perf_counter()
    for number in range(n_tasks):
        mail.send(EXECUTOR, (number, 0, (number,)))
        _, (_, rank, value) = mail.receive()
        results.append((rank, value))
    duration_s = time.perf_counter() - started
    mail.send(EXECUTOR, None)
    mail.close()
    return duration_s, results


def run_async(comm: MPI.Intracomm, n_tasks: int) -> tuple[float, Results]:
    """Tasks with many in flight: seconds for all of them, and their results."""
    results: Results = [(-1, -1)] * n_tasks
    mail = Mail(comm)
    started = time.perf_counter()
    n_sent = 0
    for n_received in range(n_tasks):
        while n_sent < n_tasks and n_sent - n_received < N_IN_FLIGHT:
            mail.send(EXECUTOR, (n_sent, 0, (n_sent,)))
            n_sent += 1
        _, (number, rank, value) = mail.receive()
        results[number] = (rank, value)
    duration_s = time.perf_counter() - started
    mail.send(EXECUTOR, None)
    mail.close()
    return duration_s, results
