"""The contract of the memory of a rank: what its own views and those of its neighbours show, and how long."""

from __future__ import annotations

import gc
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import pytest

from hpcfut.core.arena import Arena
from hpcfut.edges.host.arena import HostArena
from hpcfut.model.errors import HpcfutError, ObjectLostError
from hpcfut.model.place import Place
from hpcfut.model.segment import NBYTES_HEADER
from hpcfut.wire.pickling import Pickling, pack_into
from tests.contract.arena_peer import OBJECT_ID, TEXT
from tests.mpi.jobs import CHECKOUT

PEER = Path(__file__).with_name("arena_peer.py")
NBYTES = 1 << 20
PICKLING = Pickling(type("Ref", (), {}), id, str)


class Rank:
    """One memory in this process, and what was released."""

    def __init__(self, rank: int = 0, nbytes: int = NBYTES) -> None:
        self.rank = rank
        self.arena = HostArena(rank, nbytes)
        self.released = self.arena.released

    def renew(self) -> None:
        self.arena = self.arena.renewed()
        self.released = self.arena.released

    def put(self, offset: int, object_id: int, data: Any) -> int:
        nbytes = len(data)
        self.arena.buffer(offset, nbytes)[:] = data
        self.arena.seal(offset, object_id, nbytes)
        return nbytes

    def view(self, offset: int, object_id: int, nbytes: int) -> memoryview:
        return self.arena.view(Place(object_id, self.rank, offset, nbytes))

    def put_value(self, offset: int, object_id: int, value: Any) -> int:
        pickled = PICKLING.dumps(value)
        pack_into(pickled, self.arena.buffer(offset, pickled.nbytes))
        self.arena.seal(offset, object_id, pickled.nbytes)
        return pickled.nbytes


@pytest.fixture
def rank() -> Iterator[Rank]:
    made = Rank()
    yield made
    made.arena.close()


class Peer:
    """The process of rank 1, and this one as rank 0, which have met."""

    def __init__(self, nbytes: int = NBYTES) -> None:
        self.mine = Rank(nbytes=nbytes)
        self.process = subprocess.Popen(
            [sys.executable, str(PEER), "1", str(nbytes), self.mine.arena.card().hex()],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.card = bytes.fromhex(self.read())
        self.mine.arena.meet({0: self.mine.arena.card(), 1: self.card})

    def read(self) -> str:
        printed: IO[str] | None = self.process.stdout
        assert printed is not None
        return printed.readline().strip()

    def ask(self, *words: object) -> str:
        said: IO[str] | None = self.process.stdin
        assert said is not None
        print(*words, file=said, flush=True)
        return self.read()

    def view(self) -> memoryview:
        return self.mine.arena.view(Place(OBJECT_ID, 1, 0, len(TEXT)))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.kill()
    made.mine.arena.close()


# -- own objects -------------------------------------------------------------------------------------------------------


def test_bytes_come_back(rank: Rank) -> None:
    data = bytes(range(250)) * 4
    block = rank.arena.buffer(128, 1000)
    assert (block.nbytes, block.readonly) == (1000, False)
    block[:] = data
    rank.arena.seal(128, 5, 1000)
    assert bytes(rank.view(128, 5, 1000)) == data
    assert (list(rank.released), rank.arena.n_pins) == ([5], 0)


def test_nothing_can_be_stored_at_the_very_end(rank: Rank) -> None:
    offset = rank.arena.nbytes - NBYTES_HEADER
    rank.put(offset, 5, b"")
    view = rank.view(offset, 5, 0)
    assert (bytes(view), view.readonly, rank.arena.n_pins) == (b"", True, 1)
    del view
    assert list(rank.released) == [5]


def test_room_is_what_was_asked_for_and_no_less() -> None:
    for nbytes in (0, 1, 4096, 4097):
        rank = Rank(nbytes=nbytes)
        assert nbytes <= rank.arena.nbytes < nbytes + 4096
        rank.arena.close()


def nbytes_in_large_pages() -> list[int]:
    """Of each mapping of memory for objects in this process."""
    text = Path("/proc/self/smaps").read_text(encoding="utf-8")
    maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", text, flags=re.MULTILINE)
    return [
        1024 * int(found[1])
        for one in maps
        if "hpcfut-arena" in one and (found := re.search(r"ShmemPmdMapped: +([0-9]+) kB", one))
    ]


def finish_pages() -> None:
    """Wait for pages that are made ready in the background."""
    for thread in threading.enumerate():
        if thread.name == "hpcfut-pages":
            thread.join()


def nbytes_ready(arena: HostArena) -> int:
    return 512 * os.fstat(arena._descriptor).st_blocks


def test_what_is_read_from_another_host_leaves_pages_ready_for_the_next() -> None:
    nbytes = 16 << 20
    probe, mine = Rank(nbytes=nbytes), Rank(nbytes=4 * nbytes)
    probe.arena.buffer(0, nbytes // 2)
    is_known = nbytes_ready(probe.arena) >= nbytes // 2
    mine.arena.bare(0, nbytes)
    finish_pages()
    found = nbytes_ready(mine.arena)
    probe.arena.close()
    mine.arena.close()
    if not is_known:
        pytest.skip("This kernel, which is older than 5.14, makes no pages ready in advance.")
    assert found >= nbytes


def test_large_objects_lie_in_large_pages() -> None:
    nbytes = 32 << 20
    mine, other = Rank(nbytes=2 * nbytes), Rank(1, nbytes=2 * nbytes)
    other.arena.meet({0: mine.arena.card()})
    mine.put(0, 7, np.ones(nbytes, np.uint8).data)
    finish_pages()
    view = other.arena.view(Place(7, 0, 0, nbytes))
    assert int(np.frombuffer(view, np.uint8).sum()) == nbytes
    found = nbytes_in_large_pages()
    mine.arena.close()
    other.arena.close()
    if not any(found):
        pytest.skip(
            "This system gives shared memory no large pages: its kernel is older than 6.1, or they are all used."
        )
    # Two mappings of the writer, and that of who reads it; some pages may have to stay small.
    assert sum(nbytes_mapped > nbytes // 2 for nbytes_mapped in found) >= 2


def test_segments_of_the_allocator_lie_side_by_side(rank: Rank) -> None:
    """All of it is used, down to the last byte, and no segment touches another one."""
    allocator = Arena(rank.arena.nbytes)
    placed = {}
    for object_id, nbytes in enumerate((0, 1, 64, 1000, 0, 65_536, rank.arena.nbytes - 67_136), 1):
        offset = allocator.allocate(nbytes)
        assert offset is not None
        placed[object_id] = offset, nbytes
        rank.put(offset, object_id, bytes([object_id]) * nbytes)
    assert allocator.nbytes_free == 0
    for object_id, (offset, nbytes) in placed.items():
        view = rank.view(offset, object_id, nbytes)
        assert bytes(view) == bytes([object_id]) * nbytes
        if nbytes:
            assert np.frombuffer(view, np.uint8).ctypes.data % 64 == 0


def test_places_go_beyond_32_bits() -> None:
    rank = Rank(nbytes=6 << 30)
    rank.put(5 << 30, 1, b"far")
    assert bytes(rank.view(5 << 30, 1, 3)) == b"far"
    rank.arena.close()


def test_more_memory_than_there_can_be_is_an_error_that_says_so() -> None:
    n_open = len(os.listdir("/proc/self/fd"))
    for nbytes in (1 << 60, 1 << 70):
        with pytest.raises(HpcfutError, match=rf"Rank 3 cannot have {nbytes} bytes of memory for objects: .*ulimit"):
            Rank(3, nbytes)
    assert len(os.listdir("/proc/self/fd")) == n_open


# -- what is read-only -------------------------------------------------------------------------------------------------


def over_pickle_buffer(view: memoryview, shape: Any, dtype: Any) -> Any:
    """As our pickling makes arrays."""
    buffer: Any = pickle.PickleBuffer(view)
    return np.ndarray(shape, dtype, buffer, 0, None, "F")


def assert_read_only(view: memoryview) -> None:
    """All that a user could try."""
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    arrays: list[Any] = [view.obj, np.frombuffer(view, np.uint8), np.asarray(view)]
    arrays += [arrays[0][2:], arrays[1].reshape(-1, 2), over_pickle_buffer(view[:4], 4, np.uint8)]
    for array in arrays:
        assert not array.flags.writeable
        with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
            array.setflags(write=True)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_own_objects_are_read_only(rank: Rank) -> None:
    rank.put(0, 1, b"12345678")
    assert_read_only(rank.view(0, 1, 8))


def test_objects_of_peers_are_read_only(peer: Peer) -> None:
    assert_read_only(peer.view())


def test_nothing_that_is_unpickled_can_be_made_writable(rank: Rank) -> None:
    value = {"a": np.arange(1000), "b": [memoryview(b"x" * 5000)], "f": np.asfortranarray(np.ones((50, 60)))}
    loaded = PICKLING.loads(rank.view(0, 1, rank.put_value(0, 1, value)))
    for array in (loaded["a"], loaded["f"], loaded["a"][3:], loaded["f"].T):
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.setflags(write=True)
    assert loaded["b"][0].readonly
    assert (loaded["f"] == 1).all()


def test_peers_cannot_map_it_for_writing(peer: Peer) -> None:
    _, number, *_ = msgspec.msgpack.decode(peer.mine.arena.card())
    said = peer.ask("map", os.getpid(), number)
    if said == "mapped":
        pytest.skip("This kernel, which is older than 5.1, does not seal memory against writing.")
    assert said == "PermissionError"


# -- pins --------------------------------------------------------------------------------------------------------------

#: What users make of arrays, and we of views.
DERIVED: dict[str, Callable[[memoryview], Any]] = {
    "the view": lambda view: view,
    "slice of the view": lambda view: view[10:20],
    "slice of a cast": lambda view: view.cast("d")[2:4],
    "frombuffer": lambda view: np.frombuffer(view, np.float64),
    "slice of an array": lambda view: np.frombuffer(view, np.float64)[5:7],
    "reshaped": lambda view: np.frombuffer(view, np.float64).reshape(5, 20).T[1:],
    "memoryview of an array": lambda view: np.frombuffer(view, np.float64).reshape(5, 20).data,
    "as the pickling does": lambda view: over_pickle_buffer(view[64:160], (3, 4), "f8"),
    "slice of that": lambda view: over_pickle_buffer(view[64:160], (3, 4), "f8")[1],
    "subclass": lambda view: np.frombuffer(view, np.float64).view(np.matrix)[0, 1:],
    "record": lambda view: np.frombuffer(view, [("a", "i4"), ("b", "f4")])["b"],
    "array of the base": lambda view: np.asarray(view.obj)[3:9].view("i2"),
    "pickle buffer": lambda view: pickle.PickleBuffer(view),
}


@pytest.mark.parametrize("make", DERIVED.values(), ids=DERIVED.keys())
def test_the_last_thing_built_over_a_view_releases_it(rank: Rank, make: Callable[[memoryview], Any]) -> None:
    rank.put(0, 9, bytes(800))
    rank.put(1024, 8, bytes(800))
    view, other = rank.view(0, 9, 800), rank.view(1024, 8, 800)
    derived = make(view)
    del view
    gc.collect()
    assert (list(rank.released), rank.arena.n_pins) == ([], 2)
    del derived
    assert (list(rank.released), rank.arena.n_pins) == ([9], 1)
    del other
    assert (list(rank.released), rank.arena.n_pins) == ([9, 8], 0)


def test_each_view_is_released(rank: Rank) -> None:
    rank.put(0, 9, b"abc")
    views = [rank.view(0, 9, 3) for _ in range(5)]
    for n_left in range(4, -1, -1):
        views.pop()
        assert (len(rank.released), rank.arena.n_pins) == (5 - n_left, n_left)


def test_a_value_releases_its_view_with_its_last_part(rank: Rank) -> None:
    value = {"a": np.arange(1000.0), "b": [np.ones((30, 40), np.float32), memoryview(b"x" * 5000)], "c": 5}
    view = rank.view(0, 9, rank.put_value(0, 9, value))
    loaded = PICKLING.loads(view)
    del view
    parts = [loaded["a"][10:20], loaded["b"][0].T, loaded["b"][1][3:]]
    del loaded
    for _ in range(3):
        gc.collect()
        assert list(rank.released) == []
        parts.pop()
    assert list(rank.released) == [9]


@pytest.mark.parametrize(
    "value",
    [{"a": [1, 2, "three"]}, b"x" * 100_000, bytearray(100_000), np.arange(10), [np.array([{}], object)], "text", None],
    ids=lambda value: type(value).__name__,
)
def test_a_value_without_views_releases_at_once(rank: Rank, value: Any) -> None:
    view = rank.view(0, 9, rank.put_value(0, 9, value))
    loaded = PICKLING.loads(view)
    assert type(loaded) is type(value)
    del view
    assert list(rank.released) == [9]


def test_a_view_in_a_cycle_is_released_by_the_collector(rank: Rank) -> None:
    rank.put(0, 9, b"abc")
    cycle: list[Any] = [rank.view(0, 9, 3)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert list(rank.released) == [9]


def test_threads_view_and_release_at_a_time(rank: Rank) -> None:
    for object_id in range(1, 5):
        rank.put(1024 * object_id, object_id, bytes([object_id]) * 500)
    wrong: list[int] = []

    def work() -> None:
        kept: deque[memoryview] = deque(maxlen=3)
        for number in range(5000):
            object_id = 1 + number % 4
            kept.append(rank.view(1024 * object_id, object_id, 500))
            if kept[-1][499] != object_id:
                wrong.append(object_id)

    threads = [threading.Thread(target=work) for _ in range(3)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert (wrong, rank.arena.n_pins) == ([], 0)
    assert sorted(rank.released) == sorted([1, 2, 3, 4] * (3 * 5000 // 4))


# -- places that are wrong ---------------------------------------------------------------------------------------------


def assert_lost(rank: Rank, offset: int, object_id: int, nbytes: int) -> None:
    with pytest.raises(ObjectLostError, match=rf"of {nbytes} bytes cannot be read at {offset} in the memory of rank 0"):
        rank.view(offset, object_id, nbytes)
    assert (list(rank.released), rank.arena.n_pins) == ([], 0)


def test_what_is_not_sealed_cannot_be_viewed(rank: Rank) -> None:
    rank.arena.buffer(0, 100)[:] = b"a" * 100
    assert_lost(rank, 0, 1, 100)
    rank.arena.seal(0, 1, 100)
    rank.arena.unseal(0)
    assert_lost(rank, 0, 1, 100)


def test_another_object_or_size_or_place_is_not_taken_for_it(rank: Rank) -> None:
    rank.put(0, 1, b"a" * 100)
    for offset, object_id, nbytes in ((0, 2, 100), (0, 1, 99), (0, 1, 101), (64, 1, 100), (1 << 50, 1, 100)):
        assert_lost(rank, offset, object_id, nbytes)


def test_a_place_that_was_used_again_is_not_taken_for_the_old_one(rank: Rank) -> None:
    rank.put(0, 1, b"a" * 100)
    rank.arena.unseal(0)
    rank.put(0, 2, b"b" * 100)
    assert_lost(rank, 0, 1, 100)
    assert bytes(rank.view(0, 2, 100)) == b"b" * 100


@pytest.mark.parametrize("old", [None, (1, 200), (2, 100), (1 << 40, 100)])
def test_a_header_in_the_making_agrees_with_nothing(rank: Rank, old: tuple[int, int] | None) -> None:
    """Any words of it may have been written already; none of them is seen before the last one that differs."""
    memory: Any = rank.arena.buffer(0, 100).obj
    rank.put(0, 1, b"a" * 100)
    begin = memory.find(b"hpcfutS1")
    new = memory[begin : begin + 24]
    rank.arena.unseal(0)
    if old is not None:
        rank.arena.seal(0, *old)
    before = memory[begin : begin + 24]
    assert before != new
    for which in range(8):
        torn = b"".join((new if which >> word & 1 else before)[8 * word : 8 * word + 8] for word in range(3))
        memory[begin : begin + 24] = torn
        if torn == new:
            assert bytes(rank.view(0, 1, 100)) == b"a" * 100
            rank.released.clear()
        else:
            assert_lost(rank, 0, 1, 100)


def test_ranks_that_were_not_met_are_out_of_reach(rank: Rank) -> None:
    assert (rank.arena.reached, rank.arena.neighbours) == ([0], [0])
    with pytest.raises(ObjectLostError, match=r"in the memory of rank 1: it is out of reach from rank 0\."):
        rank.arena.view(Place(1, 1, 0, 100))


# -- peers -------------------------------------------------------------------------------------------------------------


def test_peers_read_each_other(peer: Peer) -> None:
    assert peer.mine.arena.reached == [0, 1]
    assert bytes(peer.view()) == TEXT
    peer.mine.put(640, 3, b"from rank 0")
    assert peer.ask("view", 640, 3, 11) == "from rank 0 [3]"
    peer.mine.arena.unseal(640)
    assert peer.ask("view", 640, 3, 11) == "ObjectLostError"
    # What is written after they have met is there too, pages that were never written before as well.
    peer.mine.put(NBYTES // 2, 4, b"later")
    assert peer.ask("view", NBYTES // 2, 4, 5) == "later [3, 4]"


def test_views_of_peers_are_pins(peer: Peer) -> None:
    part = np.frombuffer(peer.view(), np.uint8)[3:5]
    assert list(peer.mine.released) == []
    del part
    assert list(peer.mine.released) == [OBJECT_ID]


def test_an_object_that_its_holder_has_freed_is_not_found(peer: Peer) -> None:
    view = peer.view()
    assert peer.ask("unseal") == "unsealed"
    assert bytes(view) == TEXT
    with pytest.raises(ObjectLostError, match=r"Object 1\.7 of 16 bytes .* rank 1: it is not there, or not any more"):
        peer.view()


def test_what_a_dead_rank_held_can_still_be_read(peer: Peer) -> None:
    early = peer.view()
    peer.process.send_signal(signal.SIGKILL)
    peer.process.wait()
    assert bytes(early) == TEXT
    assert bytes(peer.view()) == TEXT


@pytest.mark.parametrize("field", range(4), ids=["pid", "descriptor", "size", "token"])
def test_somebody_else_is_not_taken_for_a_peer(field: int) -> None:
    rank, other = Rank(), Rank(1)
    n_open = len(os.listdir("/proc/self/fd"))
    card: list[Any] = msgspec.msgpack.decode(other.arena.card())
    card[field] = bytes(16) if field == 3 else 2**22 + 1 if field == 0 else card[field] + 500
    rank.arena.meet({1: msgspec.msgpack.encode(card)})
    # The memory of rank 1 is not that of rank 2 either.
    rank.arena.meet({2: other.arena.card()})
    assert rank.arena.reached == [0]
    assert len(os.listdir("/proc/self/fd")) == n_open
    rank.arena.meet({1: other.arena.card()})
    assert rank.arena.reached == [0, 1]
    rank.arena.close()
    other.arena.close()


def test_the_memory_of_another_user_is_out_of_reach(rank: Rank) -> None:
    if os.geteuid() != 0:
        pytest.skip("Only root can become another user.")
    card = rank.arena.card()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(65534)
            other = Rank(1)
            other.arena.meet({0: card})
            status = 2 if 0 in other.arena.reached else 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_that_may_open_no_more_files_does_without(peer: Peer) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    rank = Rank(2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        rank.arena.meet({1: peer.card})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert 1 not in rank.arena.reached
    rank.arena.meet({1: peer.card})
    assert 1 in rank.arena.reached
    rank.arena.close()


# -- the end -----------------------------------------------------------------------------------------------------------


def n_mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:hpcfut-arena")


def test_views_stay_readable_after_the_end_and_then_all_memory_goes(peer: Peer) -> None:
    gc.collect()
    before = n_mappings(), len(os.listdir("/proc/self/fd"))
    rank, other = Rank(), Peer()
    own = rank.view(0, 1, rank.put_value(0, 1, np.arange(5000)))
    array = PICKLING.loads(own)[5:]
    view = other.view()
    writable = rank.arena.buffer(64_000, 100)
    rank.arena.close()
    other.mine.arena.close()
    other.kill()
    assert (array == np.arange(5, 5000)).all()
    assert bytes(view) == TEXT
    writable[:] = bytes(100)
    del own, array, view, writable, rank.arena, other.mine.arena
    gc.collect()
    assert list(rank.released) == [1]
    assert (n_mappings(), len(os.listdir("/proc/self/fd"))) == before


def test_a_forked_child_reads_on_and_its_end_releases_nothing_here(peer: Peer) -> None:
    peer.mine.put(64, 2, b"own")
    own, theirs = peer.mine.view(64, 2, 3), peer.view()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            again = peer.mine.view(64, 2, 3), peer.view()
            if [bytes(view) for view in (own, theirs, *again)] == [b"own", TEXT] * 2:
                del own, theirs, again
                status = 0 if sorted(peer.mine.released) == sorted([2, OBJECT_ID] * 2) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (list(peer.mine.released), peer.mine.arena.n_pins) == ([], 2)
    assert (bytes(own), bytes(theirs)) == (b"own", TEXT)


def test_a_new_session_has_fresh_memory_and_leaves_old_values_alone(peer: Peer) -> None:
    peer.mine.put(640, 3, b"first")
    old = peer.mine.view(640, 3, 5)
    assert peer.ask("view", 640, 3, 5) == "first [3]"
    late = peer.mine.arena
    peer.mine.renew()
    assert peer.ask("renew") == "renewed"
    peer.mine.put(640, 4, b"later")
    assert (bytes(old), bytes(peer.mine.view(640, 4, 5)), bytes(peer.view())) == (b"first", b"later", TEXT)
    assert peer.ask("view", 640, 4, 5) == "later [4]"
    late.seal(640, 3, 5)
    assert bytes(peer.mine.view(640, 4, 5)) == b"later", "Who is late writes to the old memory."
    heard = list(peer.mine.arena.released)
    del old
    assert list(peer.mine.arena.released) == heard, "The new session knows nothing of it."


def test_numpy_is_not_loaded_before_it_is_needed() -> None:
    script = """
import sys
from hpcfut.edges.host.arena import HostArena
from hpcfut.model.place import Place
arena = HostArena(0, 1 << 22)
arena.buffer(0, 1 << 21)[:3] = b"abc"
arena.seal(0, 5, 3)
print("numpy" in sys.modules)
view = arena.view(Place(5, 0, 0, 3))
print("numpy" in sys.modules)
"""
    # The view goes with the process, or is released at its end.
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=CHECKOUT, timeout=60
    )
    assert done.stdout.split()[:2] == ["False", "True"]
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_draft_is_written_where_it_is_read(rank: Rank) -> None:
    payload, pin = rank.arena.draft(640, 7, 1000)
    array = np.ndarray((100,), "f8", payload, 200)
    array[:] = np.arange(100)
    pin.object_id = 8
    rank.arena.seal(640, 8, 1000)
    assert np.frombuffer(rank.view(640, 8, 1000), "f8", 100, 200).tolist() == list(range(100))
    assert list(rank.released) == [8], "The value that was read has gone."
    part = array[5:].reshape(5, -1)
    del array, payload
    assert list(rank.released) == [8]
    del part
    assert list(rank.released) == [8, 8]


def test_a_checked_memory_finds_what_was_changed_after_it_was_sealed(capfd: pytest.CaptureFixture[str]) -> None:
    arena = HostArena(0, NBYTES, is_checked=True)
    payload, _ = arena.draft(0, 7, 5000)
    payload[:] = bytes(5000)
    arena.seal(0, 7, 5000)
    place = Place(7, 0, 0, 5000)
    assert arena.view(place)[:3] == bytes(3)
    payload[4321] = 1
    with pytest.raises(ObjectLostError, match=r"Object 0\.7 of 5000 bytes .* was changed after it was stored"):
        arena.view(place)
    arena.unseal(0)
    assert "hpcfut: Object 0.7 of 5000 bytes" in capfd.readouterr().err
    arena.seal(0, 7, 5000)
    arena.unseal(0)
    arena.unseal(0)
    assert not capfd.readouterr().err
    del payload
    arena.close()
