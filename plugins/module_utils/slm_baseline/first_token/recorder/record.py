"""Record what a cold start reads, and make a plan of it."""

from __future__ import annotations

import mmap
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...host.files import Host
from ...host.mincore import resident_ranges
from ..plan import Plan, PlanFile
from .cached_folders import looked_into
from .fanotify import Opened, Seen, watching
from .seek_probe import disk_seeks

GAP_BYTES = 64 << 10
"""Ranges closer than this are read as one: a request costs more than the pages between."""
WEIGHTS_LEAST_BYTES = 32 << 20
"""A larger file that is no program or library is weights: in every engine, whatever its suffix."""
_ELF = b"\x7fELF"


@dataclass(frozen=True)
class Recording:
    """A plan, and what is to be known of it: what was seen, and how many opened files the start itself wrote.

    These are in no plan, whether they are at their path or, as a file that is written under another name first, not.
    """

    plan: Plan
    seen: Seen
    written: int


def record(host: Host, belongs: Callable[[int], bool | None], start: Callable[[], None]) -> Recording:
    """Run `start`, which returns once the target is ready, and plan what it read. The caller has dropped the caches.

    SettingError where the kernel cannot be asked; what `start` raises passes through.
    """
    started_ns = time.time_ns()
    with watching(host, belongs) as seen:
        start()
    # At once, while nothing else has been read.
    return plan_of(seen, looked_into(host, seen.folders), started_ns)


def plan_of(seen: Seen, below: Sequence[str], started_ns: int) -> Recording:
    """The plan of what was opened: each file with the ranges of it that are in memory now, in order of opening.

    Folders that were listed come before those `below` them that were looked into.

    What was written since the start is left out: a log is another file at each start, and would make every plan stale.
    """
    # Whoever lists a folder asks for its entries next: importlib compares the times of sources that it does not open,
    # transformers looks at every file below `models`. So a replay reads the inodes of all of a listed folder's entries.
    folders = [*seen.folders, *below]
    files: list[PlanFile] = []
    written = 0
    for opened in seen.opened.values():
        if not opened.is_folder:
            try:
                file = _plan_file(opened)
            except OSError:
                written += 1
                continue
            if file and file.mtime_ns < started_ns:
                files.append(file)
            elif file:
                written += 1
    facts = {"page_bytes": str(mmap.PAGESIZE), "spinning": str(int(disk_seeks(files)))}
    return Recording(Plan(facts, folders, files), seen, written)


def _plan_file(opened: Opened) -> PlanFile | None:
    """One file of the plan; None where nothing of it was read, or it is no regular file by now. OSError."""
    descriptor = os.open(opened.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return None
        ranges = resident_ranges(descriptor, found.st_size, GAP_BYTES // mmap.PAGESIZE)
        if not ranges:
            return None
        pages = -(-found.st_size // mmap.PAGESIZE)
        is_weights = found.st_size >= WEIGHTS_LEAST_BYTES and os.pread(descriptor, 4, 0) != _ELF
        return PlanFile(
            opened.path,
            is_weights,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            None if ranges == [(0, pages)] else tuple(ranges),
        )
    finally:
        os.close(descriptor)
