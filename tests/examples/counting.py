"""The word count on rank 0, with a count of the bytes that arrive there. Prints one JSON object.

Usage: counting.py elsewhere|anywhere FOLDER

With `elsewhere` no task runs on rank 0; in the end the script fetches one part of what a map task returned, which
shows that the counter counts.
"""

from __future__ import annotations

import itertools
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
# Every rank gets the path of rank 0: there too the tasks are functions of these modules.
sys.path.insert(0, str(CHECKOUT))

import hpcfut  # noqa: E402
from examples import wordcount  # noqa: E402
from hpcfut.api import session  # noqa: E402
from hpcfut.model.config import Config  # noqa: E402
from tests.mpi.support import on_rank  # noqa: E402

N_MAPS = 6
N_REDUCES = 3
TOP = 5


class CountingTransport:
    """Passes everything on to a transport, and counts what arrives."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.nbytes_frames = 0
        self.nbytes_data = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def poll(self) -> Sequence[tuple[int, Any]]:
        frames: Sequence[tuple[int, Any]] = self._transport.poll()
        self.nbytes_frames += sum(len(frame) for _, frame in frames)
        return frames

    def receive_data(self, rank: int, transfer_id: int, buffer: memoryview) -> None:
        self.nbytes_data += buffer.nbytes
        self._transport.receive_data(rank, transfer_id, buffer)


class Elsewhere:
    """A remote function whose tasks run on the other ranks, in turn."""

    def __init__(self, function: Any) -> None:
        n_ranks = len(hpcfut.nodes())
        self._there = itertools.cycle([on_rank(function, rank) for rank in range(1, n_ranks)])
        self._function = function

    def options(self, **options: Any) -> Elsewhere:
        return Elsewhere(self._function.options(**options))

    def remote(self, *args: Any) -> Any:
        return next(self._there).remote(*args)


class Asked:
    """Who on this rank has asked for the bytes of objects of other ranks: tasks, or the script."""

    def __init__(self, transfers: Any) -> None:
        self.nbytes_by_tasks = 0
        self.nbytes_by_script = 0
        self._need = transfers.need
        transfers.need = self.need

    def need(self, object_id: int, rank: int, nbytes: int, watcher: int, *, is_held: bool) -> Any:
        if watcher > 0:  # An id of a task; waiting threads have negative ones.
            self.nbytes_by_tasks += nbytes
        else:
            self.nbytes_by_script += nbytes
        return self._need(object_id, rank, nbytes, watcher, is_held=is_held)


def parts_of(paths: Sequence[Path]) -> list[int]:
    """The sizes of what the map tasks return."""
    parts = [wordcount.split(wordcount.count_words(paths[i::N_MAPS])[0], N_REDUCES) for i in range(N_MAPS)]
    return [len(pickle.dumps(part, 5)) for some in parts for part in some]


def main(where: str, folder: str) -> None:
    job: Any = session.ensure_job()
    counting = job._transport = CountingTransport(job._transport)
    hpcfut.init()
    runtime: Any = session.current()
    asked = Asked(runtime.engine.core.transfers)
    paths = sorted(Path(folder).glob("*.txt"))
    program: Any = wordcount
    if where == "elsewhere":
        program.map_files = Elsewhere(wordcount.map_files)
        program.reduce_parts = Elsewhere(wordcount.reduce_parts)
    counted, _ = wordcount.count_in_tasks(paths, N_MAPS, N_REDUCES, TOP)
    said = {
        "is_right": counted == wordcount.summarize(wordcount.count_words(paths)[0], TOP),
        "nbytes_frames": counting.nbytes_frames,
        "nbytes_data": counting.nbytes_data,
        "nbytes_by_tasks": asked.nbytes_by_tasks,
        "nbytes_by_script": asked.nbytes_by_script,
        "parts": parts_of(paths),
        "nbytes_inline_max": Config().nbytes_inline_max,
    }
    if where == "elsewhere":
        before = counting.nbytes_data
        mapped = wordcount.map_files.options(num_returns=1 + N_REDUCES).remote(paths[0::N_MAPS], N_REDUCES)
        hpcfut.get(mapped[1])
        said["nbytes_of_one_part"] = counting.nbytes_data - before
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
