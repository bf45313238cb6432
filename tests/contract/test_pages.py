"""Pages that are made ready before they are written: which, how often, and what becomes of those that cannot be."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hpcfut.edges.host.pages import Pages

MIB = 1 << 20
NBYTES = 128 * MIB
#: The advice that asks for large pages.
COLLAPSE = 25


class Memory:
    """Real memory, of which nothing has been written."""

    def __init__(self, nbytes: int = NBYTES) -> None:
        self.descriptor = os.memfd_create("test-pages")
        os.ftruncate(self.descriptor, nbytes)
        self.mapped = mmap.mmap(self.descriptor, nbytes)
        self.pages = Pages(self.mapped, 0)

    @property
    def nbytes_ready(self) -> int:
        return 512 * os.fstat(self.descriptor).st_blocks


def address_of(mapped: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))


class Advice:
    """Stands for the kernel: writes down the ranges, and gives errors."""

    def __init__(self, memory: Memory, error: int = 0) -> None:
        self.ranges: list[tuple[int, int]] = []
        #: Where large pages were asked for; the answer to that is another one.
        self.large: list[tuple[int, int]] = []
        self.error_of_large = 0
        self._first = address_of(memory.mapped)
        self._pages, self._error = memory.pages, error
        self.is_last = False
        pages: Any = memory.pages
        pages._madvise = self

    def __call__(self, address: int, nbytes: int, advice: int) -> int:
        start = address - self._first
        asked = (start // MIB, -(-(start + nbytes) // MIB))
        if advice == COLLAPSE:
            self.large.append(asked)
            ctypes.set_errno(self.error_of_large)
            return -1 if self.error_of_large else 0
        self.ranges.append(asked)
        if self.is_last and threading.current_thread() is not threading.main_thread():
            self._pages.close()
        ctypes.set_errno(self._error)
        return -1 if self._error else 0


def finish() -> None:
    """Wait for what goes on in the background."""
    for thread in threading.enumerate():
        if thread.name == "hpcfut-pages":
            thread.join()


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    finish()
    os.close(made.descriptor)


def test_the_kernel_makes_them_ready(memory: Memory) -> None:
    memory.pages.prepare(MIB, 3 * MIB)
    if not memory.nbytes_ready:
        pytest.skip("This kernel, which is older than 5.14, makes no pages ready in advance.")
    finish()
    # Those asked for, and as many more as may be in use below; but none there, unless they are part of a large page.
    assert memory.nbytes_ready in ((2 + 3) * MIB, (2 + 4) * MIB)


def test_other_threads_run_meanwhile(memory: Memory) -> None:
    n_steps, is_over = 0, False

    def count() -> None:
        nonlocal n_steps
        while not is_over:
            n_steps += 1
            time.sleep(0)  # It gives the GIL back each time; the main thread does only in the kernel.

    thread = threading.Thread(target=count)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    try:
        thread.start()
        before = n_steps
        memory.pages.prepare(0, NBYTES)
        during = n_steps - before
        is_over = True
        thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    if not memory.nbytes_ready:
        pytest.skip("This kernel, which is older than 5.14, makes no pages ready in advance.")
    assert during > 0


def test_each_page_is_asked_for_once(memory: Memory) -> None:
    advice = Advice(memory)
    for start, end in ((0, 4), (1, 3), (0, 4), (4, 5), (2, 6), (6, 8), (8, 30)):
        memory.pages.prepare(start * MIB, end * MIB)
        finish()
    # As much ahead as was used, again when half of it is used up.
    assert advice.ranges == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 30), (30, 46), (46, 60)]


def test_large_pages_are_asked_for_once_and_when_all_in_them_is_ready(memory: Memory) -> None:
    advice = Advice(memory)
    for start, end in ((0, 3), (3, 30), (30, 100)):
        memory.pages.prepare(start * MIB, end * MIB)
        finish()
        assert advice.large[-1][1] <= max(ready for _, ready in advice.ranges)
    edges = [edge for pair in advice.large for edge in pair]
    assert (edges[0], edges[-1]) == (0, 128)
    assert edges[1:-1:2] == edges[2::2], "Each is asked for once."
    assert not any(edge % 2 for edge in edges)
    assert max(end - start for start, end in advice.large) == 16


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EAGAIN])
def test_what_cannot_be_large_stays_small(memory: Memory, error: int) -> None:
    advice = Advice(memory)
    advice.error_of_large = error
    for start, end in ((0, 4), (4, 30)):
        memory.pages.prepare(start * MIB, end * MIB)
        finish()
    assert advice.ranges[-1] == (46, 60)
    # The first says that the kernel does not know the advice, the second that there was no large page just now.
    assert len(advice.large) == (1 if error == errno.EINVAL else 5)


def test_small_objects_find_pages_that_were_made_ready_in_the_background(memory: Memory) -> None:
    advice = Advice(memory)
    nbytes = MIB // 8
    for number in range(8 * 20):
        memory.pages.prepare(number * nbytes, (number + 1) * nbytes)
        finish()
    # The first MiB becomes ready as it is written.
    assert advice.ranges[0] == (1, 2)
    starts, ends = zip(*advice.ranges, strict=True)
    # Whole MiB are compared, within which one range may end and the next one begin.
    assert all(end - start in (0, 1) for start, end in zip(starts[1:], ends, strict=False))
    assert ends[-1] >= 20
    assert len(advice.ranges) < 15


def test_who_must_not_wait_finds_pages_the_next_time(memory: Memory) -> None:
    advice = Advice(memory)
    for end in (4, 3, 8, 30):
        memory.pages.expect(0, end * MIB)
        finish()
    # As much ahead as was used, and nothing of what is used at once.
    assert advice.ranges == [(4, 8), (8, 16), (30, 46), (46, 60)]
    memory.pages.prepare(0, 30 * MIB)
    assert len(advice.ranges) == 4, "Whoever wrote there has made them ready."


def test_ranges_grow_to_whole_pages(memory: Memory) -> None:
    memory.pages.prepare(NBYTES - 2 * MIB + 100, NBYTES - 100)
    if not memory.nbytes_ready:
        pytest.skip("This kernel, which is older than 5.14, makes no pages ready in advance.")
    assert memory.nbytes_ready == 2 * MIB
    memory.mapped[NBYTES - 2 * MIB] = memory.mapped[NBYTES - 1] = 1
    assert memory.nbytes_ready == 2 * MIB


def test_the_background_ends_where_the_memory_ends(memory: Memory) -> None:
    advice = Advice(memory)
    memory.pages.prepare(0, 100 * MIB)
    finish()
    assert advice.ranges == [(0, 100), (100, 116), (116, 128)]
    memory.pages.prepare(100 * MIB, 128 * MIB)
    finish()
    assert advice.ranges[3:] == []


def test_the_background_stops_at_the_end(memory: Memory) -> None:
    advice = Advice(memory)
    advice.is_last = True
    memory.pages.prepare(0, 64 * MIB)
    finish()
    assert advice.ranges == [(0, 64), (64, 80)]


def test_the_background_skips_what_was_asked_for_meanwhile(memory: Memory) -> None:
    advice = Advice(memory)
    gate = threading.Event()

    def advise(address: int, nbytes: int, what: int) -> int:
        if threading.current_thread() is not threading.main_thread():
            gate.wait()
        return advice(address, nbytes, what)

    pages: Any = memory.pages
    pages._madvise = advise
    pages.prepare(0, 64 * MIB)
    pages.prepare(64 * MIB, 112 * MIB)
    gate.set()
    finish()
    assert advice.ranges == [(0, 64), (64, 112), (64, 80), (112, 128)]


def test_without_a_thread_there_is_no_background(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = Advice(memory)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        memory.pages.prepare(0, 4 * MIB)
    memory.pages.prepare(4 * MIB, 8 * MIB)
    finish()
    assert advice.ranges == [(0, 4), (4, 8), (8, 16)]


def test_old_kernels_do_without(memory: Memory) -> None:
    advice = Advice(memory, errno.EINVAL)
    memory.pages.prepare(0, 4 * MIB)
    finish()
    assert advice.ranges == [(0, 4)]


def test_no_memory_is_an_error_that_says_what_to_do(memory: Memory) -> None:
    Advice(memory, errno.ENOMEM)
    with pytest.raises(MemoryError, match=r"no more memory for 4194304 bytes of objects: Cannot allocate .* Drop refs"):
        memory.pages.prepare(0, 4 * MIB)


def test_no_memory_in_the_background_is_no_error(memory: Memory) -> None:
    advice = Advice(memory)
    memory.pages.prepare(0, 4 * MIB)
    finish()
    again = Advice(memory, errno.ENOMEM)
    memory.pages.prepare(4 * MIB, 8 * MIB)
    finish()
    assert (advice.ranges, again.ranges) == ([(0, 4), (4, 8)], [(8, 16)])


# -- memory that may be full -------------------------------------------------------------------------------------------


def test_strict_memory_is_ready_up_to_where_it_is_written_and_no_further() -> None:
    memory = Memory()
    pages = Pages(memory.mapped, 0, is_strict=True)
    pages.prepare(5000, 5001)
    assert memory.nbytes_ready == 8192, "What lies before it may be written next, by somebody who asks no more."
    pages.prepare(0, 8000)
    pages.prepare(20_000, 3 * MIB)
    assert memory.nbytes_ready == 3 * MIB
    assert not [thread for thread in threading.enumerate() if thread.name == "hpcfut-pages"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errno.EFAULT, "the folder of shared memory is full"),
        (errno.ENOMEM, "Cannot allocate"),
        (errno.EINVAL, "Invalid"),
    ],
)
def test_strict_memory_that_is_not_given_is_an_error_each_time(error: int, words: str) -> None:
    memory = Memory()
    memory.pages = Pages(memory.mapped, 0, is_strict=True)
    Advice(memory, error)
    for _ in range(2):
        with pytest.raises(MemoryError, match=words):
            memory.pages.prepare(0, 100)
