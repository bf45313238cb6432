"""Pages of memory that nobody has written yet, made ready in time: writing them first costs five times a warm copy.

Large fresh ranges are made ready in one call before they are written, with the GIL released, so that a rank that runs
out of memory gets an error and no bus error. In the background as much again is made ready as was ever used, within
bounds, so that the next objects find warm pages, small ones too. No page is worked on twice, so all this takes no more
time than writing the memory would.

Then, still in the background, the kernel is asked to put the pages together to large ones. It does so on its own for
private memory only; reading is up to a tenth faster through them, and who reads an object first has a page fault for
every 2 MiB instead of every 4 KiB.

Memory in a folder that may be full is another matter: there any page that is written for the first time may be a bus
error. It is *strict*: nothing is written that was not made ready before, small ranges and what lies before them
included, and nothing is made ready that nobody has asked for.
"""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
import threading
from contextlib import suppress
from typing import Final

#: The advice that Python has no name for: make pages, ready to be written, at once.
_MADV_POPULATE_WRITE: Final = 23
#: And: put pages together to large ones, now.
_MADV_COLLAPSE: Final = 25
#: The size of large pages; memory has them only where it begins at a multiple of it.
NBYTES_LARGE: Final = 2 << 20
#: The flag of ``mmap`` that Python before 3.13 has no name for: what is mapped need not be there in the end.
_MAP_NORESERVE: Final = 0x4000
#: Fewer fresh bytes than this become ready as they are written.
_NBYTES_MIN: Final = 1 << 20
#: The most that is made ready beyond what is used, and in one call in the background.
_NBYTES_AHEAD_MAX: Final = 256 << 20
_NBYTES_STEP: Final = 16 << 20


class Pages:
    """The pages of a writable mapping, of which everything from some place on is fresh. Any thread may call."""

    def __init__(
        self, memory: mmap.mmap, nbytes_warm: int, *, nbytes: int | None = None, is_strict: bool = False
    ) -> None:
        """Begin with ``nbytes_warm`` bytes that have been written, or will be soon; ``nbytes`` are there in all."""
        self._nbytes = len(memory) if nbytes is None else nbytes
        self.is_strict = is_strict
        #: Up to here pages are ready, or whoever writes there makes them so.
        self._nbytes_warm = nbytes_warm
        #: Up to here the background has made them ready.
        self._nbytes_ahead = nbytes_warm
        #: Up to here it has asked for large pages; infinity where there are none.
        self._nbytes_large = 0.0
        # mmap.madvise would keep the GIL.
        self._madvise = ctypes.CDLL(None, use_errno=True).madvise
        self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._is_busy = threading.Lock()
        #: Whether nothing is done in the background any more.
        self._is_over = False

    def prepare(self, start: int, end: int) -> None:
        """Make sure that a range, which is going to be written, is ready.

        Raises:
            MemoryError: The system has no more pages.
        """
        if end <= self._nbytes_warm:
            return
        if self.is_strict:
            self._prepare_strictly(end)
            return
        fresh = max(start, self._nbytes_warm, self._nbytes_ahead)
        self._nbytes_warm = end
        if fresh < end and end - start >= _NBYTES_MIN:
            # What the background is at just now is asked for here as well: the kernel makes no page twice.
            self._populate(fresh, end)
        self._prepare_ahead(end)

    def expect(self, start: int, end: int) -> None:
        """A range is going to be written by somebody who must not wait, unless the memory is strict.

        What comes after it is made ready: the next objects from other hosts take half the time then.

        Raises:
            MemoryError: The memory is strict, and the system has no more pages.
        """
        if self.is_strict:
            self.prepare(start, end)
        elif end > self._nbytes_warm:
            self._nbytes_warm = end
            self._prepare_ahead(end)

    def close(self) -> None:
        """Stop what goes on in the background."""
        self._is_over = True

    def _prepare_strictly(self, end: int) -> None:
        # Who comes second writes below what the first one is at.
        with self._is_busy:
            if end > self._nbytes_warm:
                self._populate(self._nbytes_warm, end)
                self._nbytes_warm = end

    def _prepare_ahead(self, end: int) -> None:
        nbytes = min(end, _NBYTES_AHEAD_MAX)
        # Not for every small object, but when half of what was made ready has been used.
        if self._nbytes_ahead - end > nbytes // 2 or self._is_over:
            return
        first = max(end, self._nbytes_ahead)
        last = min(end + nbytes, self._nbytes)
        if last - first >= _NBYTES_MIN and self._is_busy.acquire(blocking=False):
            thread = threading.Thread(target=self._run_ahead, args=(first, last), name="hpcfut-pages", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # There are too many threads, or Python is about to end.
                self._is_busy.release()

    def _run_ahead(self, first: int, last: int) -> None:
        # Who needs the pages will be told that there are none.
        with suppress(MemoryError):
            while first < last and not self._is_over:
                step = min(first + _NBYTES_STEP, last)
                if step > self._nbytes_warm:
                    self._populate(first, step)
                first = self._nbytes_ahead = step
            self._enlarge(last)
        self._is_busy.release()

    def _enlarge(self, end: int) -> None:
        """Have pages put together to large ones, as far as the system has any; what is in them stays."""
        end -= end % NBYTES_LARGE
        while self._nbytes_large < end and not self._is_over:
            start = int(self._nbytes_large)
            step = min(start + _NBYTES_STEP, end)
            if (
                self._madvise(self._address + start, step - start, _MADV_COLLAPSE)
                and ctypes.get_errno() == errno.EINVAL
            ):
                self._nbytes_large = math.inf  # Kernels before 6.1 do not know the advice.
            else:
                self._nbytes_large = step

    def _populate(self, start: int, end: int) -> None:
        start -= start % mmap.PAGESIZE
        if not self._madvise(self._address + start, end - start, _MADV_POPULATE_WRITE):
            return
        error = ctypes.get_errno()
        if error in (errno.EINVAL, errno.ENOSYS) and not self.is_strict:
            self._is_over = True  # Kernels before 5.14 do not know the advice.
            return
        # What would have been a bus error.
        reason = "the folder of shared memory is full" if error == errno.EFAULT else os.strerror(error)
        raise MemoryError(
            f"The system has no more memory for {end - start} bytes of objects: {reason}. Drop refs that are not "
            f"needed, or start the job with less memory for objects."
        )


def map_aligned(descriptor: int, nbytes: int, protection: int) -> mmap.mmap:
    """Map at least so many bytes, at a multiple of the size of large pages if possible.

    The system puts each mapping right below others, so one that is longer begins lower.
    """
    excess = 0
    with suppress(OSError):  # There may be room for one of them, but not for two.
        probe = mmap.mmap(-1, nbytes, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        excess = ctypes.addressof(ctypes.c_char.from_buffer(probe)) % NBYTES_LARGE
        probe.close()
    return mmap.mmap(descriptor, nbytes + excess, mmap.MAP_SHARED, protection)


def map_for_reading(descriptor: int, nbytes: int) -> mmap.mmap:
    """Map so many bytes, for nothing but reading them."""
    mapped = map_aligned(descriptor, nbytes, mmap.PROT_READ)
    # A rank that crashes would else write the memory of all ranks of its host into its core file.
    mapped.madvise(mmap.MADV_DONTDUMP)
    return mapped
