"""Which pages of a file are in memory, by mincore(2). Only root gets true answers (mm/mincore.c, `can_do_mincore`)."""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Iterator

from . import libc
from .deadline import Deadline

_WINDOW_BYTES = 1 << 30
# The others are not defined (mincore(2)).
_LOWEST_BIT = bytes(number & 1 for number in range(256))
_RUN = re.compile(b"\x01+")


def page_vectors(descriptor: int, size: int) -> Iterator[bytes]:
    """Yield one byte a page, 1 where resident, for `size` bytes of the file in windows of 1 GiB; OSError."""
    for offset in range(0, size, _WINDOW_BYTES):
        yield _window(descriptor, offset, min(_WINDOW_BYTES, size - offset))


def _window(descriptor: int, offset: int, length: int) -> bytes:
    """Return one byte a page for a part of the file. Mapping it reads no page; OSError."""
    with libc.mapped(descriptor, offset, length) as address:
        return libc.mincore(address, length).translate(_LOWEST_BIT)


def resident_ranges(
    descriptor: int, size: int, gap_pages: int = 0, deadline: Deadline | None = None
) -> list[tuple[int, int]]:
    """Return the resident ranges of a file as (first page, pages), in order; gaps of up to `gap_pages` are included.

    Windows of 1 GiB without data are skipped: a sparse file of 1 TiB would take 14 s. OSError, ETIMEDOUT where the
    deadline passes first.
    """
    ranges: list[tuple[int, int]] = []
    for offset in _windows_with_data(descriptor, size):
        if deadline and deadline.is_over:
            raise OSError(errno.ETIMEDOUT, "No time left to ask which pages are in memory")
        first_page = offset // mmap.PAGESIZE
        for run in _RUN.finditer(_window(descriptor, offset, min(_WINDOW_BYTES, size - offset))):
            first, end = first_page + run.start(), first_page + run.end()
            if ranges and first - sum(ranges[-1]) <= gap_pages:
                ranges[-1] = (ranges[-1][0], end - ranges[-1][0])
            else:
                ranges.append((first, end - first))
    return ranges


def _windows_with_data(descriptor: int, size: int) -> Iterator[int]:
    """Yield the offset of each window that is not one hole (lseek(2), SEEK_DATA)."""
    offset = 0
    while offset < size:
        try:
            offset = max(offset, os.lseek(descriptor, offset, os.SEEK_DATA) // _WINDOW_BYTES * _WINDOW_BYTES)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            # The file system does not support SEEK_DATA: every window may have data.
        yield offset
        offset += _WINDOW_BYTES
