"""Calls of the C library that Python has no function for. One that the kernel refuses raises OSError.

ctypes releases the interpreter's lock during a call, which the methods of `mmap` do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator

_CACHESTAT = 451
"""cachestat(2) has no wrapper in libc; since Linux 6.5 it has this number on every architecture but alpha and mips."""
_NO_ADDRESS = ctypes.c_void_p(-1).value
"""MAP_FAILED of mmap(2)."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_LIBC.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_LIBC.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


@contextlib.contextmanager
def mapped(descriptor: int, offset: int, length: int) -> Iterator[int]:
    """Map a part of a file to read it, and yield the address. Mapping reads no page; `offset` begins one."""
    address = _LIBC.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset)
    if address == _NO_ADDRESS:
        raise _last_error()
    try:
        yield address
    finally:
        _LIBC.munmap(address, length)


def mincore(address: int, length: int) -> bytes:
    """Return one byte a page of a mapping, of which only the lowest bit is defined: 1 where resident (mincore(2))."""
    vector = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
    if _LIBC.mincore(address, length, vector):
        raise _last_error()
    return vector.raw


def madvise(address: int, length: int, advice: int) -> None:
    """Advise the kernel about a mapping (madvise(2))."""
    if _LIBC.madvise(address, length, advice):
        raise _last_error()


class _CachestatRange(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _Cachestat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("nr_cache", "nr_dirty", "nr_writeback", "nr_evicted", "nr_recently_evicted")
    )


def cachestat(descriptor: int, length: int) -> int:
    """Return the pages of the first `length` bytes of a file that are in memory (cachestat(2), Linux 6.5)."""
    window, counts = _CachestatRange(0, length), _Cachestat()
    pointers = ctypes.byref(window), ctypes.byref(counts)
    if _LIBC.syscall(ctypes.c_long(_CACHESTAT), ctypes.c_int(descriptor), *pointers, ctypes.c_uint(0)):
        raise _last_error()
    return int(counts.nr_cache)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process (prctl(2)); a filter of system calls that refuses it is no error."""
    _LIBC.prctl(option, value, 0, 0, 0)


def read_prctl(option: int) -> int:
    """Read an attribute of this process that the kernel stores through a pointer to int (prctl(2)); 0 if refused."""
    value = ctypes.c_int()
    _LIBC.prctl(option, ctypes.addressof(value), 0, 0, 0)
    return value.value


def watch_file(path: str, mask: int) -> int:
    """Return a descriptor that becomes readable when one of these events happens to a file (inotify(7)).

    It never blocks. The caller closes it.
    """
    descriptor = int(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    if descriptor < 0:
        raise _last_error()
    if _LIBC.inotify_add_watch(descriptor, os.fsencode(path), mask) < 0:
        error = _last_error()
        os.close(descriptor)
        raise error
    return descriptor


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
