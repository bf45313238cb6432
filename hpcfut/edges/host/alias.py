"""A second mapping of shared memory of which only the address is known, because a library has mapped it.

To the kernel, a move of a shared mapping whose old size is 0 means another mapping of the same pages. That has rights
of its own, and it stays when the library unmaps the first one: pages live for as long as anybody has them mapped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any, Final

_MREMAP_MAYMOVE: Final = 1
_MREMAP_FIXED: Final = 2
_FAILED: Final = ctypes.c_void_p(-1).value


class _Buffer(ctypes.Structure):
    """What Python tells of a buffer; only where it begins is of interest."""

    _fields_ = (("start", ctypes.c_void_p), ("rest", ctypes.c_char * 128))


def alias_of(address: int, nbytes: int, *, is_writable: bool) -> mmap.mmap:
    """Map the shared pages from this address on, which begins a page, once more.

    Raises:
        OSError: The kernel does not do it.
    """
    rights = mmap.PROT_READ | (mmap.PROT_WRITE if is_writable else 0)
    # Python maps files only; so it gets pages of no use, in whose place the others are put.
    mapped = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, rights)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mremap.restype = ctypes.c_void_p
    libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    # In two steps: a refusal of the first one leaves Python's pages alone.
    second = _checked(libc.mremap(address, 0, nbytes, _MREMAP_MAYMOVE, None))
    _checked(libc.mprotect(second, nbytes, rights))
    _checked(libc.mremap(second, nbytes, nbytes, _MREMAP_MAYMOVE | _MREMAP_FIXED, _start_of(mapped)))
    return mapped


def _checked(result: Any) -> Any:
    if result in (_FAILED, -1):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _start_of(mapped: mmap.mmap) -> int:
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(mapped), ctypes.byref(buffer), 0)
    start = int(buffer.start)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return start
