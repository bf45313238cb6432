"""A rank sends what cannot be: it is named, and the job ends, whoever received it."""

from __future__ import annotations

import re
import textwrap
import time
from pathlib import Path

import pytest

from tests.mpi.jobs import Mpi, run_job

pytestmark = pytest.mark.mpi

SCRIPT = """
    import sys, time
    from pathlib import Path
    import hpcfut
    from hpcfut.api import session
    from hpcfut.runtime import frames
    from hpcfut.wire.messages import TaskDone

    source, destination, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    mark = Path(sys.argv[4])

    def spoil():
        # Not printed: a launcher that ends a job may drop what others have just printed.
        mark.write_text(str(time.time()))
        engine, encode = session.current().engine, frames.encode_frame
        with engine._lock:
            engine.frames.flush()
            if what == "garbage":
                engine._transport.send(destination, b"This is no frame.")
                return
            if what == "truncated":
                frames.encode_frame = lambda *args: encode(*args)[:-3]
            engine.frames.send(destination, TaskDone(12345, b"the result of no task"))
            engine.frames.flush()
            frames.encode_frame = encode

    @hpcfut.remote
    def spoil_there():
        spoil()
        time.sleep(30)

    hpcfut.init()
    # What comes before a rank has opened the session is not looked at.
    there = hpcfut.NodeAffinitySchedulingStrategy(destination)
    hpcfut.get(hpcfut.remote(scheduling_strategy=there)(lambda: None).remote())
    if source == 0:
        spoil()
        hpcfut.get(hpcfut.remote(lambda: time.sleep(30)).remote())
    else:
        there = hpcfut.NodeAffinitySchedulingStrategy(source)
        hpcfut.get(spoil_there.options(scheduling_strategy=there).remote())
    print("not reached")
"""


@pytest.mark.parametrize(("source", "destination"), [(2, 0), (2, 1), (0, 1)])
@pytest.mark.parametrize("what", ["garbage", "truncated", "nonsense"])
def test_its_sender_is_named(mpi: Mpi, tmp_path: Path, source: int, destination: int, what: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    job = run_job(mpi, 3, script, source, destination, what, tmp_path / "mark").check(None)
    assert job.returncode, job.story()
    sentence = rf"Rank {source} on host \S+ \(process \d+\) sent rank {destination} something that cannot be accepted\."
    # By another rank, if rank 0 does not come to it in time.
    assert re.search(rf"^(\(rank \d\) )?hpcfut: {sentence}", job.stderr, re.MULTILINE), job.story()
    assert (
        "bug in hpcfut; please report it" in job.stderr
        or "Another program may be using" in job.stderr
        or ("cut or joined" in job.stderr)
    ), job.story()
    assert "not reached" not in job.stdout
    assert time.time() - float((tmp_path / "mark").read_text()) < 10, job.story()
