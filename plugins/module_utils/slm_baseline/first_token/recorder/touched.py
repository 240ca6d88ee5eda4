"""Which pages of its mapped files a process has touched, by its page tables.

mincore(2) shows what is in memory, and most of that is the kernel's read-around: a fault in a mapped library reads up
to the device's read-ahead around it. Page tables show what a process touched: /proc/PID/pagemap has one entry of 64
bits a page, with bit 63 for a page that is present and bit 62 for one that is swapped out
(Documentation/admin-guide/mm/pagemap.rst). A private page that was written since was read from the file before.
A fault maps up to 16 pages around it that are in memory (mm/memory.c, `do_fault_around`), so this is generous already.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...host.errors import ParseError
from .members import Belongs

_ENTRY_BYTES = 8
_WINDOW_BYTES = 4 << 20
"""Bytes of page tables that are read at a time: 2 GiB of addresses."""
_TOP_BYTE = 7 if sys.byteorder == "little" else 0
_IS_THERE = bytes(int(byte & 0xC0 != 0) for byte in range(256))
_RUN = re.compile(b"\x01+")
_LINE = re.compile(
    r"(?P<start>[0-9a-f]{1,16})-(?P<end>[0-9a-f]{1,16}) (?P<rights>[r-][w-][x-][ps]) (?P<offset>[0-9a-f]{1,16})"
    r" (?P<major>[0-9a-f]{1,8}):(?P<minor>[0-9a-f]{1,8}) (?P<inode>\d{1,20})(?: +(?P<path>.*))?"
)

Ranges = list[tuple[int, int]]
FileKey = tuple[int, int, int]
"""Major and minor number of the device, and inode."""


@dataclass(frozen=True)
class Mapping:
    """A part of a file in a process's memory: addresses and offset in bytes."""

    start: int
    end: int
    offset: int
    file: FileKey
    path: str
    is_executable: bool


def parse_maps(text: str) -> list[Mapping]:
    """Return the file mappings of /proc/PID/maps (proc_pid_maps(5)); ParseError for a line of another form.

    A line end within a path is written as `\\012`, so each line is one mapping.
    """
    mappings = []
    for line in text.split("\n"):
        if not line:
            continue
        found = _LINE.fullmatch(line)
        if not found:
            raise ParseError("/proc/PID/maps", "`ADDRESS-ADDRESS RIGHTS OFFSET DEVICE INODE PATH`", line)
        inode = int(found["inode"])
        if inode:
            start, end, offset, major, minor = (
                int(found[name], 16) for name in ("start", "end", "offset", "major", "minor")
            )
            file = (major, minor, inode)
            mappings.append(Mapping(start, end, offset, file, found["path"] or "", found["rights"][2] == "x"))
    return mappings


def libraries(mappings: Sequence[Mapping]) -> list[Mapping]:
    """Return the mappings of files of which the process may execute a part: programs and libraries.

    Weights are mapped too, and may be hundreds of gigabytes; residency shows what a start reads of them.
    """
    programs = {mapping.file for mapping in mappings if mapping.is_executable}
    return [mapping for mapping in mappings if mapping.file in programs]


def touched_runs(entries: bytes) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of each run of touched pages in page-table entries; a truncated entry is left out."""
    for run in _RUN.finditer(entries[_TOP_BYTE::_ENTRY_BYTES].translate(_IS_THERE)):
        yield run.start(), run.end() - run.start()


def united(ranges: Iterable[tuple[int, int]], gap_pages: int = 0) -> Ranges:
    """Return ranges as (first page, pages), sorted and merged; those at most `gap_pages` apart become one."""
    found: Ranges = []
    for first, count in sorted(ranges):
        if found and first - sum(found[-1]) <= gap_pages:
            found[-1] = (found[-1][0], max(sum(found[-1]), first + count) - found[-1][0])
        else:
            found.append((first, count))
    return found


@dataclass
class Touched:
    """The pages that the examined processes have touched, over all looks and starts: `pages` by file.

    `files` finds a file by inode and path. `asked` counts looks at a process, `refused` those that the kernel did not
    answer although the process was alive.
    """

    pages: dict[FileKey, Ranges] = field(default_factory=dict)
    files: dict[tuple[int, str], FileKey] = field(default_factory=dict)
    asked: int = 0
    refused: int = 0

    def look(self, processes: Iterable[int], proc: str = "/proc") -> None:
        """Read the page tables of these processes. One that ends meanwhile adds what was read of it."""
        for pid in processes:
            try:
                self._look_at(f"{proc}/{pid}")
            # It has ended, or reading fails halfway because it is ending.
            except (FileNotFoundError, ProcessLookupError):
                continue
            except (OSError, ParseError):
                self.refused += 1
            else:
                self.asked += 1

    def of(self, path: str, device: int, inode: int) -> Ranges | None:
        """Return the touched pages of that file; None where no examined process had mapped it.

        btrfs and overlayfs report another device in maps than stat(2) does; there inode and path identify the file.
        """
        file = (os.major(device), os.minor(device), inode)
        if file not in self.pages:
            file = self.files.get((inode, path), file)
        return self.pages.get(file)

    def _look_at(self, folder: str) -> None:
        with open(f"{folder}/maps", encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
            mappings = libraries(parse_maps(stream.read()))
        found: dict[FileKey, Ranges] = {}
        self.files.update(((mapping.file[2], mapping.path), mapping.file) for mapping in mappings)
        descriptor = os.open(f"{folder}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for mapping in mappings:
                ranges = found.setdefault(mapping.file, [])
                # The process unmaps or ends meanwhile: what was read until then counts.
                with contextlib.suppress(ProcessLookupError):
                    ranges += _touched_of(descriptor, mapping)
        finally:
            os.close(descriptor)
        for file, ranges in found.items():
            self.pages[file] = united([*self.pages.get(file, ()), *ranges])


def _touched_of(descriptor: int, mapping: Mapping) -> Ranges:
    """Return the pages of the file that were touched through this mapping; OSError."""
    page = mmap.PAGESIZE
    position, left = mapping.start // page * _ENTRY_BYTES, (mapping.end - mapping.start) // page * _ENTRY_BYTES
    first_page = mapping.offset // page
    found: Ranges = []
    while left > 0:
        entries = os.pread(descriptor, min(left, _WINDOW_BYTES), position)
        if not entries:
            break
        found += [(first_page + first, count) for first, count in touched_runs(entries)]
        whole = len(entries) // _ENTRY_BYTES
        if not whole:
            break
        position, left, first_page = position + whole * _ENTRY_BYTES, left - whole * _ENTRY_BYTES, first_page + whole
    return found


def within(ranges: Iterable[tuple[int, int]], size_bytes: int, gap_pages: int) -> Ranges:
    """Return the ranges within a file of that size, merged where at most `gap_pages` lie between."""
    pages = -(-size_bytes // mmap.PAGESIZE)
    cut = [(first, min(count, pages - first)) for first, count in ranges if first < pages]
    return united(cut, gap_pages)


def processes_of(belongs: Belongs, proc: str = "/proc") -> list[int]:
    """Return the processes for which `belongs(pid)` is true, except this one."""
    own = str(os.getpid())
    return [int(name) for name in os.listdir(proc) if name.isdigit() and name != own and belongs(int(name)) is True]
