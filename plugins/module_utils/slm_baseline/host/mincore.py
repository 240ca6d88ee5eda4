"""Which pages of a file are in memory, by mincore(2). Only root is told the truth (mm/mincore.c, `can_do_mincore`)."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterator

_WINDOW_BYTES = 1 << 30
_LOWEST_BIT = bytes(number & 1 for number in range(256))
_RUN = re.compile(b"\x01+")


def page_vectors(descriptor: int, size: int) -> Iterator[bytes]:
    """One byte a page, 1 where it is resident, for `size` bytes of the file in windows of 1 GiB; OSError.

    Mapping touches no page of the file.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    for offset in range(0, size, _WINDOW_BYTES):
        length = min(_WINDOW_BYTES, size - offset)
        address = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            vector = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
            if libc.mincore(address, length, vector):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            # Only the lowest bit of each byte is defined (mincore(2)).
            yield vector.raw.translate(_LOWEST_BIT)
        finally:
            libc.munmap(address, length)


def resident_ranges(descriptor: int, size: int, gap_pages: int = 0) -> list[tuple[int, int]]:
    """Resident ranges of a file as (first page, pages), in order; gaps of at most `gap_pages` are taken in."""
    ranges: list[tuple[int, int]] = []
    window_pages = _WINDOW_BYTES // mmap.PAGESIZE
    for number, vector in enumerate(page_vectors(descriptor, size)):
        for run in _RUN.finditer(vector):
            first, end = number * window_pages + run.start(), number * window_pages + run.end()
            if ranges and first - sum(ranges[-1]) <= gap_pages:
                ranges[-1] = (ranges[-1][0], end - ranges[-1][0])
            else:
                ranges.append((first, end - first))
    return ranges
