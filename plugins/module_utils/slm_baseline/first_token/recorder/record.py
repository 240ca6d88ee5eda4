"""Record what a cold start reads, and make a plan of it."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...host.deadline import Deadline
from ...host.files import Host
from ...host.foreign_files import open_foreign
from ...host.mincore import resident_ranges
from ..plan import Plan, PlanFile
from .cached_folders import find_cached_folders
from .fanotify import Seen, watching
from .members import Belongs
from .seek_probe import disk_seeks

GAP_BYTES = 64 << 10
"""Ranges closer than this are read as one: a request costs more than the pages between."""
WEIGHTS_LEAST_BYTES = 32 << 20
"""A larger file that is no program or library is weights: in every engine, whatever its suffix."""
PLANNING_S = 120.0
"""How long it may take to ask which pages of all opened files are in memory."""
_ELF = b"\x7fELF"
_BLOCK_BYTES = 512
"""Of `st_blocks` (stat(2)), whatever the file system's own blocks are."""


@dataclass(frozen=True)
class Recording:
    """A plan, and what is to be known of it: what was seen, and how many opened files the start itself wrote.

    These are in no plan, whether they are at their path or, as a file that is written under another name first, not.
    `unasked` counts files that there was no time to ask about.
    """

    plan: Plan
    seen: Seen
    written: int
    unasked: int = 0


def record(
    host: Host, belongs: Belongs, prepare: Callable[[], None], start: Callable[[], None], deadline: Deadline
) -> Recording:
    """Watch, `prepare` a cold start, `start` it, which returns once the target is ready, and plan what it read.

    The watch stands before anything is prepared: where the kernel cannot be asked nothing is stopped (SettingError).
    What `prepare` and `start` raise passes through.
    """
    with watching(host, belongs) as watch:
        prepare()
        started_ns = time.time_ns()
        watch.begin()
        start()
        seen = watch.end(deadline)
    # At once, while nothing else has been read.
    return plan_of(seen, find_cached_folders(host, seen.folders, deadline), started_ns, deadline)


def plan_of(seen: Seen, below: Sequence[str], started_ns: int, deadline: Deadline) -> Recording:
    """The plan of what was opened: each file with the ranges of it that are in memory now, in order of opening.

    Folders that were listed come before those `below` them that were looked into.

    What was written since the start is left out: a log is another file at each start, and would make every plan stale.
    """
    # Whoever lists a folder asks for its entries next: importlib compares the times of sources that it does not open,
    # transformers looks at every file below `models`. So a replay reads the inodes of all of a listed folder's entries.
    folders = [*seen.folders, *below]
    files: list[PlanFile] = []
    written = unasked = 0
    until = Deadline.after(deadline.left_s(PLANNING_S))
    for opened in seen.opened.values():
        if opened.is_folder:
            continue
        try:
            file = plan_file(opened.path, until)
        except OSError as error:
            if error.errno in (errno.ETIMEDOUT, errno.EACCES):
                unasked += 1
            # A device or a socket is read by nobody ahead.
            elif error.errno != errno.EINVAL:
                written += 1
            continue
        if file and file.mtime_ns < started_ns:
            files.append(file)
        elif file:
            written += 1
    facts = {"page_bytes": str(mmap.PAGESIZE), "spinning": str(int(disk_seeks(files)))}
    return Recording(Plan(facts, folders, files), seen, written, unasked)


def plan_file(path: str, deadline: Deadline) -> PlanFile | None:
    """One file of a plan; None where nothing of it was read. OSError, EINVAL for what is no plain file by now."""
    descriptor = open_foreign(path, os.O_NOFOLLOW, deadline.left_s(5))
    try:
        found = os.fstat(descriptor)
        if not found.st_size:
            return None
        ranges = resident_ranges(descriptor, found.st_size, GAP_BYTES // mmap.PAGESIZE, deadline)
        if not ranges:
            return None
        pages = -(-found.st_size // mmap.PAGESIZE)
        # A hole is no weights, however large.
        stored_bytes = min(found.st_size, found.st_blocks * _BLOCK_BYTES)
        is_weights = stored_bytes >= WEIGHTS_LEAST_BYTES and os.pread(descriptor, 4, 0) != _ELF
        return PlanFile(
            path,
            is_weights,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            None if ranges == [(0, pages)] else tuple(ranges),
        )
    finally:
        os.close(descriptor)
