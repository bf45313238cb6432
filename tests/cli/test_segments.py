"""The names of shared segments, which a death would leave behind."""

from __future__ import annotations

import os
from pathlib import Path

from hpcfut.edges.host.segments import StartSegments
from tests.mpi.jobs import Mpi, run_command

#: Stands in for a rank: maps the file that it is told, and looks.
RANK = """
import mmap, os, sys
from hpcfut.edges.host.segments import StartSegments

descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, 4096)
mapping = mmap.mmap(descriptor, 4096)
mine = StartSegments()
os.write(1, mine.digest.hex().encode() + b" ")
mine.unname([mine.digest, b"another"] if sys.argv[2] == "differ" else [mine.digest, mine.digest])
os.write(1, str(os.path.exists(sys.argv[1])).encode())
if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
"""


def look(mpi: Mpi, name: str, what: str) -> tuple[str, bool]:
    path = Path("/dev/shm", name.format(os.getpid()))
    job = run_command([mpi.program("python"), "-c", RANK, str(path), what]).check()
    digest, exists = job.stdout.split()
    return digest, exists == "True"


def test_names_go_when_all_have_mapped_the_same(mpi: Mpi) -> None:
    nothing = StartSegments().digest.hex()
    for name in ("mpich_shm_{}_0", "mpich_vci_{}_0", "sm_segment.host.0.{}.0"):
        digest, exists = look(mpi, name, "agree")
        assert digest != nothing
        assert not exists
        # Some rank may still have to open it.
        assert look(mpi, name, "differ") == (digest, True)


def test_segments_of_others_are_left_alone(mpi: Mpi) -> None:
    nothing = StartSegments().digest.hex()
    for name in ("somebody_{}", "psm_{}"):
        assert look(mpi, name, "agree") == (nothing, True)
