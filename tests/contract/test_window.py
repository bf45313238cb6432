"""The contract of `ports.Window`, over private memory."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest

from hpcfut.edges.host.heap_window import HeapWindow
from hpcfut.ports import Window


@pytest.fixture(params=[HeapWindow], ids=lambda make: make.__name__)
def window(request: pytest.FixtureRequest) -> Window:
    made: Window = request.param(1_000_000)
    return made


def test_bytes_come_back(window: Window) -> None:
    block = window.reserve(1, 1000)
    assert (block.nbytes, block.readonly) == (1000, False)
    block[:] = bytes(range(250)) * 4
    window.seal(1)
    assert bytes(window.view(1)) == bytes(range(250)) * 4
    assert (window.nbytes_used, window.n_objects) == (1000, 1)
    window.free(1)
    assert (window.nbytes_used, window.n_objects) == (0, 0)


def test_nothing_can_be_stored(window: Window) -> None:
    assert window.reserve(1, 0).nbytes == 0
    window.seal(1)
    assert bytes(window.view(1)) == b""
    window.free(1)
    assert window.n_objects == 0


def test_views_are_read_only(window: Window) -> None:
    window.reserve(1, 8)
    window.seal(1)
    view = window.view(1)
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    array = np.frombuffer(view, np.uint8)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
        array.flags.writeable = True


def test_arrays_are_aligned(window: Window) -> None:
    for object_id in range(1, 20):
        window.reserve(object_id, 8 * object_id)
        window.seal(object_id)
        assert np.frombuffer(window.view(object_id), np.uint8).ctypes.data % 64 == 0


def test_views_outlive_their_objects(window: Window) -> None:
    window.reserve(1, 100_000)[:] = b"a" * 100_000
    window.seal(1)
    part = window.view(1)[10:20]
    window.free(1)
    window.reserve(1, 100_000)[:] = b"b" * 100_000
    gc.collect()
    assert bytes(part) == b"a" * 10


def test_what_is_not_sealed_cannot_be_viewed_but_freed(window: Window) -> None:
    window.reserve(7, 10)
    with pytest.raises(KeyError, match="reserved, but not sealed"):
        window.view(7)
    window.free(7)
    with pytest.raises(KeyError, match="not in the window"):
        window.view(7)
    with pytest.raises(KeyError, match="not in the window"):
        window.free(7)


def test_an_object_exists_once(window: Window) -> None:
    window.reserve(1, 10)
    with pytest.raises(ValueError, match="reserved already"):
        window.reserve(1, 10)


def test_room_is_limited_and_comes_back(window: Window) -> None:
    window.reserve(1, 600_000)
    with pytest.raises(MemoryError, match=r"600000 bytes in 1 objects"):
        window.reserve(2, 600_000)
    assert window.n_objects == 1
    window.free(1)
    window.reserve(2, 1_000_000)


def test_threads_reserve_and_free_at_a_time(window: Window) -> None:
    def work(first_id: int) -> None:
        for object_id in range(first_id, first_id + 10_000):
            window.reserve(object_id, 100)
            window.free(object_id)

    threads = [threading.Thread(target=work, args=(1 + 10_000 * number,)) for number in range(3)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert (window.nbytes_used, window.n_objects) == (0, 0)
