"""How many looks a frame from another host takes, when it has had all the time that it needs: of each, the median."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

from mpi4py import MPI

from hpcfut.edges.mpi.transport import MpiTransport

N_ROUNDS = 21
#: Far longer than a frame is on its way: a look before its arrival would say nothing.
ON_ITS_WAY_S = 0.02


def main() -> None:
    """Rank 1 sends and says so by a file, which both hosts see; rank 0 looks at its leisure."""
    transport, folder = MpiTransport(MPI.COMM_WORLD), Path(sys.argv[1])
    n_looks: list[int] = []
    for number in range(N_ROUNDS):
        note = folder / f"sent-{number}"
        if transport.rank == 1:
            transport.send(0, b"frame %d" % number)
            note.touch()
            while not (folder / f"seen-{number}").exists():
                transport.poll()
            continue
        while not note.exists():
            time.sleep(0.001)
        n_looks.append(0)
        frames: list[bytes] = []
        while not frames:
            time.sleep(ON_ITS_WAY_S)
            n_looks[-1] += 1
            frames = [bytes(frame) for _, frame in transport.poll()]
        assert frames == [b"frame %d" % number]
        (folder / f"seen-{number}").touch()
    if transport.rank == 0:
        print(f"looks {median(n_looks)}")


if __name__ == "__main__":
    main()
