"""Recording what a cold start reads, and making a plan of it."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...containers.runtime import Container
from ...host.deadline import Deadline
from ...host.files import Host
from ...host.foreign_files import open_foreign
from ...host.mincore import resident_ranges
from ..plan import Plan, PlanFile
from .cached_folders import find_cached_folders
from .fanotify import Seen, watching
from .members import Belongs, ContainerMembers
from .placing import Placed, place
from .seek_probe import disk_seeks
from .touched import Touched, processes_of, within

GAP_BYTES = 64 << 10
"""Ranges closer than this are read as one: a request costs more than the pages between them."""
WEIGHTS_LEAST_BYTES = 32 << 20
"""A larger file that is no program or library counts as weights: in every engine, whatever its suffix."""
PLANNING_S = 120.0
"""The time limit for finding which pages of all opened files are in memory."""
_ELF = b"\x7fELF"
_BLOCK_BYTES = 512
"""The unit of `st_blocks` (stat(2)), whatever the file system's block size is."""


@dataclass(frozen=True)
class Recording:
    """A plan, and facts about its recording: what was seen, and how many opened files the start itself wrote.

    Written files are in no plan, whether they are at their path or were written under another name first.
    `unasked` counts files that could not be checked in time, `refused` page tables that could not be read.
    """

    plan: Plan
    seen: Seen
    written: int
    unasked: int = 0
    refused: int = 0
    container: Container | None = None
    placed: Placed = field(default_factory=Placed)


Look = Callable[[], None]
"""Called while the target's processes are alive: when it is ready, and earlier if its end means that it is ready."""


def record(
    host: Host,
    belongs: Belongs,
    prepare: Callable[[], None],
    start: Callable[[Look], None],
    deadline: Deadline,
    touched: Touched | None = None,
    find_container: Callable[[], Container | None] = lambda: None,
) -> Recording:
    """Run `prepare`, then watch while `start` runs until the target is ready; return the plan of what the start read.

    `touched` is what earlier recordings of the same target saw: the plan has the pages of all of them, since a start
    touches slightly different pages each time. The watch begins before anything is prepared: where the kernel supports
    none, nothing is stopped (SettingError). Errors of `prepare` and `start` pass through.

    `find_container` asks the runtime for the target's container, which may have been made by this start; where a
    container is made anew for each start, it is asked while that lives.
    """
    touched = touched or Touched()
    container: Container | None = None

    def look() -> None:
        nonlocal container
        touched.look(processes_of(belongs))
        container = find_container() or container

    def keeps(pid: int) -> bool:
        return not isinstance(belongs, ContainerMembers) or belongs.is_of(pid, container.id if container else "")

    with watching(host, belongs) as watch:
        prepare()
        started_ns = time.time_ns()
        watch.begin()
        start(look)
        seen = watch.end(deadline)
    # At once, while nothing else has been read.
    placed = place(host, seen, container, keeps, started_ns)
    recording = plan_of(seen, find_cached_folders(host, seen.folders, deadline), started_ns, deadline, touched)
    return replace(recording, container=container, placed=placed)


def plan_of(
    seen: Seen, below: Sequence[str], started_ns: int, deadline: Deadline, touched: Touched | None = None
) -> Recording:
    """Return the plan of what was opened, in order of opening: each file with the ranges to read.

    For a program or library these are the touched pages, where a process that has mapped it could be examined, else the
    pages that are in memory now. Folders that were listed come before those `below` them that were searched.

    Files written since the start are left out: a log is another file at each start, and would make every plan stale.
    """
    # A program that lists a folder stats its entries next: importlib compares times of sources that it does not open,
    # transformers checks every file below `models`. So a replay reads the inodes of all entries of a listed folder.
    folders = [*seen.folders, *below]
    files: list[PlanFile] = []
    touched = touched or Touched()
    written = unasked = resident_bytes = 0
    until = Deadline.after(deadline.left_s(PLANNING_S))
    for opened in seen.opened.values():
        if opened.is_folder:
            continue
        try:
            file = plan_file(opened.path, until)
        except OSError as error:
            if error.errno in (errno.ETIMEDOUT, errno.EACCES):
                unasked += 1
            # Devices and sockets cannot be prefetched.
            elif error.errno != errno.EINVAL:
                written += 1
            continue
        if file and file.mtime_ns < started_ns:
            resident_bytes += 0 if file.is_weights else file.read_bytes(mmap.PAGESIZE)
            files.append(with_touched(file, touched, opened.inside))
        elif file:
            written += 1
    facts = {
        "page_bytes": str(mmap.PAGESIZE),
        "spinning": str(int(disk_seeks(files))),
        "resident_bytes": str(resident_bytes),
    }
    return Recording(Plan(facts, folders, files), seen, written, unasked, touched.refused)


def with_touched(file: PlanFile, touched: Touched, inside: str = "") -> PlanFile:
    """Return the file with the pages that were touched, where these are known; weights stay unchanged.

    Processes have it at the path `inside` their mount namespace, if not at its own. Only programs and libraries were
    examined: they are read through mappings alone, except for their first page.
    """
    pages = None if file.is_weights else touched.of(inside or file.path, file.device, file.inode)
    if not pages:
        return file
    ranges = within([(0, 1), *pages], file.size_bytes, GAP_BYTES // mmap.PAGESIZE)
    return replace(file, ranges=_whole_or(ranges, file.size_bytes))


def plan_file(path: str, deadline: Deadline) -> PlanFile | None:
    """Return one file of a plan; None where nothing of it was read. OSError, EINVAL if it is not a regular file now."""
    descriptor = open_foreign(path, os.O_NOFOLLOW, deadline.left_s(5))
    try:
        found = os.fstat(descriptor)
        if not found.st_size:
            return None
        ranges = resident_ranges(descriptor, found.st_size, GAP_BYTES // mmap.PAGESIZE, deadline)
        if not ranges:
            return None
        # A hole holds no weights, however large it is.
        stored_bytes = min(found.st_size, found.st_blocks * _BLOCK_BYTES)
        is_weights = stored_bytes >= WEIGHTS_LEAST_BYTES and os.pread(descriptor, 4, 0) != _ELF
        return PlanFile(
            path,
            is_weights,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            _whole_or(ranges, found.st_size),
            found.st_dev,
        )
    finally:
        os.close(descriptor)


def _whole_or(ranges: Sequence[tuple[int, int]], size_bytes: int) -> tuple[tuple[int, int], ...] | None:
    """Return ranges in the form of a plan: None for the whole file."""
    pages = -(-size_bytes // mmap.PAGESIZE)
    return None if list(ranges) == [(0, pages)] else tuple(ranges)
