"""A rank as `hpcfut run` knows it, without a runtime: it leaves its notes, and then does what it is told.

Usage: stub_ranks.py WHAT. A rank that stays says so by a file in HPCFUT_STUB_FOLDER.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hpcfut.edges.host.job_files import JobFiles
from hpcfut.edges.host.launch_environment import recognise_launch
from hpcfut.edges.host.parent import die_with_parent
from hpcfut.edges.mpi.start import start_mpi


def stay(rank: int) -> None:
    if folder := os.environ.get("HPCFUT_STUB_FOLDER"):
        part = Path(folder, f"part-{rank}")
        part.write_text(str(os.getpid()))
        part.rename(Path(folder, f"ready-{rank}"))
    time.sleep(600)


def main(what: str) -> None:
    die_with_parent()
    files = JobFiles.of_environment(os.environ)
    assert files is not None
    files.note_start(recognise_launch(os.environ).rank)
    world = start_mpi()
    files.note_segments(world.rank)
    if what.startswith("rank-1-") and world.rank == 1:
        # All have started when the first one dies.
        world.comm.Barrier()
        if what == "rank-1-is-killed":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(7)
    if what.startswith("rank-1-"):
        world.comm.Barrier()
        stay(world.rank)
    if what == "rank-0-leaves-alone":
        world.comm.Barrier()
        if world.rank:
            stay(world.rank)
        files.note_survival()
        files.write_status(3)
        files.note_end(0)
        os._exit(0)
    if what == "stays":
        try:
            stay(world.rank)
        except KeyboardInterrupt:
            print(f"rank {world.rank} was interrupted", flush=True)
            raise
    if what == "ignores-signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        stay(world.rank)
    if what == "leaves-a-child" and world.rank == 1:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    if what == "prints-environment" and world.rank == 0:
        for name, value in sorted(os.environ.items()):
            print(f"{name}={value}")
        print(f"affinity of {world.n_ranks} ranks: {len(os.sched_getaffinity(0))}", flush=True)
    if world.rank == 0 and what != "says-no-status":
        files.write_status(int(what.removeprefix("exits-")) if what.startswith("exits-") else 0)
    world.comm.Barrier()
    files.note_end(world.rank)
    world.finalize()


if __name__ == "__main__":
    main(sys.argv[1])
